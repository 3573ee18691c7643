//! The compiled-in sample model. It recognises only the sentences of the project's sample calls. The demo, the
//! self-test and the tests use it, and it is never chosen for a real call. `sample_model/` documents how it was made.

use std::path::Path;

use super::error::EngineError;
use super::manifest::ModelManifest;

/// Its name, for `--model sample`.
pub const SAMPLE: &str = "sample";

const MODEL: &[u8] = include_bytes!("../sample_model/model.onnx");
const MANIFEST: &str = include_str!("../sample_model/model.json");
/// 16-bit samples at 16 kHz, little endian.
const SENTENCE: &[u8] = include_bytes!("../sample_model/sentence.pcm");
const SENTENCE_TEXT: &str = include_str!("../sample_model/sentence.txt");

/// Its path for error messages, its description and its bytes.
pub(super) fn parts() -> Result<(&'static Path, ModelManifest, &'static [u8]), EngineError> {
    let manifest = ModelManifest::parse(MANIFEST, Path::new("sample/model.json"))?;
    Ok((Path::new("sample/model.onnx"), manifest, MODEL))
}

/// A sentence for self-tests: its 16 kHz samples and its text.
#[must_use]
pub fn sample_sentence() -> (Vec<f32>, &'static str) {
    let (pairs, _) = SENTENCE.as_chunks::<2>();
    let samples = pairs.iter().map(|pair| f32::from(i16::from_le_bytes(*pair)) / 32_768.0).collect();
    (samples, SENTENCE_TEXT.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::Recogniser;
    use super::super::Search;
    use super::*;
    use crate::domain::Segment;

    #[test]
    fn the_self_test_sentence_is_recognised_word_for_word() {
        let (samples, text) = sample_sentence();
        let duration_ms = samples.len() as u64 / 16;
        for search in [Search::Greedy, Search::Beam(8)] {
            let recogniser = Recogniser::sample(search, 1).unwrap();
            let speech = [Segment::new(300, duration_ms - 300)];
            let words = recogniser.recognise(&mut samples.as_slice(), &speech, duration_ms).unwrap();
            let said: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            assert_eq!(said.join(" "), text, "{search:?}");
            assert!(words.windows(2).all(|pair| pair[0].end_ms <= pair[1].start_ms));
            assert!(words.iter().all(|word| word.confidence > 0.5 && word.end_ms <= duration_ms as f64));
        }
    }

    #[test]
    fn silence_and_noise_say_nothing() {
        let recogniser = Recogniser::sample(Search::Greedy, 1).unwrap();
        let silence = vec![0.0f32; 32_000];
        assert!(recogniser.recognise(&mut silence.as_slice(), &[], 2_000).unwrap().is_empty());
        assert!(recogniser.recognise(&mut silence.as_slice(), &[Segment::new(0, 50)], 50).unwrap().is_empty());
    }
}

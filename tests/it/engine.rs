//! The embedded engine against what the reference implementations give: `golden/fastconformer.py` made the files.

use std::path::Path;
use std::path::PathBuf;

use aftercall::domain::Segment;
use aftercall::transcript::engine::EngineError;
use aftercall::transcript::engine::Recogniser;
use aftercall::transcript::engine::Search;
use aftercall::transcript::engine::features::LogMel;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name)
}

fn floats(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(golden(name)).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

fn sound() -> Vec<f32> {
    let bytes = std::fs::read(golden("sound.pcm")).unwrap();
    bytes.as_chunks::<2>().0.iter().map(|two| f32::from(i16::from_le_bytes(*two)) / 32_768.0).collect()
}

fn furthest(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A folder with the small network, and with `change` done to it.
fn copy(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "tokens.txt"] {
        std::fs::copy(golden(name), dir.path().join(name)).unwrap();
    }
    change(dir.path());
    dir
}

#[test]
fn features_equal_the_reference() {
    let apart = furthest(&LogMel::new(80).picture(&sound()), &floats("features.f32"));
    assert!(apart <= 1e-4, "{apart}");
}

#[test]
fn log_probabilities_and_text_equal_onnx_runtime() {
    let recogniser = Recogniser::load(&golden(""), Search::Greedy, 1).unwrap();
    let samples = sound();
    let posteriors = recogniser.posteriors(&samples).unwrap();
    let theirs = floats("logprobs.f32");
    let tokens = theirs.len() / posteriors.steps();
    // Ours has the blank first, the export has it last.
    let ours: Vec<f32> = (0..posteriors.steps())
        .flat_map(|step| {
            let mut row = posteriors.step(step).to_vec();
            row.rotate_left(1);
            assert_eq!(row.len(), tokens);
            row
        })
        .collect();
    let apart = furthest(&ours, &theirs);
    assert!(apart <= 1e-3, "{apart}");
    let duration_ms = samples.len() as u64 / 16;
    let words = recogniser.recognise(&mut samples.as_slice(), &[Segment::new(0, duration_ms)], duration_ms).unwrap();
    let said: Vec<String> = words.into_iter().map(|word| word.text).collect();
    let text = std::fs::read_to_string(golden("text.txt")).unwrap();
    assert!(said.len() > 3 && said.join(" ") == text.trim_end(), "{said:?} is not {text:?}");
}

#[test]
fn a_model_that_cannot_be_used_says_what_is_wrong_with_it() {
    let load = |dir: &tempfile::TempDir| Recogniser::load(dir.path(), Search::Greedy, 1).unwrap_err();
    let missing = copy(|dir| std::fs::remove_file(dir.join("model.onnx")).unwrap());
    assert!(matches!(load(&missing), EngineError::Missing { .. }));
    let truncated = copy(|dir| {
        let bytes = std::fs::read(dir.join("model.onnx")).unwrap();
        std::fs::write(dir.join("model.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(matches!(load(&truncated), EngineError::Architecture { .. }));
    let text = copy(|dir| std::fs::write(dir.join("model.onnx"), "<html>not found</html>").unwrap());
    assert!(matches!(load(&text), EngineError::Architecture { .. }));
    let changed = copy(|dir| {
        std::fs::write(dir.join("model.json"), r#"{"name":"x","sha256":"00"}"#).unwrap();
    });
    assert!(matches!(load(&changed), EngineError::WrongHash { .. }));
    let no_tokens = copy(|dir| std::fs::remove_file(dir.join("tokens.txt")).unwrap());
    assert!(matches!(load(&no_tokens), EngineError::Missing { .. }));
}

#[test]
fn tokens_of_another_model_are_noticed() {
    let dir = copy(|dir| std::fs::write(dir.join("tokens.txt"), "a 0\n<blk> 1\n").unwrap());
    let recogniser = Recogniser::load(dir.path(), Search::Greedy, 1).unwrap();
    assert!(matches!(recogniser.posteriors(&sound()), Err(EngineError::Architecture { .. })));
    let bins = copy(|dir| std::fs::write(dir.join("model.json"), r#"{"name":"x","bins":64}"#).unwrap());
    let recogniser = Recogniser::load(bins.path(), Search::Greedy, 1).unwrap();
    assert!(recogniser.posteriors(&sound()).is_err());
}

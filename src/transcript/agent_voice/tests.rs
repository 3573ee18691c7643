//! Enrolled voices of synthetic agents: comparison of embeddings, and the turns used for enrolment.

use super::*;
use crate::transcript::without_text;

/// An embedding at a distance of `at` standard deviations from the mean voice, in every direction.
fn embedding(at: f64) -> SpeakerEmbedding {
    // The directions are not orthogonal. The embedding for one direction alone is found by iteration.
    let wanted: Vec<f64> = table::BETWEEN.iter().map(|between| at * between.sqrt()).collect();
    let mut embedding = SpeakerEmbedding { version: VOICE_VERSION, at: table::MEAN.to_vec(), speech_ms: 20_000 };
    for _ in 0..2_000 {
        for (n, direction) in table::ALONG.iter().enumerate() {
            let short = wanted[n] - place(&embedding).unwrap()[n];
            let length: f64 = direction.iter().map(|weight| weight * weight).sum();
            embedding.at.iter_mut().zip(direction).for_each(|(at, weight)| *at += short * weight / length);
        }
    }
    embedding
}

#[test]
fn a_voice_is_its_own_and_not_another() {
    let known = AgentVoice::of(&[embedding(1.0), embedding(1.02), embedding(0.98)]).unwrap();
    assert!(known.log_likelihood_ratio(&embedding(1.0)).unwrap() > 3.0);
    assert!(known.log_likelihood_ratio(&embedding(-1.0)).unwrap() < -3.0);
    // A voice with little speech gives a smaller ratio in both directions.
    let short = |at| SpeakerEmbedding { speech_ms: 100, ..embedding(at) };
    assert!(known.log_likelihood_ratio(&short(1.0)).unwrap() < known.log_likelihood_ratio(&embedding(1.0)).unwrap());
    assert!(known.log_likelihood_ratio(&short(-1.0)).unwrap() > known.log_likelihood_ratio(&embedding(-1.0)).unwrap());
}

#[test]
fn figures_of_another_build_and_too_few_calls_make_nobody_known() {
    let of_before = || SpeakerEmbedding { version: VOICE_VERSION + 1, ..embedding(0.8) };
    assert_eq!(AgentVoice::of(&[of_before(), of_before(), of_before()]), None);
    assert_eq!(AgentVoice::of(&[embedding(0.8)]), None);
    let known = AgentVoice::of(&[embedding(0.8), embedding(0.8), of_before()]).unwrap();
    assert_eq!(known.calls, 2);
    assert_eq!(known.log_likelihood_ratio(&of_before()), None);
    let cut = SpeakerEmbedding { at: vec![0.0; 3], ..embedding(0.8) };
    assert_eq!(known.log_likelihood_ratio(&cut), None);
}

fn turns(of: &[(u32, u64, u64)]) -> Transcript {
    let turn = |(speaker, start_ms, end_ms): &(u32, u64, u64)| Turn {
        speaker: *speaker,
        start_ms: *start_ms,
        end_ms: *end_ms,
    };
    Transcript { turns: of.iter().map(turn).collect(), ..without_text(None) }
}

#[test]
fn what_others_say_meanwhile_is_left_out_where_it_is_heard_too() {
    let words = turns(&[(0, 0, 1_000), (1, 800, 1_500), (0, 2_000, 3_000), (1, 2_200, 2_400)]);
    let own = |mixed| {
        let alone = alone(&words, &Speaker::nameless(0), mixed);
        alone.iter().map(|region| (region.start_ms, region.end_ms)).collect::<Vec<_>>()
    };
    assert_eq!(own(true), [(0, 800), (2_000, 2_200), (2_400, 3_000)]);
    assert_eq!(own(false), [(0, 1_000), (2_000, 3_000)]);
}

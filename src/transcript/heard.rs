//! Builds a transcript from recognised words. Each word is assigned to the speaker of its time.

use super::confidence;
use super::engine::HeardWord;
use crate::domain::Transcript;
use crate::domain::transcript::EngineInfo;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::TRANSCRIPT_SCHEMA;
use crate::domain::transcript::TextSource;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;
use crate::domain::transcript::Word;

/// A pause of this length starts a new utterance of the same speaker.
const PAUSE_MS: u64 = 700;

/// The words of one leg, and its speaker if the leg has only one.
#[derive(Debug, Clone)]
pub struct HeardLeg {
    pub speaker: Option<u32>,
    pub words: Vec<HeardWord>,
}

/// Combines words and turns. `turns` hold the speakers by time. Without words, the reason is set to `no_speech`.
#[must_use]
pub fn from_engine(
    legs: Vec<HeardLeg>,
    speakers: Vec<Speaker>,
    turns: Vec<Turn>,
    language: Option<&str>,
    engine: EngineInfo,
) -> Transcript {
    let mut spoken: Vec<(u32, HeardWord)> = legs
        .into_iter()
        .flat_map(|leg| leg.words.into_iter().map(move |word| (leg.speaker, word)))
        .map(|(speaker, word)| (speaker.unwrap_or_else(|| speaker_at(&turns, middle(&word))), word))
        .collect();
    spoken.sort_by(|a, b| a.1.start_ms.total_cmp(&b.1.start_ms));
    let mut utterances: Vec<Utterance> = Vec::new();
    for (speaker, word) in spoken {
        let (start_ms, end_ms) = (word.start_ms.round() as u64, word.end_ms.round() as u64);
        let confidence = Some(confidence::thousandths(word.confidence));
        let said = Word { text: word.text, start_ms: Some(start_ms), end_ms: Some(end_ms), confidence, heard: None };
        // During overlap each speaker keeps an utterance. A word joins its speaker's utterance if that is one of the
        // last two and no pause lies between.
        match utterances.iter_mut().rev().take(2).find(|open| open.speaker == speaker) {
            Some(open) if open.end_ms.is_some_and(|end| start_ms < end + PAUSE_MS) => add(open, said),
            _ => utterances.push(Utterance {
                speaker,
                start_ms: Some(start_ms),
                end_ms: Some(end_ms),
                text: said.text.clone(),
                confidence: None,
                heard: None,
                words: vec![said],
                by: None,
            }),
        }
    }
    for utterance in &mut utterances {
        utterance.confidence = confidence::mean(&utterance.words);
    }
    Transcript {
        schema: TRANSCRIPT_SCHEMA.to_owned(),
        language: language.map(str::to_owned),
        source: TextSource::Stt,
        engine: Some(engine),
        speakers,
        turns,
        reason: utterances.is_empty().then(|| super::provider::NO_SPEECH.to_owned()),
        utterances,
        redacted: false,
    }
}

fn add(open: &mut Utterance, word: Word) {
    open.text.push(' ');
    open.text.push_str(&word.text);
    open.end_ms = open.end_ms.max(word.end_ms);
    open.words.push(word);
}

fn middle(word: &HeardWord) -> u64 {
    word.start_ms.midpoint(word.end_ms).round() as u64
}

/// The speaker at this time: the speaker of the turn that contains it, else of the nearest turn. Among several turns
/// the shortest wins, because it lies within the longer one.
#[must_use]
pub fn speaker_at(turns: &[Turn], at_ms: u64) -> u32 {
    let distance = |turn: &Turn| turn.start_ms.saturating_sub(at_ms).max(at_ms.saturating_sub(turn.end_ms));
    let nearest = turns.iter().min_by_key(|turn| (distance(turn), turn.end_ms - turn.start_ms.min(turn.end_ms)));
    nearest.map_or(0, |turn| turn.speaker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, start_ms: f64) -> HeardWord {
        HeardWord { text: text.to_owned(), start_ms, end_ms: start_ms + 200.0, confidence: 0.9 }
    }

    fn engine() -> EngineInfo {
        EngineInfo { name: "test".to_owned(), model: None, model_sha256: None, parameters: serde_json::Value::Null }
    }

    #[test]
    fn words_go_to_whoever_speaks_and_pauses_part_utterances() {
        let turns = vec![
            Turn { speaker: 0, start_ms: 0, end_ms: 1_000 },
            Turn { speaker: 1, start_ms: 1_200, end_ms: 2_000 },
            Turn { speaker: 1, start_ms: 4_000, end_ms: 5_000 },
        ];
        let words = vec![word("Good", 100.0), word("morning.", 700.0), word("Hi.", 1_300.0), word("Yes?", 4_100.0)];
        let leg = HeardLeg { speaker: None, words };
        let made =
            from_engine(vec![leg], vec![Speaker::nameless(0), Speaker::nameless(1)], turns, Some("en"), engine());
        let said: Vec<(u32, &str)> = made.utterances.iter().map(|u| (u.speaker, u.text.as_str())).collect();
        assert_eq!(said, [(0, "Good morning."), (1, "Hi."), (1, "Yes?")]);
        assert_eq!((made.utterances[0].start_ms, made.utterances[0].end_ms), (Some(100), Some(900)));
        assert_eq!(made.reason, None);
    }

    #[test]
    fn two_legs_at_once_keep_their_own_utterances() {
        let left =
            HeardLeg { speaker: Some(0), words: vec![word("one", 0.0), word("two", 400.0), word("three", 800.0)] };
        let right = HeardLeg { speaker: Some(1), words: vec![word("stop", 500.0)] };
        let made = from_engine(
            vec![left, right],
            vec![Speaker::nameless(0), Speaker::nameless(1)],
            Vec::new(),
            None,
            engine(),
        );
        let said: Vec<(u32, &str)> = made.utterances.iter().map(|u| (u.speaker, u.text.as_str())).collect();
        assert_eq!(said, [(0, "one two three"), (1, "stop")]);
    }
}

//! Confidences as they are written: from 0 to 1, in thousandths.

use crate::domain::transcript::Word;

pub(super) fn thousandths(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}

/// The mean confidence of the words that have one.
pub(super) fn mean(words: &[Word]) -> Option<f64> {
    let known: Vec<f64> = words.iter().filter_map(|word| word.confidence).collect();
    (!known.is_empty()).then(|| thousandths(known.iter().sum::<f64>() / known.len() as f64))
}

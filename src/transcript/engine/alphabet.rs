//! The tokens of a model and the spelling of words with them.

use super::manifest::ModelManifest;

/// The tokens in the order of the decoder: the blank first, then the others in their order.
#[derive(Debug, Clone)]
pub struct Alphabet {
    tokens: Vec<String>,
    time_offset_ms: f64,
}

/// The space marker of SentencePiece before a word.
const LOW_LINE: char = '\u{2581}';

impl Alphabet {
    #[must_use]
    pub fn of(manifest: &ModelManifest) -> Self {
        let mut tokens = manifest.tokens.clone();
        if let Some(upto_blank) = tokens.get_mut(..=manifest.blank()) {
            upto_blank.rotate_right(1);
        }
        for token in &mut tokens {
            *token = token.replace(LOW_LINE, " ");
        }
        if let Some(blank) = tokens.first_mut() {
            blank.clear();
        }
        Self { tokens, time_offset_ms: manifest.time_offset_ms as f64 }
    }

    /// The token for a single space.
    #[must_use]
    pub fn space(&self) -> Option<usize> {
        (1..self.tokens.len()).find(|token| self.text(*token) == " ")
    }

    /// The token's text, with a space at the start of a word.
    #[must_use]
    pub fn text(&self, token: usize) -> &str {
        self.tokens.get(token).map_or("", String::as_str)
    }

    /// All tokens; the first is the blank, an empty text.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Start of a word in milliseconds, from the step of its first token.
    #[must_use]
    pub fn start_ms(&self, step: usize, step_ms: f64) -> f64 {
        (step as f64 * step_ms - self.time_offset_ms).max(0.0)
    }

    /// The tokens that spell a word, longest tokens first. Letters without a token are dropped.
    #[must_use]
    pub fn spell(&self, word: &str) -> Vec<usize> {
        let spelt = self.pieces(word);
        if spelt.is_empty() { self.pieces(&word.to_lowercase()) } else { spelt }
    }

    fn pieces(&self, word: &str) -> Vec<usize> {
        let mut all = Vec::new();
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let at_start = all.is_empty();
            let fits = |text: &str| {
                let letters = text.strip_prefix(' ').filter(|_| at_start).unwrap_or(text);
                (!letters.is_empty() && rest.starts_with(letters)).then_some(letters.len())
            };
            let longest = (1..self.tokens.len())
                .filter_map(|token| fits(self.text(token)).map(|length| (length, self.text(token).len(), token)))
                .max_by_key(|(length, whole, _)| (*length, *whole));
            let lower = || {
                let lower = first.to_lowercase().to_string();
                (1..self.tokens.len()).find(|token| self.text(*token) == lower)
            };
            if let Some((length, _, token)) = longest {
                all.push(token);
                rest = &rest[length..];
            } else {
                all.extend(lower());
                rest = &rest[first.len_utf8()..];
            }
        }
        all
    }
}

//! Word errors: substitutions, insertions and deletions of the cheapest alignment of two normalised texts.

/// Words of the reference and their errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WordErrors {
    pub errors: u64,
    pub words: u64,
}

impl WordErrors {
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        (self.words > 0).then(|| self.errors as f64 / self.words as f64)
    }

    pub const fn add(&mut self, other: Self) {
        self.errors += other.errors;
        self.words += other.words;
    }
}

/// Word errors between two lists of words.
#[must_use]
pub fn word_errors(reference: &[String], found: &[String]) -> WordErrors {
    // One row of the edit distance: the cost for every length of `found`.
    let mut row: Vec<u64> = (0..=found.len() as u64).collect();
    for (n, word) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = n as u64 + 1;
        for (m, other) in found.iter().enumerate() {
            let substituted = diagonal + u64::from(word != other);
            diagonal = row[m + 1];
            row[m + 1] = substituted.min(row[m] + 1).min(diagonal + 1);
        }
    }
    WordErrors { errors: row[found.len()], words: reference.len() as u64 }
}

/// Index pairs of equal words in the cheapest alignment of two texts.
pub(super) fn matches(reference: &[String], found: &[String]) -> Vec<(usize, usize)> {
    #[derive(Clone, Copy, PartialEq)]
    enum Backpointer {
        Both,
        Reference,
        Found,
    }
    let width = found.len() + 1;
    let mut came = vec![Backpointer::Found; width * (reference.len() + 1)];
    let mut row: Vec<u64> = (0..width as u64).collect();
    for (n, word) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = n as u64 + 1;
        came[(n + 1) * width] = Backpointer::Reference;
        for (m, other) in found.iter().enumerate() {
            let both = diagonal + u64::from(word != other);
            diagonal = row[m + 1];
            let (inserted, deleted) = (row[m] + 1, diagonal + 1);
            let least = both.min(inserted).min(deleted);
            row[m + 1] = least;
            came[(n + 1) * width + m + 1] = match least {
                _ if least == both => Backpointer::Both,
                _ if least == deleted => Backpointer::Reference,
                _ => Backpointer::Found,
            };
        }
    }
    let (mut n, mut m) = (reference.len(), found.len());
    let mut pairs = Vec::new();
    while n > 0 || m > 0 {
        match came[n * width + m] {
            Backpointer::Both => {
                (n, m) = (n - 1, m - 1);
                if reference[n] == found[m] {
                    pairs.push((n, m));
                }
            }
            Backpointer::Reference => n -= 1,
            Backpointer::Found => m -= 1,
        }
    }
    pairs.reverse();
    pairs
}

/// Contractions and their long forms, longest ending first: the most common rules of the English normaliser published
/// with Whisper (Radford et al., 2022, appendix C).
const CONTRACTIONS: [(&str, &str); 12] = [
    ("won't", "will not"),
    ("can't", "can not"),
    ("let's", "let us"),
    ("ain't", "aint"),
    ("y'all", "you all"),
    ("n't", " not"),
    ("'re", " are"),
    ("'ll", " will"),
    ("'ve", " have"),
    ("'d", " would"),
    ("'m", " am"),
    ("'s", " is"),
];
/// Filler words for pauses.
const FILLERS: [&str; 6] = ["hmm", "mm", "mhm", "mmm", "uh", "um"];
const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// The normalised words of a text: lower case, without punctuation, fillers and bracketed text, with expanded
/// contractions, numbers up to 99 as digits, and short titles. Rules for currency and British spelling are not
/// included.
#[must_use]
pub fn normalise(text: &str) -> Vec<String> {
    let lower = without_brackets(&text.to_lowercase()).replace('\u{2019}', "'");
    let mut words: Vec<String> = Vec::new();
    for raw in lower.split_whitespace() {
        let written = CONTRACTIONS.iter().find_map(|(short, long)| {
            let stem = raw.trim_matches(|c: char| !c.is_alphanumeric() && c != '\'').strip_suffix(short)?;
            Some(format!("{stem}{long}"))
        });
        let written = written.unwrap_or_else(|| raw.to_owned());
        let spaced: String = written.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
        words.extend(spaced.split_whitespace().filter(|word| !FILLERS.contains(word)).map(short));
    }
    numbers(&words)
}

fn without_brackets(text: &str) -> String {
    let mut depth = 0_usize;
    let keep = |c: char| {
        match c {
            '[' | '(' | '<' => depth += 1,
            ']' | ')' | '>' => {
                depth = depth.saturating_sub(1);
                return None;
            }
            _ => {}
        }
        (depth == 0).then_some(c)
    };
    text.chars().filter_map(keep).collect()
}

fn short(word: &str) -> String {
    match word {
        "mister" => "mr",
        "missus" => "mrs",
        "doctor" => "dr",
        "alright" => "all right",
        "cannot" => "can not",
        other => other,
    }
    .to_owned()
}

fn numbers(words: &[String]) -> Vec<String> {
    let ones = |word: &String| ONES.iter().position(|name| name == word);
    let tens = |word: &String| TENS.iter().position(|name| name == word).map(|at| (at + 2) * 10);
    let mut out = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let (tens, one) = (tens(&words[at]), ones(&words[at]));
        let next = words.get(at + 1).and_then(ones).filter(|one| (1..10).contains(one));
        match (tens, one, next) {
            (Some(tens), _, Some(one)) => {
                out.push((tens + one).to_string());
                at += 1;
            }
            (Some(number), ..) | (_, Some(number), _) => out.push(number.to_string()),
            _ => out.extend(words[at].split(' ').map(str::to_owned)),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_alike_before_they_are_compared() {
        assert_eq!(normalise("I'm, um, [laughs] twenty-one; can't Mister X?"), normalise("i am 21 can not mr x"));
        assert_eq!(normalise("It's seven four one."), ["it", "is", "7", "4", "1"]);
        assert_eq!(normalise("won\u{2019}t  cannot"), ["will", "not", "can", "not"]);
    }

    #[test]
    fn equal_words_find_each_other() {
        let of = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        assert_eq!(matches(&of("a b c d"), &of("a x c d e")), [(0, 0), (2, 2), (3, 3)]);
        assert_eq!(matches(&of("b c"), &of("a b c")), [(0, 1), (1, 2)]);
        assert!(matches(&[], &of("a")).is_empty());
    }

    #[test]
    fn errors_are_those_of_the_cheapest_alignment() {
        let errors = |a: &str, b: &str| word_errors(&normalise(a), &normalise(b));
        assert_eq!(errors("a b c d", "a x c d e"), WordErrors { errors: 2, words: 4 });
        assert_eq!(errors("", "a"), WordErrors { errors: 1, words: 0 });
        assert_eq!(errors("a b", ""), WordErrors { errors: 2, words: 2 });
    }
}

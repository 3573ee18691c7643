//! Enums of which each variant has a word.

/// Makes an enum whose variants are these words in JSON, rows, logs and metrics.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$of_one:meta])* $one:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$of_one])* #[serde(rename = $word)] $one,)+ }

        impl $name {
            /// Every one of them, in this order.
            pub const ALL: &'static [Self] = &[$(Self::$one,)+];
            /// What is said of any other word.
            pub const NONE_OF_THEM: &'static str = concat!("is none of these:" $(, " ", $word)+);

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$one => $word,)+ }
            }

            /// The one with this word.
            #[must_use]
            pub fn named(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}
pub(crate) use words;

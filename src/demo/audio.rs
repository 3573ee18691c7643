//! The bytes of a sample recording.

use std::fmt;

use bytes::Bytes;

use crate::domain::Container;

/// The bytes of a recording. Clones share them.
#[derive(Clone)]
pub struct SampleAudio {
    pub bytes: Bytes,
    pub container: Container,
}

impl SampleAudio {
    /// A compiled-in recording.
    #[must_use]
    pub const fn embedded(bytes: &'static [u8], container: Container) -> Self {
        Self { bytes: Bytes::from_static(bytes), container }
    }

    /// The extension in the platforms' URLs. Zudu writes `.mp4` where our originals have `.m4a`.
    pub(super) const fn extension(&self) -> &'static str {
        match self.container {
            Container::Mp4 => "mp4",
            other => other.extension(),
        }
    }
}

impl fmt::Debug for SampleAudio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {:?}", self.bytes.len(), self.container)
    }
}

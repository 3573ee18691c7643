//! Domain types without I/O: call, recording, transcript, artifact, retention term. Every other module uses these
//! types. This module imports none of the others.

pub mod address;
pub mod artifact;
pub mod call;
pub mod fault;
pub mod flag;
pub mod id;
pub mod outcome;
pub mod pause;
pub mod platform;
pub mod quality;
pub mod recording;
pub mod retention;
pub mod segment;
pub mod spoken;
pub mod times;
pub mod transcript;
pub mod voice;
mod words;

pub use address::Address;
pub use artifact::{Artifact, ArtifactKey, ArtifactKind, ContentType, Manifest, Sha256};
pub use call::{
    CallChannel, CallStatus, Cost, CostUnit, Direction, EndReason, Network, ProviderTurn, ProviderWord, SourceCall,
};
pub use fault::{Classify, Fault, Side, Stage, chain};
pub use flag::{CallFlag, RecordFlag};
pub use id::{CallId, CallUid, OrgUid, ParseError, PhoneNumber, SourceName};
pub use outcome::Outcome;
pub use pause::retry_after;
pub use platform::{KeyHeaders, LossUnit, Vendor};
pub use quality::Quality;
pub use recording::{Container, DualChannels, RecordingState, RecordingUrl};
pub use retention::{RetainUntil, RetentionBasis, RetentionState, RetentionTerm};
pub use segment::Segment;
pub use transcript::{Role, Transcript};
pub use voice::{Enrolled, SpeakerEmbedding};
pub(crate) use words::words;

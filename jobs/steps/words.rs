//! Step 6 (its first part): who said what, as far as the platform tells.

use crate::domain::{SourceCall, Transcript};
use crate::jobs::Stop;
use crate::transcript;

/// The platform's turns as a transcript; empty with a reason where it gave none.
#[expect(clippy::unused_async, reason = "a step like the others; engines will wait here")]
pub async fn from_platform(call: &SourceCall) -> Result<Transcript, Stop> {
    Ok(transcript::from_source(call))
}

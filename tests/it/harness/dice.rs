//! A platform's bad day: one request in twenty goes wrong, the same ones in every run.

use std::hash::{DefaultHasher, Hash, Hasher};

use aftercall::demo::{Api, FaultAnswer, RequestInfo, RequestKind};

/// The number thrown for a request.
pub fn dice(request: &RequestInfo) -> u64 {
    let mut hasher = DefaultHasher::new();
    (request.kind, request.api, &request.call_id, request.nth).hash(&mut hasher);
    hasher.finish()
}

/// Whether a request changes something at its receiver.
pub const fn writes(request: &RequestInfo) -> bool {
    matches!(request.kind, RequestKind::MetadataWrite | RequestKind::RecordWrite)
}

/// What goes wrong with a request, if anything does: one of six things.
pub fn fault(request: &RequestInfo) -> Option<FaultAnswer> {
    let dice = dice(request);
    dice.is_multiple_of(20).then(|| match dice / 20 % 6 {
        0 => FaultAnswer::status(500),
        1 => FaultAnswer::throttled(request.api.unwrap_or(Api::Atoms), 0.2),
        2 => FaultAnswer::Drop,
        // Nobody can tell a receiver that says 200 and does nothing from one that does as asked.
        3 | 4 if writes(request) => FaultAnswer::CommitThenDrop,
        3 => FaultAnswer::Html,
        4 => FaultAnswer::Truncate(700),
        _ => FaultAnswer::ResetAfter(300),
    })
}

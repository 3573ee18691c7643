//! The steps of `process_call`, one file each, in the order in which they run.

pub(super) mod artifacts;
pub(super) mod audio;
pub(super) mod fetch;
pub(super) mod finish;
pub(super) mod growth;
pub(super) mod keep;
pub(super) mod media;
pub(super) mod original;
pub(super) mod quality;
pub(super) mod remote_stt;
pub(super) mod source;
pub(super) mod words;

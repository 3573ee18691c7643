//! The steps of `process_call`, and what several of them share (`growth`, `keep`, `media`, `remote_stt`).

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

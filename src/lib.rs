//! `aftercall`: the after-call worker of a voice platform.
//!
//! Input: calls that have ended. It fetches their recordings, measures and normalises the audio, and makes transcripts
//! with speaker labels. It stores the artifacts until their retention term ends, and records the outcome of each call.
//!
//! ```text
//!           trigger (API, CLI)         schedule (reconcile, retention)   backfill
//!                         \                     |                        /
//!                          v                    v                       v
//! source ──► queue ──► worker ──► jobs/process_call
//! (wire)                             1 source      the call, fresh, with a usable recording URL
//!                                    2 fetch       URL -> spooled file; limits, SSRF guard, sha256
//!                                    3 artifacts   the original goes to object storage first: URLs expire
//!                                    4 audio       decode, timeline repair, mix, 48 kHz mono; loudness; speech regions
//!                                    5 transcript  the platform's words aligned with the audio, else an engine's
//!                                    6 quality     measured on the recording as recorded, before any gain
//!                                    7 artifacts   everything derived, manifest last
//!                                    8 writeback   record + job completion + outbox row in ONE fenced transaction
//!                    (jobs/deliver: sends the outbox row to the platform's own record, where the platform accepts it)
//!                    jobs/erase_call  condemn -> delete every version -> prove empty -> scrub record -> audit
//! ```
//!
//! Start reading at `jobs/process_call.rs`.

pub mod api;
pub mod app;
pub mod artifacts;
pub mod audio;
pub mod cli;
mod coding;
pub mod config;
pub mod demo;
mod digest;
pub mod domain;
pub mod fetch;
mod json;
pub mod quality;
pub mod queue;
pub mod record_outcome;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod transcript;
pub mod wire;
pub mod worker;

// `src/` holds the parts, `jobs/` holds what is done with them. Cargo's check, clippy, fmt, doc and package all follow
// the path.
#[path = "../jobs/mod.rs"]
pub mod jobs;

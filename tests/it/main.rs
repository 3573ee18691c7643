//! Behaviour of the whole, driven through the real `App` and the real binary against fake neighbours.
// Nothing of a test binary is reachable from outside, so that the lint tells nothing here.
#![allow(unreachable_pub)]
// Tests compare with the real time and read their knobs from the environment.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod afternoon;
mod agent_voice;
mod api;
mod architecture;
mod audio;
mod backfill;
mod bad_input;
mod by_hand;
mod capacity_warning;
mod chaos;
mod circles;
mod clocks;
mod crash;
mod day;
mod docs;
mod engine;
mod evaluate;
mod fake_s3;
mod fetch;
mod given;
mod harness;
mod keys;
mod ledger;
mod lost_objects;
mod migrate;
mod models;
mod objects;
mod operating;
mod packing;
mod pipeline;
mod postgres;
mod process;
mod queue;
mod rate_limits;
mod remote_stt;
mod retention;
mod roles;
mod scale;
mod settings;
mod source;
mod stalls;
mod starts;
mod steady;
mod store;
mod terminal;
mod transcript;
mod upgrade;
mod watch;
mod wire;
mod words;

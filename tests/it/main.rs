//! Behaviour of the whole, driven through the real `App` and the real binary against fake neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod agent_voice;
mod api;
mod architecture;
mod audio;
mod backfill;
mod bad_input;
mod chaos;
mod crash;
mod day;
mod elsewhere;
mod engine;
mod evaluate;
mod fake_s3;
mod fetch;
mod foresight;
mod harness;
mod ledger;
mod migrate;
mod models;
mod objects;
mod pace;
mod pipeline;
mod postgres;
mod process;
mod queue;
mod retention;
mod roles;
mod scale;
mod source;
mod steady;
mod store;
mod transcript;
mod upgrade;
mod wire;
mod words;

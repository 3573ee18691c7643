//! Behaviour of the whole, driven through the real `App` and the real binary against fake neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod architecture;
mod fake_s3;
mod fetch;
mod objects;
mod postgres;
mod source;
mod transcript;
mod wire;

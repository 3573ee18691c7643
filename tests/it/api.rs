//! The HTTP API as its clients meet it: real requests to a real server over a real store.

mod backfills;
mod lists;
mod ops;
mod reads;
mod roles;
pub mod server;
mod triggers;

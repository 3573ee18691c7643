//! Everything any test of this process logs, as a careless operator would have it: every level of our own.

use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::EnvFilter;

static LOGS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Tee;

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGS.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts keeping.
pub fn keep_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::new("warn,aftercall=trace");
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Tee).init();
    });
}

/// Forgets what was kept: only for a test that runs alone.
pub fn forget_logs() {
    *LOGS.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
}

/// What was logged so far.
pub fn logs() -> Vec<u8> {
    LOGS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

//! Limits log lines of the queue engine and the database driver to one per minute. In an outage they log the same line
//! for every queue, connection and try.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Metadata};
use tracing_subscriber::layer::{Context, Filter};

const BETWEEN: Duration = Duration::from_secs(60);
const TARGETS: [&str; 2] = ["riverqueue", "sqlx"];

/// Filter that lets each source line of these crates through once per minute.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<HashMap<Identifier, Instant>>);

impl Seldom {
    fn lets_through(&self, line: Identifier, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&line).is_some_and(|at| now.duration_since(*at) < BETWEEN) {
            return false;
        }
        said.insert(line, now);
        true
    }
}

impl<S> Filter<S> for Seldom {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let theirs = TARGETS.iter().any(|target| metadata.target().starts_with(target));
        !theirs || self.lets_through(metadata.callsite(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::layer::{Layer, SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_engine_repeats_itself_once_a_minute_and_others_as_they_like() {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(Seldom::default()));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..156 {
                tracing::error!(target: "riverqueue::client::producer", "one");
                tracing::error!(target: "riverqueue::maintenance", "two");
                tracing::error!(target: "aftercall::worker", "three");
            }
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let said = |word: &str| text.lines().filter(|line| line.ends_with(word)).count();
        assert_eq!((said("one"), said("two"), said("three")), (1, 1, 156));
    }
}

//! The state of the sample platform: its clock, calls, records and settings. Every route reads it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use jiff::{SignedDuration, Timestamp};

use super::entries::{CallEntry, Entries};
use super::records::Records;
use super::request_log::RequestLog;
use super::sample::Api;

/// Clock of the platform. It decides which links have expired.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Credentials that clients must send.
#[derive(Debug, Clone)]
pub struct Keys {
    pub krosai: String,
    pub cockpit: String,
    pub zudu: String,
    pub zudu_secret: String,
    pub atoms: String,
    pub receiver: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            krosai: "kros_live_sample".to_owned(),
            cockpit: "kros_live_sample_cockpit".to_owned(),
            zudu: "sk_sample_zudu".to_owned(),
            zudu_secret: "s3cr3t_sample".to_owned(),
            atoms: "sk_sample_atoms".to_owned(),
            receiver: "receiver_sample".to_owned(),
        }
    }
}

/// Order of lists. No document promises one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListOrder {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// Members of Zudu's answer about one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ZuduDetail {
    /// Only the documented members: no recording, no text, no opt-out mark. Only the list has those.
    #[default]
    Documented,
    /// All members of the list.
    Full,
}

pub(super) struct Inner {
    pub clock: Clock,
    pub entries: RwLock<Entries>,
    pub log: RequestLog,
    pub records: Records,
    pub keys: Keys,
    pub link_ttl: SignedDuration,
    pub order: ListOrder,
    pub zudu_detail: ZuduDetail,
    pub recording_base: Option<String>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform").field("order", &self.order).field("link_ttl", &self.link_ttl).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(super) fn calls(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls of a platform in list order that pass `wanted`: their total number and one page.
    pub(super) fn page(
        &self,
        api: Api,
        (skip, take): (usize, usize),
        wanted: impl Fn(&CallEntry) -> bool,
    ) -> (usize, Vec<Arc<CallEntry>>) {
        let calls = self.calls();
        let row = calls.of(api);
        let mut all: Vec<&Arc<CallEntry>> = row.iter().filter(|entry| wanted(entry)).collect();
        if self.order == ListOrder::NewestFirst {
            all.reverse();
        }
        (all.len(), all.into_iter().skip(skip).take(take).cloned().collect())
    }
}

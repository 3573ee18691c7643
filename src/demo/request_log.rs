//! The log of received requests, and the hook that replaces answers by faults.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::fault::FaultAnswer;
use super::sample::Api;

/// The type of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    /// A page of calls, in any form.
    List,
    /// One call.
    Detail,
    /// A fresh link to a recording.
    RecordingLink,
    /// Bytes of a recording.
    Recording,
    /// A change of a platform's own call (Zudu).
    MetadataWrite,
    /// A read of the receiver's record of a call.
    RecordRead,
    /// A write of the receiver's record of a call.
    RecordWrite,
    /// Statistics, events, hang-up.
    Other,
}

/// One received request.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    pub kind: RequestKind,
    /// None for the receiver.
    pub api: Option<Api>,
    pub call_id: Option<String>,
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    /// Names in lower case. Only credentials, ranges, conditions, codings and idempotency keys are kept.
    pub headers: Vec<(String, String)>,
    /// 1 for the first request of this kind about this call. Without a call, requests of this kind and platform are
    /// counted.
    pub nth: u64,
}

impl RequestInfo {
    /// The value of a recorded header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Decides which requests get a fault.
pub type Hook = Arc<dyn Fn(&RequestInfo) -> Option<FaultAnswer> + Send + Sync>;

/// All requests up to one moment, in order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Requests(Vec<Arc<RequestInfo>>);

impl Requests {
    /// All requests.
    pub fn iter(&self) -> impl Iterator<Item = &RequestInfo> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// The number of requests of a kind.
    #[must_use]
    pub fn count(&self, kind: RequestKind) -> usize {
        self.iter().filter(|request| request.kind == kind).count()
    }

    /// The number of requests of a kind about one call.
    #[must_use]
    pub fn of(&self, kind: RequestKind, call_id: &str) -> usize {
        self.iter().filter(|request| request.kind == kind && request.call_id.as_deref() == Some(call_id)).count()
    }
}

type Subject = (RequestKind, Option<Api>, Option<String>);

#[derive(Default)]
struct RequestHistory {
    requests: Vec<Arc<RequestInfo>>,
    counts: HashMap<Subject, u64>,
}

#[derive(Default)]
pub(super) struct RequestLog {
    seen: Mutex<RequestHistory>,
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for RequestLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl RequestLog {
    pub(super) fn set_hook(&self, hook: Option<Hook>) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }

    pub(super) fn requests(&self) -> Requests {
        Requests(self.seen.lock().unwrap_or_else(PoisonError::into_inner).requests.clone())
    }

    pub(super) fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = RequestHistory::default();
    }

    pub(super) fn write_down(&self, mut request: RequestInfo) -> Arc<RequestInfo> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = seen.counts.entry((request.kind, request.api, request.call_id.clone())).or_default();
        *nth += 1;
        request.nth = *nth;
        let request = Arc::new(request);
        seen.requests.push(Arc::clone(&request));
        request
    }

    pub(super) fn fault(&self, request: &RequestInfo) -> Option<FaultAnswer> {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hook.and_then(|hook| hook(request))
    }
}

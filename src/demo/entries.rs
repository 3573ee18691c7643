//! The calls of a platform and their state.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::audio::SampleAudio;
use super::sample::{Api, SampleCall, SampleRecording};

/// A call and the changes that clients made to it.
#[derive(Debug)]
pub(super) struct CallEntry {
    pub call: SampleCall,
    looks: AtomicU32,
    metadata: Mutex<Map<String, Value>>,
    effects: AtomicU64,
}

impl CallEntry {
    fn new(call: SampleCall) -> Self {
        let metadata = Mutex::new(call.metadata.clone());
        Self { call, looks: AtomicU32::new(0), metadata, effects: AtomicU64::new(0) }
    }

    /// Counts a request for this call. True when the answer shows the recording.
    pub(super) fn look(&self) -> bool {
        self.there(self.looks.fetch_add(1, Ordering::AcqRel))
    }

    /// True when a list shows the recording.
    pub(super) fn listed(&self) -> bool {
        self.there(self.looks.load(Ordering::Acquire))
    }

    fn there(&self, reads_before: u32) -> bool {
        match self.call.recording {
            SampleRecording::Ready => true,
            SampleRecording::AfterReads(hidden) => reads_before >= hidden,
            SampleRecording::Never => false,
        }
    }

    pub(super) fn metadata(&self) -> Map<String, Value> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Merges `changes` into the metadata, member by member. A repeated change has no second effect.
    pub(super) fn merge_metadata(&self, changes: &Map<String, Value>) {
        let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        let before = metadata.clone();
        metadata.extend(changes.clone());
        if *metadata != before {
            self.effects.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn effects(&self) -> u64 {
        self.effects.load(Ordering::Acquire)
    }
}

/// All calls of all platforms.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_id: HashMap<(Api, String), Arc<CallEntry>>,
    /// Oldest first.
    ordered: HashMap<Api, Vec<Arc<CallEntry>>>,
    files: HashMap<(Api, String), (Arc<CallEntry>, SampleAudio)>,
}

impl Entries {
    /// Adds a call. It replaces a call with the same id.
    pub(super) fn add(&mut self, call: SampleCall) {
        let api = call.api;
        self.remove(api, &call.id.clone());
        let entry = Arc::new(CallEntry::new(call));
        for (file, audio) in entry.call.files() {
            self.files.insert((api, file), (Arc::clone(&entry), audio));
        }
        self.by_id.insert((api, entry.call.id.clone()), Arc::clone(&entry));
        let row = self.ordered.entry(api).or_default();
        let place = row.partition_point(|other| other.call.created_at() <= entry.call.created_at());
        row.insert(place, entry);
    }

    pub(super) fn remove(&mut self, api: Api, id: &str) {
        let Some(gone) = self.by_id.remove(&(api, id.to_owned())) else {
            return;
        };
        for (file, _) in gone.call.files() {
            self.files.remove(&(api, file));
        }
        if let Some(row) = self.ordered.get_mut(&api) {
            row.retain(|entry| !Arc::ptr_eq(entry, &gone));
        }
    }

    pub(super) fn get(&self, api: Api, id: &str) -> Option<Arc<CallEntry>> {
        self.by_id.get(&(api, id.to_owned())).cloned()
    }

    /// Oldest first.
    pub(super) fn of(&self, api: Api) -> &[Arc<CallEntry>] {
        self.ordered.get(&api).map_or(&[], Vec::as_slice)
    }

    pub(super) fn file(&self, api: Api, file: &str) -> Option<SampleAudio> {
        self.files.get(&(api, file.to_owned())).map(|(_, audio)| audio.clone())
    }

    /// The id of the call that a recording belongs to.
    pub(super) fn owner(&self, api: Api, file: &str) -> Option<String> {
        self.files.get(&(api, file.to_owned())).map(|(entry, _)| entry.call.id.clone())
    }
}

//! What the service holds.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::faults::{Fault, Strict};

/// Small, so that every listing of more than a few entries is paged.
const PAGE: usize = 3;

#[derive(Debug, Clone)]
pub struct Version {
    pub id: String,
    /// `None` is a delete marker.
    pub body: Option<Bytes>,
    pub content_type: Option<String>,
    pub metadata: Option<HashMap<String, String>>,
}

#[derive(Debug, Default)]
pub struct Upload {
    pub key: String,
    pub parts: BTreeMap<i32, Bytes>,
    pub content_type: Option<String>,
    pub metadata: Option<HashMap<String, String>>,
}

/// Asked about the operation and the number of every request.
pub type Hook = fn(&'static str, usize) -> Option<Fault>;

#[derive(Debug, Default)]
pub struct State {
    pub versioned: bool,
    pub encrypts: bool,
    /// Versions, newest last.
    pub objects: BTreeMap<String, Vec<Version>>,
    pub uploads: BTreeMap<String, Upload>,
    pub faults: HashMap<&'static str, (Fault, u32)>,
    pub hook: Option<Hook>,
    pub strict: Option<Strict>,
    pub requests: Vec<&'static str>,
    pub next: u64,
    pub sha256_headers: u32,
}

impl State {
    pub fn id(&mut self) -> String {
        self.next += 1;
        format!("{:08}", self.next)
    }

    pub fn store(&mut self, key: String, mut version: Version) -> String {
        let versions = self.objects.entry(key).or_default();
        if !self.versioned {
            versions.clear();
            "null".clone_into(&mut version.id);
        }
        let id = version.id.clone();
        versions.push(version);
        id
    }

    pub fn newest(&self, key: &str) -> Option<&Version> {
        self.objects.get(key)?.last().filter(|version| version.body.is_some())
    }
}

/// A delete with a version takes that one; without, it hides them behind a marker where versions are kept.
pub fn delete(state: &mut State, key: &str, version: Option<&str>) {
    match version {
        Some(id) => {
            if let Some(versions) = state.objects.get_mut(key) {
                versions.retain(|version| version.id != id);
            }
        }
        None if state.versioned => {
            let marker = Version { id: state.id(), body: None, content_type: None, metadata: None };
            state.store(key.to_owned(), marker);
        }
        None => {
            state.objects.remove(key);
        }
    }
    state.objects.retain(|_, versions| !versions.is_empty());
}

/// Entries after a marker, one page of them, and whether there are more.
pub fn page<T: Clone>(all: &[T], after: Option<&str>, key: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let mut rest = all.iter().filter(|entry| after.is_none_or(|after| key(entry).as_str() > after)).cloned();
    let page: Vec<T> = rest.by_ref().take(PAGE).collect();
    let next = rest.next().and(page.last().map(&key));
    (page, next)
}

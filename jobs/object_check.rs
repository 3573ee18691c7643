//! Compares the records with the object store. It reads one listing and the records in the order of their keys, so that
//! the memory does not grow with the number of objects. It deletes objects without a living record. It flags calls with
//! objects that are missing or have another size, until the objects are back.

use std::collections::{BTreeMap, VecDeque};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};

use super::{At, Stop};
use crate::app::App;
use crate::artifacts::{CallPrefix, Entry, ObjectError};
use crate::domain::{Artifact, CallUid, OrgUid, RecordFlag, RetentionState, Stage};
use crate::store::{StoreError, StoredCall};
use crate::telemetry;

/// Younger objects may belong to a run that has not committed yet.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Records per read.
const PAGE: u32 = 500;
/// Objects of one call that are kept in memory. Further objects are checked one by one.
const MOST_OF_A_CALL: usize = 2_000;
/// Changes per transaction.
const BATCH: usize = 100;
/// Calls named in the log per pass.
const NAMED: u64 = 10;

/// What to do with objects without a living record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    Delete,
    /// Keep them, because the sweep refuses to delete.
    Leave,
}

/// The counts of one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Deleted orphans: calls with objects and without a living record.
    pub orphans: u64,
    /// Calls that this pass flagged.
    pub lost: u64,
    /// Flagged calls with complete objects again.
    pub mended: u64,
}

/// The listed objects of one call.
struct ListedObjects {
    org: OrgUid,
    call: CallUid,
    prefix: String,
    sizes: BTreeMap<String, u64>,
    oldest: Option<Timestamp>,
}

/// Compares all records and objects.
///
/// # Errors
/// [`Stop`] if the store or the database fails. Changes written before the failure stay.
pub async fn check(app: &App, orphans: Orphans) -> Result<Found, Stop> {
    let mut pass = CheckPass::new(app, orphans);
    let mut listing = app.objects.list_all(None);
    let mut listed: Option<ListedObjects> = None;
    while let Some(entry) = listing.next().await {
        let entry = match entry {
            // No object was stored yet, or the disk is not mounted. A comparison would prove nothing.
            Err(ObjectError::Io { path, source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "there is no object store here yet; nothing was compared");
                return Ok(pass.found);
            }
            entry => entry.at(Stage::Retention)?,
        };
        let Some((org, call)) = owner(&entry) else { continue };
        if listed.as_ref().is_none_or(|listed| (listed.org, listed.call) != (org, call))
            && let Some(whole) = listed.replace(ListedObjects::new(org, call))
        {
            pass.take(whole).await?;
        }
        if let Some(listed) = &mut listed {
            listed.add(entry);
        }
    }
    if let Some(whole) = listed {
        pass.take(whole).await?;
    }
    pass.end().await
}

/// Sets the gauge of calls with missing objects, for every source.
pub async fn measure(app: &App) -> Result<(), StoreError> {
    let missing = app.store.missing_objects().await?;
    for source in app.platforms.keys() {
        let calls = missing.get(source.as_str()).copied().unwrap_or(0);
        metrics::gauge!(telemetry::MISSING_OBJECTS, "source" => source.to_string()).set(calls as f64);
    }
    Ok(())
}

/// The first of these objects that is missing from the store or has another size; `None` if all are there.
pub async fn first_lost<'a>(app: &App, artifacts: &[&'a Artifact]) -> Result<Option<&'a Artifact>, ObjectError> {
    for artifact in artifacts {
        let head = app.objects.head(&artifact.key).await?;
        if head.is_none_or(|head| head.size_bytes != artifact.size_bytes) {
            return Ok(Some(artifact));
        }
    }
    Ok(None)
}

impl ListedObjects {
    fn new(org: OrgUid, call: CallUid) -> Self {
        let prefix = CallPrefix::new(org, call).to_string();
        Self { org, call, prefix, sizes: BTreeMap::new(), oldest: None }
    }

    fn add(&mut self, entry: Entry) {
        self.oldest = self.oldest.into_iter().chain(entry.modified).min();
        if self.sizes.len() < MOST_OF_A_CALL {
            self.sizes.insert(entry.key, entry.size_bytes);
        }
    }

    fn shows(&self, artifact: &Artifact) -> bool {
        self.sizes.get(artifact.key.as_str()) == Some(&artifact.size_bytes)
    }
}

/// The change of a call's flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlagChange {
    Lost,
    Mended,
}

/// The state of one pass.
struct CheckPass<'a> {
    app: &'a App,
    orphans: Orphans,
    records: StoredCalls<'a>,
    found: Found,
    named: u64,
    changes: Vec<(CallUid, FlagChange)>,
}

impl<'a> CheckPass<'a> {
    fn new(app: &'a App, orphans: Orphans) -> Self {
        Self { app, orphans, records: StoredCalls::new(app), found: Found::default(), named: 0, changes: Vec::new() }
    }

    /// Processes the listed objects of one call, and all records with smaller keys, which have no listed object.
    async fn take(&mut self, listed: ListedObjects) -> Result<(), Stop> {
        let mut known = false;
        while let Some(record) = self.records.next_if(|prefix| prefix <= listed.prefix.as_str()).await? {
            let own = record.uid == listed.call;
            known |= own;
            self.judge(&record, own.then_some(&listed)).await?;
        }
        let old = listed.oldest.is_some_and(|at| self.app.now().duration_since(at) >= ORPHAN_AGE);
        if known || !old || self.orphans == Orphans::Leave || is_kept(self.app, listed.call).await? {
            return Ok(());
        }
        tracing::error!(call.id = %listed.call, "objects without a living record");
        let prefix = CallPrefix::new(listed.org, listed.call);
        self.app.objects.delete_prefix(&prefix, &[]).await.at(Stage::Retention)?;
        self.found.orphans += 1;
        Ok(())
    }

    async fn judge(&mut self, record: &StoredCall, listed: Option<&ListedObjects>) -> Result<(), Stop> {
        let whole = record.artifacts.iter().all(|artifact| listed.is_some_and(|listed| listed.shows(artifact)));
        let flagged = record.flags.iter().any(|flag| flag == RecordFlag::MissingObject.as_str());
        match (whole, flagged) {
            (true, true) => self.change(record.uid, FlagChange::Mended).await,
            (false, false) => self.suspect(record.uid, listed).await,
            _ => Ok(()),
        }
    }

    /// Listing and record may be of different times. This reads the call again and checks each unlisted object by its
    /// key, until one is missing.
    async fn suspect(&mut self, call: CallUid, listed: Option<&ListedObjects>) -> Result<(), Stop> {
        let Some(record) = self.app.store.call(call).await.at(Stage::Retention)? else { return Ok(()) };
        if record.retention_state != RetentionState::Active {
            return Ok(());
        }
        let unlisted = |artifact: &&Artifact| !listed.is_some_and(|listed| listed.shows(artifact));
        let unlisted: Vec<&Artifact> = record.artifacts.iter().filter(unlisted).collect();
        let Some(lost) = first_lost(self.app, &unlisted).await.at(Stage::Retention)? else { return Ok(()) };
        if self.named < NAMED {
            self.named += 1;
            tracing::error!(call.id = %call, source = %record.source, key = %lost.key, "a stored object is lost");
        }
        self.change(call, FlagChange::Lost).await
    }

    async fn change(&mut self, call: CallUid, change: FlagChange) -> Result<(), Stop> {
        self.changes.push((call, change));
        if self.changes.len() >= BATCH { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), Stop> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let (store, flag) = (&self.app.store, RecordFlag::MissingObject);
        let mut tx = store.begin().await.at(Stage::Retention)?;
        for (call, change) in std::mem::take(&mut self.changes) {
            match change {
                FlagChange::Lost => {
                    self.found.lost += u64::from(store.set_flag(&mut tx, call, flag).await.at(Stage::Retention)?);
                }
                FlagChange::Mended => {
                    self.found.mended += u64::from(store.clear_flag(&mut tx, call, flag).await.at(Stage::Retention)?);
                }
            }
        }
        tx.commit().await.at(Stage::Retention)
    }

    /// Processes the records after the last listed object. None of their objects is listed.
    async fn end(mut self) -> Result<Found, Stop> {
        while let Some(record) = self.records.next_if(|_| true).await? {
            self.judge(&record, None).await?;
        }
        self.write().await?;
        measure(self.app).await.at(Stage::Retention)?;
        let Found { orphans, lost, mended } = self.found;
        if orphans > 0 {
            tracing::warn!(calls = orphans, "objects of calls without a record were deleted");
        }
        if lost > 0 {
            tracing::error!(calls = lost, "stored objects are lost: see `aftercall calls list --flag missing_object`");
        }
        if mended > 0 {
            tracing::info!(calls = mended, "stored objects are back");
        }
        Ok(self.found)
    }
}

/// The kept calls with stored objects, in the order of their keys, read by pages.
struct StoredCalls<'a> {
    app: &'a App,
    page: VecDeque<StoredCall>,
    after: Option<(OrgUid, CallUid)>,
    over: bool,
}

impl<'a> StoredCalls<'a> {
    const fn new(app: &'a App) -> Self {
        Self { app, page: VecDeque::new(), after: None, over: false }
    }

    /// The next record if its prefix matches `wanted`.
    async fn next_if(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Option<StoredCall>, Stop> {
        if self.page.is_empty() && !self.over {
            let page = self.app.store.stored_calls(self.after, PAGE).await.at(Stage::Retention)?;
            self.over = page.len() < PAGE as usize;
            self.after = page.last().map(|last| (last.org, last.uid)).or(self.after);
            self.page = page.into();
        }
        let prefix = self.page.front().map(|first| CallPrefix::new(first.org, first.uid).to_string());
        Ok(prefix.filter(|prefix| wanted(prefix)).and_then(|_| self.page.pop_front()))
    }
}

async fn is_kept(app: &App, call: CallUid) -> Result<bool, Stop> {
    let record = app.store.call(call).await.at(Stage::Retention)?;
    Ok(record.is_some_and(|record| record.retention_state != RetentionState::Erased))
}

fn owner(entry: &Entry) -> Option<(OrgUid, CallUid)> {
    let mut parts = entry.key.split('/').skip(1);
    Some((OrgUid::parse(parts.next()?).ok()?, CallUid::parse(parts.next()?).ok()?))
}

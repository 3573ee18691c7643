//! The records against the object store: one listing, gone through beside the records in the order of their keys, so that
//! it takes no more memory for millions of objects than for ten. It finds objects without a living record, which are
//! deleted, and calls whose objects are missing or have another size, which are flagged until they are mended.

use std::collections::{BTreeMap, VecDeque};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};

use super::{At, Stop};
use crate::app::App;
use crate::artifacts::{CallPrefix, Entry, ObjectError};
use crate::domain::{Artifact, CallUid, OrgUid, RecordFlag, RetentionState, Stage};
use crate::store::{StoreError, StoredCall};
use crate::telemetry;

/// Objects younger than this may belong to a run that has not committed yet.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Records read at once.
const PAGE: u32 = 500;
/// Objects of one call that are remembered; of more, the rest is looked at one by one.
const MOST_OF_A_CALL: usize = 2_000;
/// Changes written in one transaction.
const BATCH: usize = 100;
/// Calls named in the log by one pass.
const NAMED: u64 = 10;

/// What is done with objects that have no living record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    Delete,
    /// The sweep refuses to delete anything.
    Leave,
}

/// What a pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Calls without a living record whose objects were deleted.
    pub orphans: u64,
    /// Calls that have just been flagged.
    pub lost: u64,
    /// Calls that are whole again.
    pub mended: u64,
}

/// The objects of one call, as the listing shows them.
struct Listed {
    org: OrgUid,
    call: CallUid,
    prefix: String,
    sizes: BTreeMap<String, u64>,
    oldest: Option<Timestamp>,
}

/// Goes through everything.
///
/// # Errors
/// [`Stop`]: the store or the database does not answer; what was written until then stands.
pub async fn check(app: &App, orphans: Orphans) -> Result<Found, Stop> {
    let mut pass = Pass::new(app, orphans);
    let mut listing = app.objects.list_all(None);
    let mut listed: Option<Listed> = None;
    while let Some(entry) = listing.next().await {
        let entry = match entry {
            // Nothing has been stored yet, or the disk is not mounted: nothing can be told either way.
            Err(ObjectError::Io { path, source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "there is no object store here (yet), nothing was compared");
                return Ok(pass.found);
            }
            entry => entry.at(Stage::Retention)?,
        };
        let Some((org, call)) = owner(&entry) else { continue };
        if listed.as_ref().is_none_or(|listed| (listed.org, listed.call) != (org, call))
            && let Some(whole) = listed.replace(Listed::new(org, call))
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

/// Sets the gauge of calls that miss objects, for every source.
///
/// # Errors
/// [`StoreError`].
pub async fn measure(app: &App) -> Result<(), StoreError> {
    let missing = app.store.missing_objects().await?;
    for source in app.platforms.keys() {
        let calls = missing.get(source.as_str()).copied().unwrap_or(0);
        metrics::gauge!(telemetry::MISSING_OBJECTS, "source" => source.to_string()).set(calls as f64);
    }
    Ok(())
}

/// The first of these objects that is not in the store as it was written, where one is.
///
/// # Errors
/// [`ObjectError`].
pub async fn first_lost<'a>(app: &App, artifacts: &[&'a Artifact]) -> Result<Option<&'a Artifact>, ObjectError> {
    for artifact in artifacts {
        let head = app.objects.head(&artifact.key).await?;
        if head.is_none_or(|head| head.size_bytes != artifact.size_bytes) {
            return Ok(Some(artifact));
        }
    }
    Ok(None)
}

impl Listed {
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

/// What becomes of a call's flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Lost,
    Mended,
}

/// One pass.
struct Pass<'a> {
    app: &'a App,
    orphans: Orphans,
    records: Records<'a>,
    found: Found,
    named: u64,
    changes: Vec<(CallUid, Change)>,
}

impl<'a> Pass<'a> {
    fn new(app: &'a App, orphans: Orphans) -> Self {
        Self { app, orphans, records: Records::new(app), found: Found::default(), named: 0, changes: Vec::new() }
    }

    /// Takes in the objects of one call, and every record whose turn was before it: of those nothing is listed.
    async fn take(&mut self, listed: Listed) -> Result<(), Stop> {
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

    async fn judge(&mut self, record: &StoredCall, listed: Option<&Listed>) -> Result<(), Stop> {
        let whole = record.artifacts.iter().all(|artifact| listed.is_some_and(|listed| listed.shows(artifact)));
        let flagged = record.flags.iter().any(|flag| flag == RecordFlag::MissingObject.as_str());
        match (whole, flagged) {
            (true, true) => self.change(record.uid, Change::Mended).await,
            (false, false) => self.suspect(record.uid, listed).await,
            _ => Ok(()),
        }
    }

    /// A listing may be older than the record, or the record than the listing: the call is read again, and what was not
    /// listed is asked for by its name, until one is missed.
    async fn suspect(&mut self, call: CallUid, listed: Option<&Listed>) -> Result<(), Stop> {
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
        self.change(call, Change::Lost).await
    }

    async fn change(&mut self, call: CallUid, change: Change) -> Result<(), Stop> {
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
                Change::Lost => {
                    self.found.lost += u64::from(store.set_flag(&mut tx, call, flag).await.at(Stage::Retention)?);
                }
                Change::Mended => {
                    self.found.mended += u64::from(store.clear_flag(&mut tx, call, flag).await.at(Stage::Retention)?);
                }
            }
        }
        tx.commit().await.at(Stage::Retention)
    }

    /// The records after the last object that is listed: of those nothing is there.
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

/// The kept calls of which something is stored, in the order of their keys, read page by page.
struct Records<'a> {
    app: &'a App,
    page: VecDeque<StoredCall>,
    after: Option<(OrgUid, CallUid)>,
    over: bool,
}

impl<'a> Records<'a> {
    const fn new(app: &'a App) -> Self {
        Self { app, page: VecDeque::new(), after: None, over: false }
    }

    /// The next one, if its prefix is as wanted.
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

//! A call platform, asked over HTTP: its list, one call, a fresh link to a recording, a word written back. What the
//! platforms differ in is `wire`'s business; what their answers mean for a job is this part's.

mod error;
mod gate;
mod http;
mod keys;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use self::http::{About, Answer, Api, Asked};
use self::keys::Keys;
use crate::config::{self, AuthMode, DialectName, OrganizationPlacement, PacketLossUnit};
use crate::domain::{CallId, CallStatus, SourceCall, SourceName};
use crate::wire::{
    Cursor, Dialect, KeyHeaders, LossUnit, Organization, Page, Platform, RecordingLink, Request, Window, WireError,
};

pub use error::{REFUSED_PAUSE, SourceError};
pub use gate::{Answered, Gate, Held, Pass, Precedence};
pub use walk::Walk;

/// Pages looked through for the list row of one call, where only the list has what is needed.
const LOOKUP_PAGES: u64 = 50;

/// One configured platform account.
#[derive(Debug)]
pub struct Source {
    name: SourceName,
    dialect: Dialect,
    organization_id: Option<String>,
    api: Api,
}

impl Source {
    /// Makes the client; nothing is asked yet. A rustls crypto provider must have been installed.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] when a key is missing or cannot stand in a header.
    pub fn new(config: &config::Source) -> Result<Self, SourceError> {
        let dialect = dialect(config);
        let keys = Keys::new(config.clone(), dialect.clone())?;
        Ok(Self {
            name: config.name.clone(),
            api: Api::new(config.name.clone(), config.base_url.clone(), keys)?,
            organization_id: config.organization_id.clone(),
            dialect,
        })
    }

    /// The same, asking only when this gate gives leave.
    #[must_use]
    pub fn behind(mut self, gate: Arc<dyn Gate>) -> Self {
        self.api = self.api.behind(gate);
        self
    }

    /// Whether calls of this platform can say that nothing of them may be stored.
    #[must_use]
    pub fn tells_opt_out(&self) -> bool {
        self.dialect.tells_opt_out()
    }

    /// Reads the files that its keys come from again. True when they hold others than before.
    pub async fn read_keys_again(&self) -> bool {
        self.api.read_keys_again().await
    }

    /// The first page of the list, asked for whatever is held: whether the platform answers and takes the key. What it
    /// answers is told to whoever shares the source.
    ///
    /// # Errors
    /// As [`Self::list_page`].
    pub async fn check(&self) -> Result<Page, SourceError> {
        self.page_of(None, Precedence::Check).await
    }

    /// What `--source` and records call it.
    #[must_use]
    pub const fn name(&self) -> &SourceName {
        &self.name
    }

    /// One page of the list: everything, completed or not, in the platform's order. `None` begins. A page whose answer
    /// is too long to take in is asked for again in halves.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn list_page(&self, cursor: Option<Cursor>) -> Result<Page, SourceError> {
        self.page_of(cursor, Precedence::First).await
    }

    async fn page_of(&self, cursor: Option<Cursor>, precedence: Precedence) -> Result<Page, SourceError> {
        let mut at = cursor.unwrap_or_else(|| self.dialect.first_page());
        let (path, body) = loop {
            let request = self.dialect.list(&at);
            match (self.ask_list(&request, &at, precedence).await, at.halved()) {
                (Err(SourceError::TooLarge { .. }), Some(shorter)) => at = shorter,
                (answer, _) => break (request.path, answer?.body),
            }
        };
        let mut page = self.dialect.read_page(&body, &at).map_err(|cause| self.unreadable(path, cause))?;
        page.calls =
            page.calls.into_iter().map(|call| self.checked(self.dialect.as_row(call))).collect::<Result<_, _>>()?;
        if !page.unreadable.is_empty() {
            let ids: Vec<&str> = page.unreadable.iter().filter_map(|row| row.id.as_deref()).collect();
            let (rows, ids) = (page.unreadable.len(), ids.join(", "));
            tracing::warn!(source = %self.name, rows, ids, "the list holds rows that cannot be read");
        }
        let unknown = page.calls.iter().filter(|call| call.status == CallStatus::Unknown).count();
        if unknown > 0 {
            metrics::counter!("aftercall_source_unknown_status_total", "source" => self.name.to_string())
                .increment(unknown as u64);
        }
        Ok(page)
    }

    async fn ask_list(&self, request: &Request, at: &Cursor, precedence: Precedence) -> Result<Answer, SourceError> {
        let no_such_path = || SourceError::NoSuchPath { source_name: self.name.clone(), path: request.path.clone() };
        match (self.api.ask(request, About::Account, precedence).await, self.dialect.list_otherwise(at)) {
            (Ok(Asked::NotFound) | Err(SourceError::Rejected { status: 405 | 501, .. }), Some(otherwise)) => {
                self.api.ask(&otherwise, About::Account, precedence).await?.found().ok_or_else(no_such_path)
            }
            (answer, _) => answer?.found().ok_or_else(no_such_path),
        }
    }

    /// A pass over the whole list, for the calls made or ended inside `window`.
    #[must_use]
    pub fn walk(&self, window: Window) -> Walk<'_> {
        Walk::new(self, window)
    }

    /// Whether lists obey a date filter, tried on calls that an unfiltered list shows: none of those before the date
    /// may come, and none of those after it may be missing. `None` where this platform has no such filter, or too few
    /// calls to tell.
    ///
    /// # Errors
    /// As [`Self::list_page`].
    pub async fn obeys_date_filter(&self) -> Result<Option<bool>, SourceError> {
        let shown = self.page_of(None, Precedence::Rest).await?;
        let mut made: Vec<_> = shown.calls.iter().filter_map(|call| call.created_at).collect();
        made.sort();
        let (Some(first), Some(middle)) = (made.first(), made.get(made.len() / 2)) else { return Ok(None) };
        let Some(cursor) = self.dialect.first_page_since(*middle).filter(|_| first < middle) else { return Ok(None) };
        let filtered = self.page_of(Some(cursor), Precedence::Rest).await?;
        let none_before = filtered.calls.iter().all(|call| call.created_at.is_some_and(|at| at >= *middle));
        let has = |id: &CallId| filtered.calls.iter().any(|call| call.id == *id);
        let mut after = shown.calls.iter().filter(|call| call.created_at.is_some_and(|at| at >= *middle));
        Ok(Some(!filtered.calls.is_empty() && none_before && after.all(|call| has(&call.id))))
    }

    /// All calls made or ended inside `window`, oldest first: the platform may delete them soonest.
    ///
    /// # Errors
    /// As [`Self::list_page`].
    pub async fn collect(&self, window: Window) -> Result<Vec<SourceCall>, SourceError> {
        let mut walk = self.walk(window);
        let mut found = HashMap::new();
        while let Some(rows) = walk.next().await? {
            // A call that comes again has got further.
            found.extend(rows.into_iter().map(|call| (call.id.clone(), call)));
        }
        let mut calls: Vec<SourceCall> = found.into_values().collect();
        calls.sort_by_key(|call| (call.created_at.or(call.answered_at).or(call.ended_at), call.id.clone()));
        Ok(calls)
    }

    /// One call as the platform tells it now; `None` when it does not know it (any more).
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn get(&self, id: &CallId) -> Result<Option<SourceCall>, SourceError> {
        let request = self.dialect.detail(id).map_err(|cause| self.unaskable(cause))?;
        let Asked::Found(answer) = self.api.ask(&request, About::Call, Precedence::First).await? else {
            return Ok(None);
        };
        match self.dialect.read_detail(&answer.body, id) {
            Ok(call) => Ok(Some(self.checked(SourceCall { etag: answer.etag, ..call })?)),
            Err(WireError::NotFound) => Ok(None),
            Err(cause) => Err(self.unreadable(request.path, cause)),
        }
    }

    /// The call, fresh and as whole as this platform can tell it: its detail over the list row, which is looked up
    /// where only the list tells what is needed. `None` when the call has vanished.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn call_for_processing(
        &self,
        id: &CallId,
        row: Option<SourceCall>,
    ) -> Result<Option<SourceCall>, SourceError> {
        let Some(detail) = self.get(id).await? else { return Ok(None) };
        let row = if self.dialect.needs_fresh_row(&detail, row.as_ref()) {
            self.list_row(&detail).await?.or(row)
        } else {
            row
        };
        Ok(Some(match row {
            Some(row) => self.dialect.join(detail, row),
            None => detail,
        }))
    }

    /// A link to the recording that is good right now; `None` when the platform has none.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn fresh_recording_url(&self, call: &SourceCall) -> Result<Option<RecordingLink>, SourceError> {
        if let Some(request) = self.dialect.recording(&call.id).map_err(|cause| self.unaskable(cause))? {
            match self.api.ask(&request, About::Call, Precedence::First).await {
                Ok(Asked::Found(answer)) => match self.dialect.read_recording(&answer.body) {
                    Ok(Some(link)) => return Ok(Some(link)),
                    Ok(None) | Err(WireError::NotFound) => {}
                    Err(cause) => return Err(self.unreadable(request.path, cause)),
                },
                // Not every generation of these APIs has the route: the call itself is asked instead.
                Ok(Asked::NotFound)
                | Err(SourceError::NotTheApi { status: 404, .. } | SourceError::Rejected { .. }) => {}
                Err(err) => return Err(err),
            }
        }
        let fresh = self.call_for_processing(&call.id, None).await?;
        Ok(fresh.and_then(|call| call.recording_url).map(|url| RecordingLink {
            url,
            expires_at: None,
            duration_ms: None,
            size_bytes: None,
        }))
    }

    /// Writes `outcome` into the platform's own record, under `metadata.aftercall`, which the platform merges.
    ///
    /// # Errors
    /// [`SourceError`]; [`SourceError::NoSuchPath`] when the platform does not know the call.
    pub async fn write_metadata(&self, id: &CallId, outcome: &Value, idempotency_key: &str) -> Result<(), SourceError> {
        let request = self.dialect.write_metadata(id, outcome).map_err(|cause| self.unaskable(cause))?;
        let request = request.ok_or_else(|| SourceError::NothingToWriteTo { source_name: self.name.clone() })?;
        let Asked::Found(answer) = self.api.write(&request, idempotency_key).await? else {
            return Err(SourceError::NoSuchPath { source_name: self.name.clone(), path: request.path });
        };
        self.dialect.read_written(&answer.body).map_err(|cause| self.unreadable(request.path, cause))
    }

    /// The list's row of a call, looked for where its time says, within bounds.
    async fn list_row(&self, call: &SourceCall) -> Result<Option<SourceCall>, SourceError> {
        let made = call.created_at.or(call.answered_at);
        let mut walk = self.walk(made.map_or(Window::ALWAYS, |at| Window { from: at, to: at })).urgent();
        while walk.pages() < LOOKUP_PAGES {
            let Some(rows) = walk.next_page().await? else { return Ok(None) };
            if let Some(row) = rows.into_iter().find(|row| row.id == call.id) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Refuses calls of another organisation than the one that was asked for, and fills in ours where none is told.
    fn checked(&self, mut call: SourceCall) -> Result<SourceCall, SourceError> {
        match (&call.org_id, &self.organization_id) {
            (Some(theirs), Some(ours)) if self.dialect.organization.is_some() && !theirs.eq_ignore_ascii_case(ours) => {
                Err(SourceError::WrongOrganization { source_name: self.name.clone() })
            }
            (None, Some(ours)) => {
                call.org_id = Some(ours.clone());
                Ok(call)
            }
            _ => Ok(call),
        }
    }

    fn unreadable(&self, path: String, cause: WireError) -> SourceError {
        SourceError::Unreadable { source_name: self.name.clone(), path, cause }
    }

    fn unaskable(&self, cause: WireError) -> SourceError {
        SourceError::Unaskable { source_name: self.name.clone(), cause }
    }
}

impl Asked {
    fn found(self) -> Option<Answer> {
        match self {
            Self::Found(answer) => Some(answer),
            Self::NotFound => None,
        }
    }
}

fn dialect(config: &config::Source) -> Dialect {
    let organization = config.organization_id.clone();
    Dialect {
        platform: match config.dialect {
            DialectName::Krosai => Platform::Krosai,
            DialectName::Zudu => Platform::Zudu,
            DialectName::Atoms => Platform::Atoms,
        },
        loss_unit: match config.packet_loss_unit {
            PacketLossUnit::Auto => LossUnit::Documented,
            PacketLossUnit::Percent => LossUnit::Percent,
            PacketLossUnit::Ratio => LossUnit::Ratio,
        },
        key_headers: match config.auth {
            AuthMode::Both => KeyHeaders::Both,
            AuthMode::XApiKey => KeyHeaders::XApiKey,
            AuthMode::Bearer => KeyHeaders::Bearer,
        },
        organization: match (config.dialect, config.organization_in) {
            (DialectName::Krosai, OrganizationPlacement::Header) => organization.map(Organization::Header),
            (DialectName::Krosai, OrganizationPlacement::Query) => organization.map(Organization::Query),
            _ => None,
        },
    }
}

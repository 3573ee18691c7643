//! The client of a platform's API: list calls, get a call, refresh a recording's URL, write metadata. `wire` contains
//! the differences between the platforms. This module contains what their answers mean for a job.

mod error;
mod http;
mod keys;
mod rate_limiter;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use self::http::{About, ApiAnswer, ApiClient, Reply};
use self::keys::AccountKeys;
use crate::config::{self, OrganizationPlacement};
use crate::domain::{CallId, CallStatus, SourceCall, SourceName};
use crate::wire::{Cursor, Dialect, Organization, Page, RecordingLink, Request, Vendor, Window, WireError};

pub use error::{REFUSED_PAUSE, SourceError};
pub use rate_limiter::{Answered, Permit, PermitDenied, Precedence, RateLimiter};
pub use walk::Walk;

/// Most pages of the search for one call's list row. The search is needed where only the list has all data.
const LOOKUP_PAGES: u64 = 50;

/// One configured platform account.
#[derive(Debug)]
pub struct Source {
    name: SourceName,
    dialect: Dialect,
    organization_id: Option<String>,
    api: ApiClient,
}

impl Source {
    /// Builds the client without a request. A rustls crypto provider must be installed.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] when a key is missing or is not valid in a header.
    pub fn new(config: &config::Source) -> Result<Self, SourceError> {
        let dialect = dialect(config);
        let keys = AccountKeys::new(config.clone(), dialect.clone())?;
        Ok(Self {
            name: config.name.clone(),
            api: ApiClient::new(config.name.clone(), config.base_url.clone(), keys)?,
            organization_id: config.organization_id.clone(),
            dialect,
        })
    }

    /// Sets the gate that every request must pass.
    #[must_use]
    pub fn behind(mut self, limiter: Arc<dyn RateLimiter>) -> Self {
        self.api = self.api.behind(limiter);
        self
    }

    /// True when calls of this platform can carry an opt-out of storage.
    #[must_use]
    pub fn tells_opt_out(&self) -> bool {
        self.dialect.tells_opt_out()
    }

    /// Reads the key files again. True when a key has changed.
    pub async fn read_keys_again(&self) -> bool {
        self.api.read_keys_again().await
    }

    /// Reads the first page of the list regardless of holds, to check that the platform answers and accepts the key.
    /// The result is reported to the shared gate.
    ///
    /// # Errors
    /// As [`Self::list_page`].
    pub async fn check(&self) -> Result<Page, SourceError> {
        self.page_of(None, Precedence::Check).await
    }

    /// The source's name in `--source` and in the records.
    #[must_use]
    pub const fn name(&self) -> &SourceName {
        &self.name
    }

    /// One page of the list in the platform's order, with calls of every status. `None` starts at the beginning. When
    /// an answer is too long, the page is requested again in halves.
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

    async fn ask_list(&self, request: &Request, at: &Cursor, precedence: Precedence) -> Result<ApiAnswer, SourceError> {
        let no_such_path = || SourceError::NoSuchPath { source_name: self.name.clone(), path: request.path.clone() };
        match (self.api.ask(request, About::Account, precedence).await, self.dialect.list_otherwise(at)) {
            (Ok(Reply::NotFound) | Err(SourceError::Rejected { status: 405 | 501, .. }), Some(otherwise)) => {
                self.api.ask(&otherwise, About::Account, precedence).await?.found().ok_or_else(no_such_path)
            }
            (answer, _) => answer?.found().ok_or_else(no_such_path),
        }
    }

    /// A pass over the whole list that returns the calls created or ended inside `window`.
    #[must_use]
    pub fn walk(&self, window: Window) -> Walk<'_> {
        Walk::new(self, window)
    }

    /// Checks that lists obey a date filter, on calls of an unfiltered list. Calls before the date must be missing, and
    /// calls after it must all be there. `None` where the platform has no such filter, or where there are too few
    /// calls.
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

    /// All calls created or ended inside `window`, oldest first, because the platform may delete the oldest first.
    ///
    /// # Errors
    /// As [`Self::list_page`].
    pub async fn collect(&self, window: Window) -> Result<Vec<SourceCall>, SourceError> {
        let mut walk = self.walk(window);
        let mut found = HashMap::new();
        while let Some(rows) = walk.next().await? {
            // A later row of a call has a later status.
            found.extend(rows.into_iter().map(|call| (call.id.clone(), call)));
        }
        let mut calls: Vec<SourceCall> = found.into_values().collect();
        calls.sort_by_key(|call| (call.created_at.or(call.answered_at).or(call.ended_at), call.id.clone()));
        Ok(calls)
    }

    /// The platform's current data of one call. `None` when the platform does not know the call (any more).
    pub async fn get(&self, id: &CallId) -> Result<Option<SourceCall>, SourceError> {
        let request = self.dialect.detail(id).map_err(|cause| self.unaskable(cause))?;
        let Reply::Found(answer) = self.api.ask(&request, About::Call, Precedence::First).await? else {
            return Ok(None);
        };
        match self.dialect.read_detail(&answer.body, id) {
            Ok(call) => Ok(Some(self.checked(SourceCall { etag: answer.etag, ..call })?)),
            Err(WireError::NotFound) => Ok(None),
            Err(cause) => Err(self.unreadable(request.path, cause)),
        }
    }

    /// The call with all data that the platform has now: its detail merged over its list row. The row is searched where
    /// only the list has all data. `None` when the call has vanished.
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

    /// A link to the recording that is valid now. `None` when the platform has none.
    pub async fn fresh_recording_url(&self, call: &SourceCall) -> Result<Option<RecordingLink>, SourceError> {
        if let Some(request) = self.dialect.recording(&call.id).map_err(|cause| self.unaskable(cause))? {
            match self.api.ask(&request, About::Call, Precedence::First).await {
                Ok(Reply::Found(answer)) => match self.dialect.read_recording(&answer.body) {
                    Ok(Some(link)) => return Ok(Some(link)),
                    Ok(None) | Err(WireError::NotFound) => {}
                    Err(cause) => return Err(self.unreadable(request.path, cause)),
                },
                // Some versions of these APIs do not have this route. The link is then taken from the call itself.
                Ok(Reply::NotFound)
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

    /// Delivers `outcome` to the platform's own record, under `metadata.aftercall`. The platform merges it.
    ///
    /// # Errors
    /// [`SourceError`]; [`SourceError::NoSuchPath`] when the platform does not know the call.
    pub async fn write_metadata(&self, id: &CallId, outcome: &Value, idempotency_key: &str) -> Result<(), SourceError> {
        let request = self.dialect.write_metadata(id, outcome).map_err(|cause| self.unaskable(cause))?;
        let request = request.ok_or_else(|| SourceError::NothingToWriteTo { source_name: self.name.clone() })?;
        let Reply::Found(answer) = self.api.write(&request, idempotency_key).await? else {
            return Err(SourceError::NoSuchPath { source_name: self.name.clone(), path: request.path });
        };
        self.dialect.read_written(&answer.body).map_err(|cause| self.unreadable(request.path, cause))
    }

    /// Searches the list row of a call around the call's time, within a page limit.
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

    /// Refuses calls of another organisation than the configured one. Sets the configured one where the call names
    /// none.
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

impl Reply {
    fn found(self) -> Option<ApiAnswer> {
        match self {
            Self::Found(answer) => Some(answer),
            Self::NotFound => None,
        }
    }
}

fn dialect(config: &config::Source) -> Dialect {
    let organization = config.organization_id.clone();
    Dialect {
        platform: config.dialect,
        loss_unit: config.packet_loss_unit,
        key_headers: config.auth,
        organization: match (config.dialect, config.organization_in) {
            (Vendor::Krosai, OrganizationPlacement::Header) => organization.map(Organization::Header),
            (Vendor::Krosai, OrganizationPlacement::Query) => organization.map(Organization::Query),
            _ => None,
        },
    }
}

//! Who asks: the key, what it may do, and which calls exist for it.

use std::sync::{Arc, OnceLock};

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use super::problem::Problem;
use crate::app::App;
use crate::domain::RetentionState;
use crate::store::{ApiKey, AuditEntry, CallRecord, Scope};

/// The organisation a request is about, as the platform's own API has it.
pub(super) const ORGANIZATION: &str = "x-organization-id";

/// Where a request's log line learns which key it came with: by the key's id, never the key.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyUsed(Arc<OnceLock<String>>);

impl KeyUsed {
    /// The id of a live key; none where there was none.
    pub(super) fn id(&self) -> &str {
        self.0.get().map_or("-", String::as_str)
    }
}

/// The holder of a live key. Taking it as an argument is what makes a route want one.
#[derive(Debug)]
pub(super) struct Caller {
    key: ApiKey,
    /// The organisation named in the request.
    organization: Option<String>,
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Arc<App>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let app = Arc::<App>::from_ref(state);
        let secret = secret(&parts.headers).ok_or_else(Problem::unauthorized)?;
        let key = app.store.key_by_secret(secret).await?.ok_or_else(Problem::unauthorized)?;
        if let Some(used) = parts.extensions.get::<KeyUsed>() {
            used.0.get_or_init(|| key.id.clone());
        }
        let organization = match parts.headers.get(ORGANIZATION).map(|value| value.to_str().map(str::trim)) {
            Some(Err(_)) => return Err(Problem::parameter(ORGANIZATION, "printable ASCII")),
            Some(Ok("")) | None => None,
            Some(Ok(named)) => Some(named.to_owned()),
        };
        Ok(Self { key, organization })
    }
}

fn secret(headers: &HeaderMap) -> Option<&str> {
    let of_header = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let bearer = || {
        let (scheme, secret) = of_header(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret)
    };
    of_header("x-api-key").or_else(bearer).map(str::trim).filter(|secret| !secret.is_empty())
}

impl Caller {
    /// # Errors
    /// `forbidden`, naming the scope.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) { Ok(()) } else { Err(Problem::forbidden(scope)) }
    }

    /// The key's own name in the audit trail.
    pub(super) fn key_id(&self) -> &str {
        &self.key.id
    }

    pub(super) fn may(&self, scope: Scope) -> bool {
        self.key.may(scope)
    }

    /// Whether the request names an organisation.
    pub(super) const fn names_organization(&self) -> bool {
        self.organization.is_some()
    }

    /// The organisations every call it sees belongs to: the key's, and the one the request names.
    pub(super) fn organizations(&self) -> [Option<String>; 2] {
        [self.key.org_id.clone(), self.organization.clone()]
    }

    /// Past its term a call is seen, until it is erased, by those who answer for holds alone.
    pub(super) fn sees_past_term(&self) -> bool {
        self.may(Scope::HoldsWrite)
    }

    /// Whether the call exists for this caller.
    pub(super) fn sees(&self, record: &CallRecord, now: Timestamp) -> bool {
        let kept = record.retention_state == RetentionState::Active;
        kept && self.reaches(record.org_id.as_deref()) && (record.retain_until > now || self.sees_past_term())
    }

    /// Whether calls of this organisation are within its reach.
    pub(super) fn reaches(&self, org_id: Option<&str>) -> bool {
        self.organizations().iter().flatten().all(|wanted| org_id == Some(wanted))
    }

    /// Writes down that this caller reads the text of these calls, before it gets to see it.
    ///
    /// # Errors
    /// The store's; then nothing may be shown.
    pub(super) async fn reads_text(&self, app: &App, calls: &[&CallRecord]) -> Result<(), Problem> {
        if calls.is_empty() {
            return Ok(());
        }
        let mut tx = app.store.begin().await?;
        for call in calls {
            let entry = AuditEntry {
                at: app.now(),
                actor: self.key.id.clone(),
                action: "transcript_read".to_owned(),
                subject: call.uid.to_string(),
                detail: format!("version {}", call.transcript_version),
            };
            app.store.audit(&mut tx, &entry).await?;
        }
        Ok(tx.commit().await?)
    }
}

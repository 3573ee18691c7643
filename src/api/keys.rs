//! Authentication and authorisation: the API key, its scopes, and the calls that the caller may see.

use std::sync::{Arc, OnceLock};

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use super::problem::Problem;
use crate::app::App;
use crate::domain::RetentionState;
use crate::store::{ApiKey, AuditEntry, CallRecord, Scope};

/// Header that limits a request to one organisation. The platform's own API uses the same name.
pub(super) const ORGANIZATION: &str = "x-organization-id";

/// The key id for the log line of a request. The secret is never logged.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyUsed(Arc<OnceLock<String>>);

impl KeyUsed {
    /// The id of a valid key, or `-` where the request had none.
    pub(super) fn id(&self) -> &str {
        self.0.get().map_or("-", String::as_str)
    }
}

/// The caller with a valid key. A route with this argument requires a key.
#[derive(Debug)]
pub(super) struct Caller {
    key: ApiKey,
    /// The organisation of the request header.
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

    /// The key's id, as the audit trail records it.
    pub(super) fn key_id(&self) -> &str {
        &self.key.id
    }

    pub(super) fn may(&self, scope: Scope) -> bool {
        self.key.may(scope)
    }

    /// True when the request names an organisation.
    pub(super) const fn names_organization(&self) -> bool {
        self.organization.is_some()
    }

    /// Organisation filters: the key's organisation and the one of the request header. A call must match both.
    pub(super) fn organizations(&self) -> [Option<String>; 2] {
        [self.key.org_id.clone(), self.organization.clone()]
    }

    /// A call past its retention term stays visible until it is erased, but only to callers with the scope
    /// `holds:write`.
    pub(super) fn sees_past_term(&self) -> bool {
        self.may(Scope::HoldsWrite)
    }

    /// True when this caller may see the call.
    pub(super) fn sees(&self, record: &CallRecord, now: Timestamp) -> bool {
        let kept = record.retention_state == RetentionState::Active;
        kept && self.reaches(record.org_id.as_deref()) && (record.retain_until > now || self.sees_past_term())
    }

    /// True when the caller may see calls of this organisation.
    pub(super) fn reaches(&self, org_id: Option<&str>) -> bool {
        self.organizations().iter().flatten().all(|wanted| org_id == Some(wanted))
    }

    /// Writes an audit entry for each call before its text is shown to the caller.
    ///
    /// # Errors
    /// The store's errors. Then the text must not be shown.
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

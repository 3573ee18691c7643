//! The platforms' dialects: their JSON, units, paging and headers, converted to and from the types of `domain`.
//!
//! Everything here is a pure function: it describes a [`Request`], reads bytes, or renders values. `source` uses it as
//! a client; the sample platform and our own API use it as servers. Units are converted only here.

pub mod atoms;
mod error;
mod fields;
pub mod krosai;
mod page;
mod record;
pub mod retry;
mod scan;
mod status;
pub mod text;
mod time;
mod zudu;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

pub use crate::domain::{KeyHeaders, LossUnit, Vendor};
pub use error::WireError;
pub use page::{Cursor, Page, UnreadableRow, Window};

use crate::domain::address::percent_encoded;
use crate::domain::{CallId, RecordingUrl, SourceCall};

/// The organisation of every request. KrosAI uses the user's first one when a request names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Organization {
    Header(String),
    Query(String),
}

/// Credentials of an account.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub key: SecretString,
    /// The second key of Zudu.
    pub secret: Option<SecretString>,
}

/// The dialect of one platform account.
#[derive(Debug, Clone)]
pub struct Dialect {
    pub platform: Vendor,
    pub loss_unit: LossUnit,
    pub key_headers: KeyHeaders,
    pub organization: Option<Organization>,
}

/// The HTTP methods of the dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
}

/// A request to the platform's API, relative to its base URL.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub method: Method,
    /// Starts with `/`. Ids in it are percent-encoded.
    pub path: String,
    pub query: Vec<(&'static str, String)>,
    pub body: Option<Value>,
}

impl Request {
    fn get(path: impl Into<String>) -> Self {
        Self { method: Method::Get, path: path.into(), query: Vec::new(), body: None }
    }
}

/// A valid link to a recording, with the platform's data about it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordingLink {
    pub url: RecordingUrl,
    pub expires_at: Option<Timestamp>,
    pub duration_ms: Option<u64>,
    pub size_bytes: Option<u64>,
}

impl Dialect {
    /// The first page of the unfiltered list. The documents disagree on filter values, and a filter with a wrong
    /// spelling would hide calls forever. So no filter is sent.
    #[must_use]
    pub const fn first_page(&self) -> Cursor {
        Cursor::first(match self.platform {
            Vendor::Krosai | Vendor::Atoms => 100,
            // Rows contain whole transcripts with words here.
            Vendor::Zudu => 64,
        })
    }

    /// The first page of calls created at this moment or later. `None` where the platform has no such filter. Use it
    /// only for a server that was seen to obey the filter.
    #[must_use]
    pub fn first_page_since(&self, since: Timestamp) -> Option<Cursor> {
        (self.platform == Vendor::Krosai).then(|| self.first_page().since(since))
    }

    /// The request for a page of calls.
    #[must_use]
    pub fn list(&self, at: &Cursor) -> Request {
        let request = match self.platform {
            Vendor::Krosai => krosai::list(at),
            Vendor::Zudu => zudu::list(at),
            Vendor::Atoms => atoms::list(at),
        };
        self.with_organization(request)
    }

    /// The same request with another method, for a server that does not support the first.
    #[must_use]
    pub fn list_otherwise(&self, at: &Cursor) -> Option<Request> {
        (self.platform == Vendor::Zudu).then(|| zudu::list_by_get(at))
    }

    /// The request for one call.
    ///
    /// # Errors
    /// [`WireError::UnusableId`].
    pub fn detail(&self, id: &CallId) -> Result<Request, WireError> {
        let id = path_step(id)?;
        Ok(self.with_organization(Request::get(match self.platform {
            Vendor::Krosai => format!("/calls/{id}"),
            Vendor::Zudu => format!("/api/calls/{id}"),
            Vendor::Atoms => format!("/conversation/{id}"),
        })))
    }

    /// The request for a fresh link to a recording, where the platform has one.
    ///
    /// # Errors
    /// [`WireError::UnusableId`].
    pub fn recording(&self, id: &CallId) -> Result<Option<Request>, WireError> {
        let id = path_step(id)?;
        let path = match self.platform {
            Vendor::Krosai => format!("/calls/{id}/recording"),
            Vendor::Zudu => return Ok(None),
            Vendor::Atoms => format!("/conversation/{id}/recording/download-url"),
        };
        Ok(Some(self.with_organization(Request::get(path))))
    }

    /// The request that delivers an outcome to the platform's own record, under `metadata.aftercall`. `None` for all
    /// platforms except Zudu.
    ///
    /// # Errors
    /// [`WireError::UnusableId`].
    pub fn write_metadata(&self, id: &CallId, outcome: &Value) -> Result<Option<Request>, WireError> {
        let id = path_step(id)?;
        Ok((self.platform == Vendor::Zudu).then(|| zudu::write_metadata(&id, outcome)))
    }

    /// Names and values of the headers with the account's keys. They must be sent to the API host only.
    #[must_use]
    pub fn headers(&self, credentials: &Credentials) -> Vec<(&'static str, SecretString)> {
        let key = || credentials.key.clone();
        let bearer = || SecretString::from(format!("Bearer {}", credentials.key.expose_secret()));
        let mut headers = match (self.platform, self.key_headers) {
            (Vendor::Krosai, KeyHeaders::Both) => vec![("x-api-key", key()), ("authorization", bearer())],
            (Vendor::Krosai, KeyHeaders::XApiKey) | (Vendor::Zudu, _) => vec![("x-api-key", key())],
            (Vendor::Atoms, _) | (Vendor::Krosai, KeyHeaders::Bearer) => vec![("authorization", bearer())],
        };
        if let (Vendor::Zudu, Some(secret)) = (self.platform, &credentials.secret) {
            headers.push(("x-api-secret", secret.clone()));
        }
        if let (Vendor::Krosai, Some(Organization::Header(id))) = (self.platform, &self.organization) {
            headers.push(("x-organization-id", SecretString::from(id.clone())));
        }
        headers
    }

    /// Reads a page of calls.
    ///
    /// # Errors
    /// [`WireError`] when the body is not a list of this platform.
    pub fn read_page(&self, body: &[u8], at: &Cursor) -> Result<Page, WireError> {
        match self.platform {
            Vendor::Krosai => krosai::read_page(body, at, self.loss_unit).map(|(_, page)| page),
            Vendor::Zudu => zudu::read_page(body, at),
            Vendor::Atoms => atoms::read_page(body, at),
        }
    }

    /// Reads one call.
    ///
    /// # Errors
    /// [`WireError`] when the body is not a call, or is another call than `asked`.
    pub fn read_detail(&self, body: &[u8], asked: &CallId) -> Result<SourceCall, WireError> {
        match self.platform {
            Vendor::Krosai => krosai::read_detail(body, asked, self.loss_unit),
            Vendor::Zudu => zudu::read_detail(body, asked),
            Vendor::Atoms => atoms::read_detail(body, asked),
        }
    }

    /// Reads the answer to [`Self::recording`]. `None` where there is no recording.
    ///
    /// # Errors
    /// [`WireError`] when the body has another shape.
    pub fn read_recording(&self, body: &[u8]) -> Result<Option<RecordingLink>, WireError> {
        match self.platform {
            Vendor::Krosai => krosai::read_recording(body),
            Vendor::Zudu => Ok(None),
            Vendor::Atoms => atoms::read_recording(body),
        }
    }

    /// Reads the answer to [`Self::write_metadata`].
    ///
    /// # Errors
    /// [`WireError`] when the answer reports a failure.
    pub fn read_written(&self, body: &[u8]) -> Result<(), WireError> {
        zudu::read_written(body)
    }

    /// Merges a detail over its list row. A value missing in the detail keeps the row's value.
    #[must_use]
    pub fn join(&self, detail: SourceCall, row: SourceCall) -> SourceCall {
        record::joined(detail, self.as_row(row))
    }

    /// A row in the form that may be stored. KrosAI's lists show an excerpt of the transcript, which must never count
    /// as the whole, so it is removed.
    #[must_use]
    pub fn as_row(&self, mut row: SourceCall) -> SourceCall {
        if self.platform == Vendor::Krosai {
            row.turns.clear();
        }
        row
    }

    /// True when rows are normally sorted newest first, so that a pass may stop once the rows are old enough. Atoms
    /// lists by last change.
    #[must_use]
    pub fn lists_by_creation(&self) -> bool {
        self.platform != Vendor::Atoms
    }

    /// True when only the list has the missing data. Zudu's detail leaves out the recording, the transcript and
    /// possibly the opt-out of storage. The known row may be older than the recording.
    #[must_use]
    pub fn needs_fresh_row(&self, detail: &SourceCall, row: Option<&SourceCall>) -> bool {
        if self.platform != Vendor::Zudu || !detail.eligible() {
            return false;
        }
        match row {
            Some(row) => !row.opt_out && detail.recording_url.is_none() && row.recording_url.is_none(),
            None => detail.recording_url.is_none() || zudu::storage_wish(&detail.raw).is_none(),
        }
    }

    /// True when calls of this platform can carry an opt-out of storage.
    #[must_use]
    pub fn tells_opt_out(&self) -> bool {
        self.platform == Vendor::Zudu
    }

    fn with_organization(&self, mut request: Request) -> Request {
        if let (Vendor::Krosai, Some(Organization::Query(id))) = (self.platform, &self.organization) {
            request.query.push(("organization_id", id.clone()));
        }
        request
    }
}

/// An id as one path segment. Everything except unreserved characters is percent-encoded (RFC 3986 section 2.3).
fn path_step(id: &CallId) -> Result<String, WireError> {
    let text = id.as_str();
    if matches!(text, "." | "..") {
        return Err(WireError::UnusableId);
    }
    Ok(percent_encoded(text).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(platform: Vendor) -> Dialect {
        Dialect { platform, loss_unit: LossUnit::Documented, key_headers: KeyHeaders::Both, organization: None }
    }

    fn shown(dialect: &Dialect) -> Vec<(&'static str, String)> {
        let credentials = Credentials { key: "k".into(), secret: Some("s".into()) };
        dialect
            .headers(&credentials)
            .into_iter()
            .map(|(name, value)| (name, value.expose_secret().to_owned()))
            .collect()
    }

    #[test]
    fn an_id_never_leaves_its_step_of_the_path() {
        let krosai = dialect(Vendor::Krosai);
        let path = |id: &str| krosai.detail(&CallId::parse(id).unwrap()).map(|request| request.path);
        assert_eq!(path("../../etc/passwd").unwrap(), "/calls/..%2F..%2Fetc%2Fpasswd");
        assert_eq!(path("a?b#c%2f é").unwrap(), "/calls/a%3Fb%23c%252f%20%C3%A9");
        assert_eq!(path(".."), Err(WireError::UnusableId));
        assert_eq!(path("."), Err(WireError::UnusableId));
    }

    #[test]
    fn each_platform_gets_its_own_key_headers() {
        let mut krosai = dialect(Vendor::Krosai);
        krosai.organization = Some(Organization::Header("org-1".to_owned()));
        let both = [
            ("x-api-key", "k".to_owned()),
            ("authorization", "Bearer k".to_owned()),
            ("x-organization-id", "org-1".to_owned()),
        ];
        assert_eq!(shown(&krosai), both);
        krosai.organization = Some(Organization::Query("org-1".to_owned()));
        krosai.key_headers = KeyHeaders::XApiKey;
        assert_eq!(shown(&krosai), both[..1]);
        assert!(krosai.list(&krosai.first_page()).query.contains(&("organization_id", "org-1".to_owned())));
        let zudu = [("x-api-key", "k".to_owned()), ("x-api-secret", "s".to_owned())];
        assert_eq!(shown(&dialect(Vendor::Zudu)), zudu);
        assert_eq!(shown(&dialect(Vendor::Atoms)), both[1..2]);
    }

    #[test]
    fn only_zudu_has_a_record_to_write_to() {
        let id = CallId::parse("call-1").unwrap();
        let outcome = serde_json::json!({"status": "done"});
        let request = dialect(Vendor::Zudu).write_metadata(&id, &outcome).unwrap().unwrap();
        assert_eq!((request.method, request.path.as_str()), (Method::Put, "/api/calls/call-1"));
        assert_eq!(request.body.unwrap()["metadata"]["aftercall"], outcome);
        for platform in [Vendor::Krosai, Vendor::Atoms] {
            assert_eq!(dialect(platform).write_metadata(&id, &outcome), Ok(None));
        }
    }
}

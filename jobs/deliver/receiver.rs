//! The receiver's record of one call. It is read first, written under a condition where possible, and not written again
//! with the same content.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, ETAG, HeaderMap, HeaderValue, IF_MATCH, LOCATION};
use reqwest::{Method, Response, Url};
use serde_json::Value;

use crate::app::App;
use crate::config::{HttpDelivery, RequestError};
use crate::domain::{Fault, Side, Stage};
use crate::jobs::{At, Stop, Trouble};
use crate::wire::retry::{PauseHeaders, pause};

/// Re-reads after a 412 or 409 within one attempt. With more contention, the next attempt continues.
const RE_READS: usize = 3;
/// Redirects followed for one request.
const MOST_REDIRECTS: usize = 3;
/// Longest accepted response body, in bytes.
const LONGEST_ANSWER: usize = 8 << 20;

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteResult {
    /// The record already has this content from an earlier try.
    Already,
    /// Written as configured: with a condition, or without one if none is configured or the record did not exist.
    AsOrdered,
    /// Written without the configured condition, because the record has no tag or a weak one. A weak tag never matches
    /// in `If-Match` (RFC 9110 section 13.1.1).
    Unconditionally,
}

/// Address and method of a write.
pub(super) struct Receiver<'a> {
    client: &'a reqwest::Client,
    settings: &'a HttpDelivery,
    method: Method,
    url: Url,
    headers: HeaderMap,
}

/// The receiver's record, and the condition for writing it.
struct RemoteRecord {
    condition: Condition,
    record: Value,
}

enum Condition {
    /// No condition is configured, or the record does not exist.
    None,
    /// The record must still have this tag.
    Matches(HeaderValue),
    /// A condition is configured, but the record has no strong tag.
    Unnamed,
}

impl<'a> Receiver<'a> {
    pub(super) fn of(app: &'a App, settings: &'a HttpDelivery, document: &Value) -> Result<Self, RequestError> {
        Ok(Self {
            client: &app.receivers,
            settings,
            method: settings.method()?,
            url: settings.url(document)?,
            headers: settings.headers(document)?,
        })
    }

    /// Writes the document into the receiver's record.
    pub(super) async fn bring(&self, document: &Value, idempotency_key: &str) -> Result<WriteResult, Stop> {
        for _ in 0..RE_READS {
            let remote = self.look().await?;
            let body = self.settings.body(document, &remote.record, &self.headers).at(Stage::Deliver)?;
            // An earlier try may have written this without an answer, and the receiver may ignore idempotency keys.
            if self.method != Method::DELETE && body.json.as_ref().is_some_and(|ours| says_all(&remote.record, ours)) {
                return Ok(WriteResult::Already);
            }
            let mut headers = self.headers_of_a_request();
            if let Ok(key) = HeaderValue::from_str(idempotency_key) {
                headers.insert("idempotency-key", key);
            }
            if let Condition::Matches(tag) = &remote.condition {
                headers.insert(IF_MATCH, tag.clone());
            }
            let answer = self.ask(&self.method, &headers, Some(&body.text)).await?;
            match answer.status().as_u16() {
                status @ 200..=299 => {
                    self.believe(status, answer).await?;
                    return Ok(match remote.condition {
                        Condition::Unnamed => WriteResult::Unconditionally,
                        Condition::None | Condition::Matches(_) => WriteResult::AsOrdered,
                    });
                }
                // Another writer changed the record after the read. The next loop reads it again and writes onto the
                // new version. Some receivers answer 409 instead of 412.
                412 => {}
                409 if self.settings.if_match => {}
                status => return Err(self.refused(status, answer).await),
            }
        }
        Err(self.trouble(Fault::Transient, "its record changed during every attempt"))
    }

    async fn look(&self) -> Result<RemoteRecord, Stop> {
        if !self.settings.if_match {
            return Ok(RemoteRecord { condition: Condition::None, record: Value::Null });
        }
        let answer = self.ask(&Method::GET, &self.headers_of_a_request(), None).await?;
        match answer.status().as_u16() {
            200..=299 => {
                let tag = answer.headers().get(ETAG).cloned();
                let record = serde_json::from_slice(&self.body(answer).await?);
                let condition = match tag.filter(|tag| !tag.as_bytes().starts_with(b"W/")) {
                    Some(tag) => Condition::Matches(tag),
                    // A page in place of the record, such as a proxy's or a login page, does not permit an
                    // unconditional write.
                    None if record.is_err() => return Err(self.trouble(Fault::Transient, "shows no record")),
                    None => Condition::Unnamed,
                };
                Ok(RemoteRecord { condition, record: record.unwrap_or_default() })
            }
            404 => Ok(RemoteRecord { condition: Condition::None, record: Value::Null }),
            status => Err(self.refused(status, answer).await),
        }
    }

    /// Requests no content coding, because compression in transit makes the tag weak.
    fn headers_of_a_request(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers
    }

    /// Sends a request. Follows a 307 or 308 within the same origin, with method and body. The headers may hold a key
    /// and are not sent to another origin.
    async fn ask(&self, method: &Method, headers: &HeaderMap, body: Option<&str>) -> Result<Response, Stop> {
        let mut url = self.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.client.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(body) = body {
                request = request.body(body.to_owned());
            }
            let answer = request.send().await.map_err(|err| self.unreachable(err))?;
            let status = answer.status().as_u16();
            if !matches!(status, 307 | 308) {
                return Ok(answer);
            }
            let named = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
            match named {
                Some(to) if to.origin() == url.origin() => url = to,
                Some(_) => {
                    let what =
                        format!("redirects ({status}) to another host, which is not followed; set the url to it");
                    return Err(self.trouble(Fault::Permanent, &what));
                }
                None => return Err(self.trouble(Fault::Permanent, &format!("redirects ({status}) without a location"))),
            }
        }
        Err(self.trouble(Fault::Permanent, &format!("redirects more than {MOST_REDIRECTS} times")))
    }

    /// Accepts a success status, unless `failed_if` matches the response.
    async fn believe(&self, status: u16, answer: Response) -> Result<(), Stop> {
        if self.settings.failed_if.is_none() {
            return Ok(());
        }
        let answer = serde_json::from_slice(&self.body(answer).await?).unwrap_or_default();
        if self.settings.fails(status, &answer).at(Stage::Deliver)? {
            return Err(
                self.trouble(Fault::Transient, &format!("answers {status}, a failure by source.http.failed_if"))
            );
        }
        Ok(())
    }

    async fn body(&self, mut answer: Response) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::new();
        while let Some(block) = answer.chunk().await.map_err(|err| self.unreachable(err))? {
            if body.len() + block.len() > LONGEST_ANSWER {
                let what = format!("answers with more than {LONGEST_ANSWER} bytes");
                return Err(self.trouble(Fault::Permanent, &what));
            }
            body.extend_from_slice(&block);
        }
        Ok(body)
    }

    fn unreachable(&self, err: reqwest::Error) -> Stop {
        self.trouble(Fault::Transient, &why(err))
    }

    async fn refused(&self, status: u16, answer: Response) -> Stop {
        if matches!(status, 401 | 403) {
            // The key has expired or was changed. An operator must replace it; then all deliveries continue.
            let what = format!("answers {status}, its deliveries wait; check source.http.headers");
            return self.stop(Fault::Transient, &what, Stop::Barred);
        }
        let headers = answer.headers().clone();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let body = self.body(answer).await.unwrap_or_default();
        let asked = pause(PauseHeaders::of(text), &body);
        let fault = match status {
            429 => Fault::Throttled { retry_after: asked.unwrap_or(Duration::from_secs(30)) },
            408 | 425 | 500..=599 => asked.map_or(Fault::Transient, |retry_after| Fault::Throttled { retry_after }),
            _ => Fault::Permanent,
        };
        self.trouble(fault, &format!("answers {status}"))
    }

    fn trouble(&self, fault: Fault, what: &str) -> Stop {
        self.stop(fault, what, Stop::Trouble)
    }

    /// The cause names only the host. Path and query may hold a phone number or a key.
    fn stop(&self, fault: Fault, what: &str, made: fn(Trouble) -> Stop) -> Stop {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let cause = format!("receiver {host}{port}: {what}");
        made(Trouble { stage: Some(Stage::Deliver), fault, side: Side::Receiver, cause })
    }
}

/// The innermost cause of a missing response.
fn why(err: reqwest::Error) -> String {
    if err.is_timeout() {
        return if err.is_connect() { "timeout, no connection".to_owned() } else { "timeout, no answer".to_owned() };
    }
    let err = err.without_url();
    let mut cause: &dyn Error = &err;
    while let Some(inner) = cause.source() {
        cause = inner;
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.raw_os_error().is_some()
        {
            return io.kind().to_string();
        }
    }
    cause.to_string()
}

/// Whether the record already has everything that writing this object would change.
fn says_all(record: &Value, ours: &Value) -> bool {
    let members = ours.as_object();
    members.is_some_and(|members| members.values().any(|value| !value.is_null())) && holds(record, ours)
}

fn holds(record: &Value, ours: &Value) -> bool {
    match (record, ours) {
        (Value::Object(record), Value::Object(ours)) => {
            // A missing member and a null member are equal (RFC 7396).
            ours.iter().all(|(key, ours)| holds(record.get(key).unwrap_or(&Value::Null), ours))
        }
        (Value::Number(theirs), Value::Number(ours)) => theirs == ours || theirs.as_f64() == ours.as_f64(),
        (theirs, ours) => theirs == ours,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_says_all_when_nothing_of_ours_is_missing_or_different() {
        let record = json!({ "a": 1, "b": { "c": "x", "more": true }, "list": [1, 2], "theirs": 7, "null": null });
        for same in [
            json!({ "a": 1 }),
            json!({ "a": 1.0 }),
            json!({ "b": { "c": "x" }, "list": [1, 2] }),
            json!({ "a": 1, "absent": null }),
        ] {
            assert!(says_all(&record, &same), "{same}");
        }
        for other in [
            json!({ "a": 2 }),
            json!({ "a": "1" }),
            json!({ "a": null }),
            json!({ "a": 1, "d": 0 }),
            json!({ "b": { "c": "y" } }),
            json!({ "b": { "d": {} } }),
            json!({ "list": [1] }),
            json!({ "list": [1, 2, 3] }),
            // These objects write nothing, so that an earlier write cannot be detected.
            json!({}),
            json!({ "absent": null }),
            json!([1, 2]),
            json!("a"),
        ] {
            assert!(!says_all(&record, &other), "{other}");
        }
        assert!(!says_all(&Value::Null, &json!({ "a": 1 })));
    }
}

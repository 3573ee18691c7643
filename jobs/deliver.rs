//! An outbox row to its receiver: the platform's own metadata, or a request the operator described. The same
//! idempotency key on every try makes a lost answer harmless; `If-Match` keeps us from overwriting somebody's change,
//! and reading first shows a receiver without such keys to hold what an unanswered try wrote.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::{At, Job, Stop, Trouble};
use crate::app::App;
use crate::config::{HttpWriteBack, RequestError};
use crate::domain::{CallUid, Fault, RetentionState, Side, Stage};
use crate::queue;
use crate::queue::Lane;
use crate::store::{CallRecord, OutboxRow, Tx};
use crate::wire::retry::{PauseHeaders, pause};

/// Re-reads after a 412 within one attempt; more contention than this waits for the next attempt.
const RE_READS: usize = 3;

/// Owes a receiver a version of a call's transcript, in the caller's transaction.
pub(super) async fn owe(
    app: &App,
    tx: &mut Tx,
    target: &'static str,
    (call, version): (CallUid, u32),
    lane: Lane,
) -> Result<(), Stop> {
    let delivery = app.store.owe_delivery(tx, call, target, version, app.now()).await.at(Stage::Writeback)?;
    let job = Job::Deliver { delivery, call };
    app.queue.enqueue(tx, job.queued(app, lane)).await.at(Stage::Writeback).map(drop)
}

pub(super) async fn run(app: &App, job: &queue::Job, id: &str) -> Result<&'static str, Stop> {
    let ended = match owed(app, id).await? {
        None => "nothing_to_do",
        Some((row, record)) => {
            send(app, &row, &record).await?;
            "delivered"
        }
    };
    let mut tx = app.store.begin().await.at(Stage::Deliver)?;
    if !app.queue.complete(&mut tx, job).await.at(Stage::Deliver)? {
        return Err(Stop::Fenced);
    }
    app.store.delivered(&mut tx, id, app.now()).await.at(Stage::Deliver)?;
    tx.commit().await.at(Stage::Deliver)?;
    Ok(ended)
}

/// The row and its call, unless it was delivered, replaced by a newer version, or scrubbed.
async fn owed(app: &App, id: &str) -> Result<Option<(OutboxRow, CallRecord)>, Stop> {
    let Some(row) = app.store.delivery(id).await.at(Stage::Deliver)? else { return Ok(None) };
    let Some(record) = app.store.call(row.call_uid).await.at(Stage::Deliver)? else { return Ok(None) };
    let stale = row.delivered || row.version < record.transcript_version;
    Ok((!stale && record.retention_state == RetentionState::Active).then_some((row, record)))
}

async fn send(app: &App, row: &OutboxRow, record: &CallRecord) -> Result<(), Stop> {
    let Some(platform) = app.platform(&record.source) else {
        return Err(misconfigured(format!("source `{}` is not in the configuration", record.source)));
    };
    if row.target == "metadata" {
        let outcome = platform_metadata(record);
        return platform.source.write_metadata(&record.call_id, &outcome, &row.id).await.at(Stage::Deliver);
    }
    let Some(settings) = &platform.settings.http else {
        return Err(misconfigured(format!("source `{}` has no [source.http] table any more", record.source)));
    };
    let document = document(app, row, record).await?;
    let receiver = Receiver::of(app, settings, &document).at(Stage::Deliver)?;
    receiver.bring(&document, &row.id).await
}

/// What goes into a platform's metadata: a pointer and figures, never the words.
fn platform_metadata(record: &CallRecord) -> Value {
    let transcript = record.artifacts.iter().find(|artifact| artifact.name == "transcript.json");
    json!({
        "status": record.outcome.map(crate::domain::Outcome::as_str),
        "transcript_ref": transcript.map(|artifact| artifact.key.as_str()),
        "transcript_version": record.transcript_version,
        "mos": record.quality.as_ref().map(|quality| quality["mos"]["mos_cqe"].clone()),
        "retention_until": record.retain_until.to_string(),
    })
}

/// Everything a template may use.
async fn document(app: &App, row: &OutboxRow, record: &CallRecord) -> Result<Value, Stop> {
    let versions = app.store.transcripts(record.uid).await.at(Stage::Deliver)?;
    Ok(json!({
        "call": {
            "id": record.call_id,
            "uid": record.uid,
            "source": record.source,
            "org_id": record.org_id,
            "direction": record.direction,
            "duration_ms": record.duration_ms,
            "ended_at": record.ended_at.map(|at| at.to_string()),
        },
        "outcome": record.outcome.map(crate::domain::Outcome::as_str),
        "transcript": versions.last().map(|version| version.text.as_str()),
        "transcript_version": record.transcript_version,
        "quality_metrics": record.quality,
        "flags": record.flags,
        "artifacts": record.artifacts,
        "retain_until": record.retain_until.to_string(),
        "idempotency_key": row.id,
    }))
}

/// Where a record is written, and how.
struct Receiver<'a> {
    client: &'a reqwest::Client,
    settings: &'a HttpWriteBack,
    method: Method,
    url: Url,
    headers: HeaderMap,
}

/// The receiver's record and its version tag; a receiver that has none yet is written without a condition.
#[derive(Default)]
struct Remote {
    etag: Option<HeaderValue>,
    record: Value,
}

impl<'a> Receiver<'a> {
    fn of(app: &'a App, settings: &'a HttpWriteBack, document: &Value) -> Result<Self, RequestError> {
        Ok(Self {
            client: &app.receivers,
            settings,
            method: settings.method()?,
            url: settings.url(document)?,
            headers: settings.headers(document)?,
        })
    }

    /// Has the record say what the document says.
    async fn bring(&self, document: &Value, idempotency_key: &str) -> Result<(), Stop> {
        for _ in 0..RE_READS {
            let remote = if self.settings.if_match { self.read().await? } else { Remote::default() };
            let body = self.settings.body(document, &remote.record, &self.headers).at(Stage::Deliver)?;
            // An earlier try whose answer was lost, at a receiver that may not know our key: once is enough.
            if self.method != Method::DELETE && body.json.as_ref().is_some_and(|ours| says_all(&remote.record, ours)) {
                return Ok(());
            }
            let mut request = self.client.request(self.method.clone(), self.url.clone());
            request = request.header("idempotency-key", idempotency_key).headers(self.headers.clone()).body(body.text);
            if let Some(etag) = remote.etag {
                request = request.header(IF_MATCH, etag);
            }
            let answer = request.send().await.map_err(|err| self.unreachable(err))?;
            match answer.status().as_u16() {
                200..=299 => return Ok(()),
                // Somebody changed the record after we read it: read again and write on top of their version.
                412 => {}
                status => return Err(self.refused(status, answer).await),
            }
        }
        Err(self.trouble(Fault::Transient, "its record changed under every try"))
    }

    async fn read(&self) -> Result<Remote, Stop> {
        let request = self.client.get(self.url.clone()).headers(self.headers.clone());
        let answer = request.send().await.map_err(|err| self.unreachable(err))?;
        match answer.status().as_u16() {
            200..=299 => {
                let etag = answer.headers().get(ETAG).cloned();
                let body = answer.bytes().await.map_err(|err| self.unreachable(err))?;
                match (serde_json::from_slice(&body), &etag) {
                    // A page in place of the record (a proxy's, a login's) is no leave to write without a condition.
                    (Err(_), None) => Err(self.trouble(Fault::Transient, "shows no record")),
                    (record, _) => Ok(Remote { etag, record: record.unwrap_or_default() }),
                }
            }
            404 => Ok(Remote::default()),
            status => Err(self.refused(status, answer).await),
        }
    }

    fn unreachable(&self, err: reqwest::Error) -> Stop {
        self.trouble(Fault::Transient, &why(err))
    }

    async fn refused(&self, status: u16, answer: reqwest::Response) -> Stop {
        let headers = answer.headers().clone();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let body = answer.bytes().await.unwrap_or_default();
        let asked = PauseHeaders {
            retry_after: text("retry-after"),
            rate_limit_reset: text("x-ratelimit-reset"),
            date: text("date"),
        };
        let asked = pause(asked, &body);
        let fault = match status {
            429 => Fault::Throttled { retry_after: asked.unwrap_or(Duration::from_secs(30)) },
            408 | 425 | 500..=599 => asked.map_or(Fault::Transient, |retry_after| Fault::Throttled { retry_after }),
            _ => Fault::Permanent,
        };
        self.trouble(fault, &format!("answers {status}"))
    }

    /// Names the host, never the path and the query: they may hold a number or a key.
    fn trouble(&self, fault: Fault, what: &str) -> Stop {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let cause = format!("receiver {host}{port}: {what}");
        Stop::Trouble(Trouble { stage: Some(Stage::Deliver), fault, side: Side::Receiver, cause })
    }
}

fn misconfigured(cause: String) -> Stop {
    Stop::Trouble(Trouble { stage: Some(Stage::Deliver), fault: Fault::Permanent, side: Side::Configuration, cause })
}

/// Why there was no answer, in the words of whatever was at the bottom of it.
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

/// Whether a record holds everything that writing this object into it would leave there.
fn says_all(record: &Value, ours: &Value) -> bool {
    let members = ours.as_object();
    members.is_some_and(|members| members.values().any(|value| !value.is_null())) && holds(record, ours)
}

fn holds(record: &Value, ours: &Value) -> bool {
    match (record, ours) {
        (Value::Object(record), Value::Object(ours)) => {
            // A member that is not there and one that is null say the same (RFC 7396).
            ours.iter().all(|(key, ours)| holds(record.get(key).unwrap_or(&Value::Null), ours))
        }
        (Value::Number(theirs), Value::Number(ours)) => theirs == ours || theirs.as_f64() == ours.as_f64(),
        (theirs, ours) => theirs == ours,
    }
}

#[cfg(test)]
mod tests {
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
            // Nothing is said, so nothing can have been written before.
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

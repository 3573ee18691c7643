//! An outbox row to its receiver: the platform's own metadata, or a request the operator described. The same
//! idempotency key on every try makes a lost answer harmless; `If-Match` keeps us from overwriting somebody's change.

use std::time::Duration;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use reqwest::header::{ETAG, HeaderName, HeaderValue, IF_MATCH};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{At, Stop, Trouble};
use crate::app::App;
use crate::config::HttpWriteBack;
use crate::domain::{Fault, RetentionState, Side, Stage};
use crate::queue;
use crate::store::{CallRecord, OutboxRow};
use crate::wire::retry::{PauseHeaders, pause};

/// Re-reads after a 412 within one attempt; more contention than this waits for the next attempt.
const RE_READS: usize = 3;

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
        return Err(Stop::permanent(format!("source `{}` is not in the configuration", record.source)));
    };
    if row.target == "metadata" {
        let outcome = platform_metadata(record);
        return platform.source.write_metadata(&record.call_id, &outcome, &row.id).await.at(Stage::Deliver);
    }
    let Some(settings) = &platform.settings.http else {
        return Err(Stop::permanent(format!("source `{}` has no [source.http] table any more", record.source)));
    };
    let document = document(app, row, record).await?;
    put_record(app, settings, row, &document).await
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

async fn put_record(app: &App, settings: &HttpWriteBack, row: &OutboxRow, document: &Value) -> Result<(), Stop> {
    for _ in 0..RE_READS {
        let url = render(&settings.url, document, &Value::Null)?;
        let (etag, remote) =
            if settings.if_match { read_record(app, settings, &url).await? } else { (None, Value::Null) };
        let body = match &settings.body {
            Some(template) => render(template, document, &remote)?,
            None => document.to_string(),
        };
        let method = reqwest::Method::from_bytes(settings.method.as_bytes())
            .map_err(|_| Stop::permanent(format!("source.http.method: `{}` is no HTTP method", settings.method)))?;
        let mut request = authorized(app.receivers.request(method, &url), settings)
            .header("content-type", "application/json")
            .header("idempotency-key", &row.id)
            .body(body);
        if let Some(etag) = &etag {
            request = request.header(IF_MATCH, etag);
        }
        let answer = request.send().await.map_err(|err| unreachable(&err))?;
        match answer.status().as_u16() {
            200..=299 => return Ok(()),
            // Somebody changed the record after we read it: read again and write on top of their version.
            412 => {}
            status => return Err(refused(status, answer).await),
        }
    }
    Err(trouble(Fault::Transient, "the receiver's record changed under every try".to_owned()))
}

/// The receiver's record and its version tag; a receiver that has none yet is written without a condition.
async fn read_record(app: &App, settings: &HttpWriteBack, url: &str) -> Result<(Option<HeaderValue>, Value), Stop> {
    let answer = authorized(app.receivers.get(url), settings).send().await.map_err(|err| unreachable(&err))?;
    match answer.status().as_u16() {
        200..=299 => {
            let etag = answer.headers().get(ETAG).cloned();
            let body = answer.bytes().await.map_err(|err| unreachable(&err))?;
            match (serde_json::from_slice(&body), &etag) {
                // A page in place of the record (a proxy's, a login's) is no leave to write without a condition.
                (Err(_), None) => Err(trouble(Fault::Transient, "the receiver shows no record".to_owned())),
                (record, _) => Ok((etag, record.unwrap_or_default())),
            }
        }
        404 => Ok((None, Value::Null)),
        status => Err(refused(status, answer).await),
    }
}

fn authorized(mut request: reqwest::RequestBuilder, settings: &HttpWriteBack) -> reqwest::RequestBuilder {
    for (name, value) in &settings.headers {
        let value = HeaderValue::from_str(value.expose_secret());
        if let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            value.set_sensitive(true);
            request = request.header(name, value);
        }
    }
    request
}

fn render(template: &str, document: &Value, remote: &Value) -> Result<String, Stop> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut context = document.clone();
    context["remote"] = remote.clone();
    environment
        .render_str(template, Serde(&context))
        .map_err(|err| Stop::permanent(format!("source.http: a template cannot be filled in: {err}")))
}

fn trouble(fault: Fault, cause: String) -> Stop {
    Stop::Trouble(Trouble { stage: Some(Stage::Deliver), fault, side: Side::Receiver, cause })
}

fn unreachable(err: &reqwest::Error) -> Stop {
    let kind = if err.is_timeout() { "did not answer in time" } else { "broke the connection" };
    trouble(Fault::Transient, format!("the receiver {kind}"))
}

async fn refused(status: u16, answer: reqwest::Response) -> Stop {
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
    trouble(fault, format!("the receiver answered {status}"))
}

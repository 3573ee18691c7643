//! The page of one call. A record and its transcripts, deliveries and jobs go in. Text or JSON comes out.

use anyhow::Result;
use serde_json::{Value, json};

use super::{out, row, table};
use crate::app::App;
use crate::domain::RetentionState;
use crate::queue::JobView;
use crate::store::{CallRecord, OutboxRow, TranscriptRow};

/// A record with its transcripts, deliveries and jobs. After the decision to erase a call, its content is left out.
pub(super) struct Shown {
    record: CallRecord,
    versions: Vec<TranscriptRow>,
    deliveries: Vec<OutboxRow>,
    jobs: Vec<JobView>,
}

impl Shown {
    pub(super) async fn read(app: &App, record: &CallRecord) -> Result<Self> {
        let jobs = app.queue.jobs_about(&record.uid.to_string()).await?;
        if record.retention_state != RetentionState::Active {
            let record = CallRecord { artifacts: Vec::new(), quality: None, ..record.clone() };
            return Ok(Self { record, versions: Vec::new(), deliveries: Vec::new(), jobs });
        }
        let versions = app.store.transcripts(record.uid).await?;
        let deliveries = app.store.deliveries(record.uid).await?;
        Ok(Self { record: record.clone(), versions, deliveries, jobs })
    }

    fn text(&self) -> Option<&str> {
        self.versions.last().map(|version| version.text.as_str())
    }

    /// Prints the page. With `keys` it also lists the object keys.
    pub(super) fn print(&self, keys: bool) {
        table(std::slice::from_ref(&self.record), "");
        if let Some(reason) = &self.record.outcome_reason {
            out::line(&format!("reason: {reason}"));
        }
        out::line(&self.kept());
        if let Some(quality) = &self.record.quality {
            print_all(&measures(quality));
        }
        print_all(&self.stored(keys));
        print_all(&self.written_back());
        out::line(&format!("trace {}", self.record.uid.trace_id()));
        self.jobs.iter().rev().for_each(|job| out::line(&timed(job)));
        out::line(&format!("\n{}", self.text().unwrap_or("(no transcript)")));
    }

    fn kept(&self) -> String {
        let CallRecord { retention_state, retain_until, retention_basis, .. } = &self.record;
        match retention_state {
            RetentionState::Active if self.record.holds_content() => {
                format!("kept until {retain_until} (counted from: {})", retention_basis.replace('_', " "))
            }
            RetentionState::Active => "nothing of this call is stored but this record".to_owned(),
            RetentionState::Erased => "erased: recording, transcript and figures are gone".to_owned(),
            RetentionState::Condemned => "its erasure has been decided and is under way".to_owned(),
            RetentionState::Blocked => format!(
                "its erasure has been decided and is blocked{}",
                self.record.retention_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
            ),
        }
    }

    fn stored(&self, keys: bool) -> Vec<String> {
        let artifacts = &self.record.artifacts;
        if artifacts.is_empty() {
            return Vec::new();
        }
        let size = artifacts.iter().map(|artifact| artifact.size_bytes).sum();
        let count = out::counted(artifacts.len() as u64, "object");
        let more = if keys { "" } else { " (--keys lists them)" };
        let mut lines = vec![format!("stored: {count}, {}{more}", out::bytes(size))];
        if keys {
            lines.extend(artifacts.iter().map(|it| format!("  {:>10}  {}", out::bytes(it.size_bytes), it.key)));
        }
        lines
    }

    fn written_back(&self) -> Vec<String> {
        let lines = self.deliveries.iter().map(|delivery| {
            let what = match delivery.version {
                0 => "the outcome".to_owned(),
                version => format!("transcript version {version}"),
            };
            let state = if delivery.delivered { "delivered" } else { "not delivered yet" };
            format!("written back: {what} by `{}`, {state}", delivery.target)
        });
        lines.collect()
    }

    pub(super) fn json(&self) -> Value {
        let jobs: Vec<Value> = self.jobs.iter().map(job).collect();
        let versions = self.versions.iter().map(|version| {
            let (number, made) = (version.version, version.created_at);
            json!({ "version": number, "created_at": made, "source": version.transcript.source })
        });
        let deliveries = self.deliveries.iter().map(|delivery| {
            json!({ "target": delivery.target, "transcript_version": delivery.version, "delivered": delivery.delivered })
        });
        let mut shown = row(&self.record);
        shown["transcript"] = json!(self.text());
        shown["transcript_versions"] = versions.collect();
        shown["quality"] = json!(self.record.quality);
        shown["artifacts"] = json!(self.record.artifacts);
        shown["written_back"] = deliveries.collect();
        shown["jobs"] = json!(jobs);
        shown["trace_id"] = json!(self.record.uid.trace_id());
        shown
    }
}

fn print_all(lines: &[String]) {
    for line in lines {
        out::line(line);
    }
}

/// The main figures of a quality document, one line for each group with a figure.
fn measures(quality: &Value) -> Vec<String> {
    let figure = |pointer: &str| quality.pointer(pointer).and_then(Value::as_f64);
    let shown = |name: &str, pointer: &str, places: usize, unit: &str| {
        figure(pointer).map(|value| format!("{name} {value:.places$}{unit}"))
    };
    let loudness = loudness(quality).map(|change| format!("loudness {change}"));
    let talk = |name: &str, pointer: &str| figure(pointer).map(|ms| format!("{name} {:.0} s", ms / 1000.0));
    let groups: [(&str, Vec<Option<String>>); 2] = [
        (
            "quality",
            vec![
                shown("MOS", "/mos/mos_cqe", 2, ""),
                loudness,
                shown("true peak", "/loudness/true_peak_dbtp", 1, " dBTP"),
                shown("SNR", "/signal/snr_db", 0, " dB"),
                shown("lost", "/source/lost_ms", 0, " ms").filter(|_| figure("/source/lost_ms") > Some(0.0)),
            ],
        ),
        (
            "conversation",
            vec![
                talk("agent speaks", "/conversation/agent_talk_ms"),
                talk("caller speaks", "/conversation/caller_talk_ms"),
                shown("median response", "/conversation/response_ms/p50", 0, " ms"),
                shown("interruptions", "/conversation/interruptions", 0, ""),
            ],
        ),
    ];
    let lines = groups.into_iter().map(|(group, figures)| (group, figures.into_iter().flatten().collect::<Vec<_>>()));
    lines
        .filter(|(_, figures)| !figures.is_empty())
        .map(|(group, all)| format!("{group}: {}", all.join(", ")))
        .collect()
}

/// The loudness as recorded and as stored, such as `-25.1 → -16.0 LUFS`.
pub(in crate::cli) fn loudness(quality: &Value) -> Option<String> {
    let figure = |pointer: &str| quality.pointer(pointer).and_then(Value::as_f64);
    let recorded = figure("/loudness/integrated_lufs")?;
    Some(match figure("/normalization/output_integrated_lufs") {
        Some(stored) => format!("{recorded:.1} → {stored:.1} LUFS"),
        None => format!("{recorded:.1} LUFS"),
    })
}

/// A job of the call as one line, with its queue time and the duration of its last attempt.
fn timed(job: &JobView) -> String {
    let queued = out::or_dash(job.queued_at);
    let took = job.took_ms().map_or_else(|| "not ended".to_owned(), |ms| format!("{ms} ms"));
    format!("job {} {}: {}, queued {queued}, attempt {}, {took}", job.id, job.kind, job.state.as_str(), job.attempt)
}

fn job(job: &JobView) -> Value {
    let cause = job.failure.as_ref().map(|failure| failure.cause.as_str()).or(job.last_error.as_deref());
    json!({
        "id": job.id, "kind": job.kind, "state": job.state, "attempt": job.attempt, "cause": cause,
        "queued_at": job.queued_at, "started_at": job.started_at, "ended_at": job.finished_at,
        "took_ms": job.took_ms(),
    })
}

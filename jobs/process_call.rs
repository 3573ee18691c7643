//! The mission: a completed call becomes a stored original, measured and normalised audio, and a labelled transcript
//! on its record. Read `steps_of` first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::Instrument;

use crate::app::{App, Platform, Urgency};
use crate::domain::{CallUid, RetentionState, Side, SourceCall, Stage};
use crate::jobs;
use crate::jobs::steps::{artifacts, audio, finish, original, source, words};
use crate::jobs::{At, Stop, Trouble};
use crate::queue;
use crate::queue::Lane;
use crate::store::{CallRecord, LedgerEntry, Pricing};
use crate::telemetry;
use crate::telemetry::{Use, Used};

/// How often an answer must repeat itself before it is believed that there is no recording.
const LEAST_LOOKS: u32 = 3;
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// Three looks with these pauses are over within a minute.
const LONGEST_LATE_PAUSE: Duration = Duration::from_secs(20);
/// No call ends later than so long after it was first seen.
const LONGEST_CALL: Duration = Duration::from_secs(86_400);

/// A call in the hands of one attempt.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub app: &'a App,
    pub job: &'a queue::Job,
    pub platform: &'a Platform,
    pub record: CallRecord,
}

/// The eight steps. Each is idempotent, and what an earlier attempt finished is not done again.
async fn steps_of(work: &mut Work<'_>) -> Result<&'static str, Stop> {
    let call = match stage(Stage::Source, source::fresh(work)).await? {
        source::Fresh::Call(call) => *call,
        source::Fresh::Ends(outcome, reason) => return finish::without_content(work, outcome, reason).await,
        source::Fresh::Withdrawn => return Ok("withdrawn"),
    };
    let original = stage(Stage::Fetch, original::secure(work, &call)).await?;
    let transcript = stage(Stage::Transcript, words::from_platform(&call)).await?;
    let media = stage(Stage::Audio, Box::pin(audio::measure(work, &call, original, &transcript))).await?;
    let transcript = media.transcript().cloned().unwrap_or(transcript);
    let stored = stage(Stage::Artifacts, artifacts::store(work, &media, &transcript)).await?;
    stage(Stage::Writeback, finish::record(work, &call, &media, &transcript, stored)).await
}

/// Runs one attempt of `process_call`.
pub(super) async fn run(app: &App, job: &queue::Job, call: CallUid, again: bool) -> Result<&'static str, Stop> {
    let Some(record) = app.store.call(call).await.at(Stage::Source)? else {
        return Err(Stop::permanent(format!("there is no call record {call}")));
    };
    jobs::named(&record);
    tracing::info!("processing call");
    if record.retention_state != RetentionState::Active || (record.outcome.is_some() && !again) {
        // Erased meanwhile, or finished by an earlier job: a later trigger is a no-op.
        finish::nothing(app, job).await?;
        return Ok("nothing_to_do");
    }
    let Some(platform) = app.platform(&record.source) else {
        return Err(unknown_source(&record));
    };
    let mut work = Work { app, job, platform, record };
    let used = Arc::new(Used::default());
    let ended = telemetry::counting(used.clone(), Box::pin(steps_of(&mut work))).await;
    if ended.is_err() {
        book_failure(&work, &used).await;
    }
    ended
}

/// What an attempt used that came to nothing was used all the same.
async fn book_failure(work: &Work<'_>, used: &Used) {
    if [Use::PlatformRequests, Use::ObjectWrites, Use::BytesFetched].iter().all(|what| used.of(*what) == 0) {
        return;
    }
    let (app, record) = (work.app, &work.record);
    let (at, ended, pricing) = (app.now(), "failed", Pricing::Free);
    let (source, org, call) = (&record.source, record.org_uid, record.uid);
    let entry = LedgerEntry { at, source, org, call, ended, used, audio_ms: 0, engine: None, pricing };
    let booked = async {
        let mut tx = app.store.begin().await?;
        app.store.enter_ledger(&mut tx, &entry).await?;
        tx.commit().await
    };
    if let Err(err) = booked.await {
        tracing::warn!(error = %err, "cannot enter a failed attempt into the ledger");
    }
}

fn unknown_source(record: &CallRecord) -> Stop {
    Stop::Trouble(Trouble {
        stage: Some(Stage::Source),
        fault: crate::domain::Fault::Permanent,
        side: Side::Configuration,
        cause: format!("source `{}` is not in the configuration; add it again and retry this job", record.source),
    })
}

/// Runs a step in its span and measures it.
async fn stage<T>(stage: Stage, step: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let started = Instant::now();
    let result = step.instrument(tracing::info_span!("stage", stage = stage.as_str())).await;
    let seconds = started.elapsed().as_secs_f64();
    metrics::histogram!(telemetry::STAGE_SECONDS, "stage" => stage.as_str()).record(seconds);
    result
}

impl Work<'_> {
    /// A backfill's calls give way to those that somebody has just hung up.
    pub(super) fn urgency(&self) -> Urgency {
        match self.job.lane {
            Lane::Backfill => Urgency::Patient,
            Lane::Live | Lane::Upkeep => Urgency::Live,
        }
    }

    /// A boundary between steps: where tests of crash recovery stop the process dead.
    pub(super) async fn boundary(&self, name: &str) {
        if self.app.config.worker.park_at == name {
            tracing::warn!(boundary = name, "parked");
            std::future::pending::<()>().await;
        }
    }

    /// The moment until which a missing recording is looked for quietly: from the end of the call, or from first sight
    /// where it is not known when that was.
    fn grace_ends(&self, call: Option<&SourceCall>) -> Timestamp {
        let seen = self.record.first_seen_at;
        let latest = seen.checked_add(LONGEST_CALL).unwrap_or(seen);
        // An end far ahead of its first sight is no end that anybody waits for.
        let from = call.and_then(|call| call.ended_at).map_or(seen, |ended| ended.min(latest));
        from.checked_add(self.platform.settings.recording_grace.0).unwrap_or(from)
    }

    /// Not there yet, or not what it should be, which may be an incident at the host: looked at again, quietly, until the
    /// grace of the call's end is over; then, or where the call was seen later than that, until it has been looked at
    /// [`LEAST_LOOKS`] times, within a minute. None after that.
    pub(super) fn not_yet(&self, call: Option<&SourceCall>) -> Option<Stop> {
        if let Some(stop) = self.too_early(call) {
            return Some(stop);
        }
        // A short grace asks for quick answers here too.
        let shortest = self.platform.settings.recording_grace.0 / 10;
        let after = self.app.config.fetch.not_ready_pause.0.min(shortest.max(SHORTEST_PAUSE)).min(LONGEST_LATE_PAUSE);
        (self.job.looks + 1 < LEAST_LOOKS).then_some(Stop::LookAgain { after })
    }

    /// Within the grace, look again; pauses grow with the wait. None once it is over.
    pub(super) fn too_early(&self, call: Option<&SourceCall>) -> Option<Stop> {
        let (now, until) = (self.app.now(), self.grace_ends(call));
        if now >= until {
            return None;
        }
        let grace = self.platform.settings.recording_grace.0;
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        let waited = grace.saturating_sub(left);
        let pause = self.app.config.fetch.not_ready_pause.0.max(waited / 2);
        Some(Stop::LookAgain { after: pause.min(left) })
    }

    /// Something lasting was done that no later attempt does again.
    pub(super) async fn advance(&self) -> Result<(), Stop> {
        // A first attempt has no earlier ones to give back.
        if self.job.attempts_used() < 2 {
            return Ok(());
        }
        self.app.queue.advance(self.job).await.at(Stage::Source)
    }
}

//! `process_call` processes one completed call: it stores the original recording, measures and normalises the audio,
//! writes a labelled transcript and records the outcome. Read `steps_of` first: it shows the eight steps.
//!
//! Input: a call id and the ownership of one job attempt. Output: artifacts in the object store, the record outcome, a
//! ledger entry and, if the source has a write-back target, a pending delivery.

use std::sync::Arc;
use std::time::Instant;

use tracing::Instrument;

use crate::app::App;
use crate::domain::{CallUid, Fault, RetentionState, Side, SourceCall, Stage};
use crate::jobs;
use crate::jobs::steps::audio::Audio;
use crate::jobs::steps::media::Media;
use crate::jobs::steps::original::{Original, StoredOriginal};
use crate::jobs::steps::{artifacts, audio, finish, original, quality, source, words};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};
use crate::queue;
use crate::store::{CallRecord, LedgerEntry, Pricing};
use crate::telemetry;
use crate::telemetry::{Use, Used};

/// The eight steps of the mission. Each step is idempotent. A retry reuses the stored results of earlier attempts.
///
/// 1. Source: request the call from its platform and check eligibility, opt-out and retention.
/// 2. Fetch: download the recording within limits.
/// 3. Original: store it in the object store before its URL expires.
/// 4. Audio: decode, repair the timeline, mix and normalise to 48 kHz mono.
/// 5. Transcript: take the platform's words, else the words of a speech engine; assign speakers and roles.
/// 6. Quality: put loudness, signal, network and conversation figures together.
/// 7. Artifacts: store all derived files, the manifest last.
/// 8. Write-back: record outcome, job completion and pending delivery in one fenced transaction.
async fn steps_of(work: &mut Work<'_>) -> Result<&'static str, Stop> {
    let call = match stage(Stage::Source, source::fresh(work)).await? {
        source::Fresh::Call(call) => *call,
        source::Fresh::Ends(outcome, reason) => return finish::without_content(work, outcome, reason).await,
        source::Fresh::Withdrawn => return Ok("withdrawn"),
    };
    let media = match stage(Stage::Fetch, original::secure(work, &call)).await? {
        Original::Stored(original) => Box::pin(media_of(work, &call, original)).await?,
        Original::None { outcome, reason } => Media::without_recording(outcome, reason),
    };
    let transcript = media.transcript_of(&call);
    let stored = stage(Stage::Artifacts, artifacts::store(work, &media, &transcript)).await?;
    stage(Stage::Writeback, finish::record(work, &media, &transcript, stored)).await
}

/// Steps 4 to 6. A retry takes the stored result of an earlier attempt.
async fn media_of(work: &mut Work<'_>, call: &SourceCall, original: StoredOriginal) -> Result<Media, Stop> {
    if let Some(earlier) = quality::of_earlier_attempt(work, &original.artifact).await? {
        return Ok(Media::Measured(Box::new(earlier)));
    }
    let sound = match stage(Stage::Audio, audio::normalize(work, call, original)).await? {
        Audio::Normalized(sound) => sound,
        Audio::Unusable(media) => return Ok(media),
    };
    let words = stage(Stage::Transcript, words::attributed(work, call, &sound)).await?;
    let measured = stage(Stage::Quality, Box::pin(quality::measure(work, call, *sound, words))).await?;
    Ok(Media::Measured(Box::new(measured)))
}

/// Runs one attempt of `process_call`. Returns the outcome as a metric label. `again` also processes a finished call.
pub(super) async fn run(app: &App, job: &queue::JobAttempt, call: CallUid, again: bool) -> Result<&'static str, Stop> {
    let Some(record) = app.store.call(call).await.at(Stage::Source)? else {
        return Err(Stop::permanent(format!("there is no call record {call}")));
    };
    jobs::named(&record);
    tracing::info!("processing call");
    if record.retention_state != RetentionState::Active || (record.outcome.is_some() && !again) {
        // The call was erased meanwhile, or an earlier job finished it. A later trigger is a no-op.
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

/// Enters the resource use of a failed attempt into the ledger, because the requests and bytes were used.
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
    let cause = format!("source `{}` is not in the configuration; add it again and retry this job", record.source);
    Stop::trouble(Stage::Source, Fault::Permanent, Side::Configuration, cause)
}

/// Runs one step in its span and records its duration in seconds.
async fn stage<T>(stage: Stage, step: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let started = Instant::now();
    let result = step.instrument(tracing::info_span!("stage", stage = stage.as_str())).await;
    let seconds = started.elapsed().as_secs_f64();
    metrics::histogram!(telemetry::STAGE_SECONDS, "stage" => stage.as_str()).record(seconds);
    result
}

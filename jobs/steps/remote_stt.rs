//! Remote STT: words from a speech engine on another machine, if the configuration allows it for the call's
//! organisation. An answer costs money. It is therefore stored and entered into the ledger before any other work, and
//! no answered part is sent twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::growth;
use crate::app::RemoteStt;
use crate::audio::speech::Speech;
use crate::domain::{Artifact, Classify, Fault, SourceCall, Stage, Transcript};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};
use crate::source::{Answered, Precedence};
use crate::store::{LedgerEntry, Pricing, StoreError};
use crate::telemetry::{Use, Used};
use crate::transcript;
use crate::transcript::engine::EngineError;
use crate::transcript::remote::{Answer, Paid, Part, assemble, plan};

/// The ledger's `ended` value for the answer to one part. It is not an attempt of its own.
pub(crate) const HEARD: &str = "heard";
/// The key of the stored answers in a call's progress, beside the results of the audio steps.
const KEPT: &str = "kept";
/// Tries to store an answer, because a lost answer must be paid for again.
const KEEP_TRIES: usize = 6;

/// The longest unreadable answer that is stored, in bytes.
const LONGEST_UNREAD: usize = 1 << 20;

/// Remote STT answers for a call that has no words from them yet. They survive the attempt, the worker and a run that
/// ended without words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(default)]
    answers: BTreeMap<String, Answer>,
    /// Unreadable answers by part name, because a later build may be able to read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unread: BTreeMap<String, String>,
    /// Start of the current series of failures or throttled requests, in milliseconds since 1970.
    #[serde(default)]
    failing_since: Option<i64>,
}

impl Kept {
    /// Reads the stored answers from a record's progress.
    pub(crate) fn of(progress: Option<&serde_json::Value>) -> Self {
        progress.and_then(|progress| Self::deserialize(progress.get(KEPT)?).ok()).unwrap_or_default()
    }

    /// The value that a later run needs. `None` if no answer is stored.
    pub(crate) fn left(&self) -> Option<serde_json::Value> {
        let nothing = self.answers.is_empty() && self.unread.is_empty();
        (!nothing).then(|| serde_json::json!({ KEPT: { "answers": self.answers, "unread": self.unread } }))
    }
}

/// Transcribes a call that has no words. Also returns the answers that must still be stored.
pub(crate) async fn words(
    work: &Work<'_>,
    call: &SourceCall,
    original: &Artifact,
    (words, speech): (Transcript, &Arc<Speech>),
    language: Option<&str>,
) -> Result<(Transcript, Kept), Stop> {
    let kept = Kept::of(work.record.progress.as_ref());
    let org = call.org_id.as_deref();
    let allowed = |engine: &&RemoteStt| engine.remote.settings().may_hear(&work.record.source, org);
    let Some(engine) = work.app.remote_stt.iter().find(allowed) else { return Ok((words, kept)) };
    let without = |reason: &str| Transcript { reason: Some(reason.to_owned()), ..words.clone() };
    let Some(language) = language else { return Ok((without(transcript::LANGUAGE_UNKNOWN), kept)) };
    let settings = engine.remote.settings();
    let parts = plan(settings, speech).at(Stage::Transcript)?;
    let of = original.sha256;
    let name = |part: &Part| format!("{}/{}/{language}/{of}/{}", settings.name, settings.model, part.key());
    let unsent: u64 = parts.iter().filter(|part| !kept.answers.contains_key(&name(part))).map(Part::sent_ms).sum();
    if unsent > 0 && over_budget(work, engine, unsent).await? {
        tracing::warn!(engine = settings.name, "over the budget, finished without words");
        return Ok((without(transcript::OVER_BUDGET), kept));
    }
    let mut asking = Asking { work, engine, language, kept };
    let mut answers = Vec::new();
    for part in parts {
        let name = name(&part);
        let answer = match asking.kept.answers.get(&name) {
            Some(known) => known.clone(),
            None => match asking.answer(name, &part, speech).await? {
                Ok(answer) => answer,
                Err(err) => {
                    let reason = asking.given_up(err).await?;
                    return Ok((without(reason), asking.kept));
                }
            },
        };
        answers.push((part, answer));
    }
    // The transcript contains the words now, so that the answers are no longer needed.
    Ok((assemble(settings, speech, &answers, language), Kept::default()))
}

async fn over_budget(work: &Work<'_>, engine: &RemoteStt, unsent_ms: u64) -> Result<bool, Stop> {
    let settings = &work.app.config.transcript;
    let (Some(budget), Some(cost)) = (settings.budget, engine.remote.cost_micros(unsent_ms)) else { return Ok(false) };
    let from = work.app.now().checked_sub(settings.budget_window.0).unwrap_or(Timestamp::MIN);
    let spent = work.app.store.spent_since(from).await.at(Stage::Transcript)?;
    Ok((spent + cost) as f64 > budget * 1e6)
}

struct Asking<'a> {
    work: &'a Work<'a>,
    engine: &'a RemoteStt,
    language: &'a str,
    kept: Kept,
}

impl Asking<'_> {
    /// The answer for one part: a stored unreadable answer that this build can read, else a new one.
    async fn answer(
        &mut self,
        name: String,
        part: &Part,
        speech: &Arc<Speech>,
    ) -> Result<Result<Answer, EngineError>, Stop> {
        let unread = self.kept.unread.remove(&name).map(|body| Paid { billed_ms: part.sent_ms(), body: body.into() });
        if let Some(Ok(answer)) = unread.map(|paid| self.engine.remote.read(part, &paid)) {
            self.kept.answers.insert(name, answer.clone());
            let noted = self.note(None).await;
            self.owned(noted).await?;
            return Ok(Ok(answer));
        }
        match self.ask(part, speech.clone()).await {
            Ok(paid) => self.keep(name, part, paid).await,
            Err(err) => Ok(Err(err)),
        }
    }

    /// Sends one part once, with a permit of the engine's rate limiter.
    async fn ask(&self, part: &Part, speech: Arc<Speech>) -> Result<Paid, EngineError> {
        let url = || self.engine.remote.settings().base_url.host_str().unwrap_or_default().to_owned();
        let encoded = part.clone();
        let flac = self.work.compute(move || encoded.encode(&speech)).await??;
        let held = |held: crate::source::PermitDenied| EngineError::Busy { url: url(), retry_after: held.pause };
        let permit = self.engine.limiter.acquire(Precedence::First).await.map_err(held)?;
        let answer = self.engine.remote.ask(part, flac, self.language).await;
        let answered = match &answer {
            Err(EngineError::Busy { retry_after, .. }) => Answered::Throttled { pause: Some(*retry_after) },
            Err(EngineError::Remote { .. }) => Answered::Badly,
            _ => Answered::Well { rest: None },
        };
        self.engine.limiter.release(permit, answered).await;
        answer
    }

    /// Stores an answer and its cost in one transaction, also if the answer is unreadable.
    async fn keep(&mut self, name: String, part: &Part, paid: Paid) -> Result<Result<Answer, EngineError>, Stop> {
        let read = self.engine.remote.read(part, &paid);
        match &read {
            Ok(answer) => {
                self.kept.failing_since = None;
                self.kept.answers.insert(name, answer.clone());
            }
            Err(err) if err.fault() == Fault::Permanent && paid.body.len() <= LONGEST_UNREAD => {
                self.kept.unread.insert(name, String::from_utf8_lossy(&paid.body).into_owned());
            }
            Err(_) => {}
        }
        let often = ExponentialBuilder::default().with_min_delay(Duration::from_millis(200)).with_max_times(KEEP_TRIES);
        let paid_ms = Some(paid.billed_ms);
        let kept = (|| self.note(paid_ms)).retry(often).when(|err: &StoreError| err.fault() == Fault::Transient);
        let kept = kept.await;
        self.owned(kept).await?;
        Ok(read)
    }

    /// Writes the stored answers and the cost of an answer to the shared database. Returns false if another worker owns
    /// the call; then only the cost is written.
    async fn note(&self, paid_ms: Option<u64>) -> Result<bool, StoreError> {
        let (app, record) = (self.work.app, &self.work.record);
        let progress = growth::beside(record.progress.as_ref(), serde_json::json!({ KEPT: &self.kept }));
        let mut tx = app.store.begin().await?;
        let owned = app.store.set_progress(&mut tx, record.uid, record.generation, &progress).await?;
        if let Some(billed_ms) = paid_ms {
            let used = Used::default();
            used.add(Use::BilledMs, billed_ms);
            let entry = LedgerEntry {
                at: app.now(),
                source: &record.source,
                org: record.org_uid,
                call: record.uid,
                ended: HEARD,
                used: &used,
                audio_ms: 0,
                engine: Some(&self.engine.remote.settings().name),
                pricing: match self.engine.remote.cost_micros(billed_ms) {
                    Some(micros) => Pricing::Cost { micros },
                    None => Pricing::Unpriced,
                },
            };
            app.store.enter_ledger(&mut tx, &entry).await?;
        }
        tx.commit().await?;
        Ok(owned)
    }

    async fn owned(&self, noted: Result<bool, StoreError>) -> Result<(), Stop> {
        if noted.at(Stage::Transcript)? {
            return Ok(());
        }
        self.work.withdraw().await;
        Err(Stop::Fenced)
    }

    /// Returns the reason to finish without words if a retry is useless or the failures have lasted too long. Returns
    /// the failure as a stop otherwise, so that the job is retried.
    async fn given_up(&mut self, err: EngineError) -> Result<&'static str, Stop> {
        let (engine, fault) = (self.engine.remote.settings().name.as_str(), err.fault());
        if fault == Fault::Permanent {
            tracing::error!(engine, error = %err, "no words: the engine cannot be used");
            return Ok(match err {
                EngineError::Key { .. } | EngineError::Credit { .. } => transcript::KEY_REFUSED,
                _ => transcript::ENGINE_FAILED,
            });
        }
        let (app, job) = (self.work.app, self.work.job);
        let now = app.now().as_millisecond();
        let since = *self.kept.failing_since.get_or_insert(now);
        let patience = i64::try_from(app.config.transcript.patience.0.as_millis()).unwrap_or(i64::MAX);
        let last = fault == Fault::Transient && job.is_last_attempt();
        if last || now - since >= patience {
            tracing::error!(engine, error = %err, "no words: the engine has failed for too long");
            return Ok(transcript::ENGINE_FAILED);
        }
        let noted = self.note(None).await;
        self.owned(noted).await?;
        Err(err).at(Stage::Transcript)
    }
}

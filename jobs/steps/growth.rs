//! A short recording may still be growing at its host, or the transfer may have been cut. This module requests its size
//! a few times. A longer recording replaces the first copy. The first copy stays in the object store until then.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fetch;
use super::keep;
use crate::audio::{AudioError, Normalized, probe};
use crate::domain::{Artifact, Container, RecordingUrl, SourceCall, Stage};
use crate::fetch::{Change, FetchError, Fetched, Told};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};

/// When the size is requested again, counted from the first copy.
const LOOKS: [SignedDuration; 3] =
    [SignedDuration::from_secs(5), SignedDuration::from_secs(15), SignedDuration::from_secs(40)];
/// A recording does not grow after this time since the end of the call. It may still have been cut in transfer, so that
/// its size is requested once, immediately.
const GROWING: SignedDuration = SignedDuration::from_hours(1);
/// A recording is short if its deficit against the call's duration exceeds both limits.
const SHORT_MS: u64 = 5_000;
const SHORT_PERCENT: u64 = 20;
/// Encoders miscount the duration by a frame or two.
const MISCOUNTED_MS: u64 = 250;
/// The key of this state in a call's progress, beside the results of the audio steps.
const GROWTH: &str = "growth";

/// State of the size checks of a short recording. It survives the attempt and the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Growth {
    /// Time of the first copy, in milliseconds since 1970.
    since: i64,
    looks: usize,
    /// Time of the last check, in milliseconds since 1970.
    last: Option<i64>,
    /// Size and tag that the host reported for the stored copy.
    told: Told,
    /// Whether the host has reported the same again since that copy was fetched.
    repeated: bool,
    over: bool,
}

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// The stored copy remains the original.
    Kept,
    /// A longer recording has become the original.
    Replaced,
}

impl Growth {
    fn of(progress: Option<&Value>) -> Option<Self> {
        Self::deserialize(progress?.get(GROWTH)?).ok()
    }

    fn due(&self, call: &SourceCall, now: Timestamp) -> Timestamp {
        let moment = |millis| Timestamp::from_millisecond(millis).unwrap_or(now).min(now);
        let pause = LOOKS.get(self.looks).copied().unwrap_or_default();
        let due = later(moment(self.since), pause);
        // Two requests at the same moment would return the same answer.
        let apart = self.last.map_or(due, |last| later(moment(last), LOOKS[0]));
        if self.may_grow(call) { due.max(apart) } else { now }
    }

    /// Applies the result of one check.
    fn looked(&mut self, change: Option<Change>, call: &SourceCall, now: Timestamp) {
        self.looks += 1;
        self.last = Some(now.as_millisecond());
        let is_settled = change == Some(Change::Same) && (self.repeated || !self.may_grow(call));
        self.repeated |= change == Some(Change::Same);
        self.over = is_settled || self.looks >= LOOKS.len();
    }

    fn may_grow(&self, call: &SourceCall) -> bool {
        let since = Timestamp::from_millisecond(self.since).unwrap_or(Timestamp::MAX);
        call.ended_at.is_none_or(|ended| since.duration_since(ended) < GROWING)
    }
}

fn later(moment: Timestamp, pause: SignedDuration) -> Timestamp {
    moment.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// Copies the growth state from the call's progress into `value`, so that writing `value` keeps it.
pub(crate) fn beside(progress: Option<&Value>, value: Value) -> Value {
    let Some(growth) = progress.and_then(|progress| progress.get(GROWTH)) else { return value };
    match value {
        Value::Object(mut members) => {
            members.insert(GROWTH.to_owned(), growth.clone());
            Value::Object(members)
        }
        Value::Null => serde_json::json!({ GROWTH: growth }),
        other => other,
    }
}

/// Whether a recording is much shorter than its call, or shorter than its own headers state.
pub(crate) fn is_short(
    call: &SourceCall,
    decoded: Result<&Normalized, &AudioError>,
    file: &Path,
    container: Container,
) -> bool {
    let (decoded_ms, missing_ms) = match decoded {
        Ok(normalized) => {
            (normalized.duration_ms, normalized.source.expected_ms.saturating_sub(normalized.duration_ms))
        }
        Err(AudioError::Damaged { expected_ms, lost_ms, .. }) => (expected_ms.saturating_sub(*lost_ms), *lost_ms),
        Err(_) => return false,
    };
    let lacking_ms = call.duration_ms.map_or(0, |call_ms| call_ms.saturating_sub(decoded_ms));
    let call_ms = call.duration_ms.unwrap_or_default();
    let is_much = lacking_ms > SHORT_MS && lacking_ms * 100 > call_ms.saturating_mul(SHORT_PERCENT);
    is_much || missing_ms > MISCOUNTED_MS || probe::is_cut(file, container).unwrap_or(false)
}

/// Checks a short recording and snoozes between the checks until they are complete. `told` holds the host's size and
/// tag if this attempt fetched the copy.
pub(crate) async fn doubt(work: &mut Work<'_>, call: &SourceCall, told: Option<Told>) -> Result<Looked, Stop> {
    if Growth::of(work.record.progress.as_ref()).is_none() {
        // An earlier run has already checked the recording of a finished call.
        if work.record.outcome.is_some() && told.is_none() {
            return Ok(Looked::Kept);
        }
        let size_bytes = work.record.original.as_ref().map(|original| original.size_bytes);
        let told = told.unwrap_or(Told { size_bytes, tag: None });
        let since = work.app.now().as_millisecond();
        note(work, &Growth { since, looks: 0, last: None, told, repeated: false, over: false }).await?;
    }
    look(work, call).await
}

/// Continues the checks of a short recording. Snoozes if the next check is not due.
pub(crate) async fn look(work: &mut Work<'_>, call: &SourceCall) -> Result<Looked, Stop> {
    let Some(mut growth) = Growth::of(work.record.progress.as_ref()).filter(|growth| !growth.over) else {
        return Ok(Looked::Kept);
    };
    wait_for(work, call, &growth)?;
    let answer = ask(work, call).await;
    let change = answer.as_ref().map(|now| growth.told.since(now));
    let (change, looked) = match change {
        Some(Change::Longer | Change::Untold) => match replace(work, call).await? {
            Replaced::By(told) => {
                growth.told = told;
                growth.repeated = false;
                (Some(Change::Longer), Looked::Replaced)
            }
            Replaced::AsLong => {
                // The size request and the download may differ in form, such as compression. The next answer is
                // compared with this one.
                growth.told = answer.unwrap_or_default();
                (Some(Change::Same), Looked::Kept)
            }
            Replaced::Not => (None, Looked::Kept),
        },
        change => (change, Looked::Kept),
    };
    growth.looked(change, call, work.app.now());
    // The answer that led to the longer copy counts as the first report of its size.
    growth.repeated |= looked == Looked::Replaced;
    note(work, &growth).await?;
    tracing::debug!(looks = growth.looks, over = growth.over, ?change, "checked the size of a short recording");
    if looked == Looked::Kept && !growth.over {
        wait_for(work, call, &growth)?;
    }
    Ok(looked)
}

fn wait_for(work: &Work<'_>, call: &SourceCall, growth: &Growth) -> Result<(), Stop> {
    let now = work.app.now();
    let left = growth.due(call, now).duration_since(now);
    if left.is_positive() {
        return Err(Stop::Snooze { after: Duration::try_from(left).unwrap_or_default() });
    }
    Ok(())
}

/// The link to a recording: the one in the call, or a new one from the platform.
#[derive(Debug, Clone, Copy)]
enum Link {
    Named,
    Fresh,
}

impl Link {
    const EACH: [Self; 2] = [Self::Named, Self::Fresh];

    async fn url(self, work: &Work<'_>, call: &SourceCall) -> Option<RecordingUrl> {
        match self {
            Self::Named => fetch::named(call),
            Self::Fresh => fetch::fresh_url(work, call).await.ok().flatten(),
        }
    }
}

/// The host's current size and tag; `None` without a usable answer. A failure must not lose the stored copy.
async fn ask(work: &Work<'_>, call: &SourceCall) -> Option<Told> {
    for link in Link::EACH {
        let Some(url) = link.url(work, call).await else { continue };
        let _permit = work.app.network.acquire().await;
        match work.app.fetcher.ask(&url, &work.platform.hosts).await {
            Ok(told) => return Some(told),
            Err(FetchError::Denied { .. } | FetchError::Gone { .. }) => {}
            Err(err) => {
                tracing::debug!(error = %err, "cannot ask for the size of a short recording");
                return None;
            }
        }
    }
    None
}

enum Replaced {
    By(Told),
    /// The host sent the same size again.
    AsLong,
    Not,
}

/// Fetches the recording again. The new copy becomes the original if it is longer.
async fn replace(work: &mut Work<'_>, call: &SourceCall) -> Result<Replaced, Stop> {
    let Some(first) = work.record.original.clone() else { return Ok(Replaced::Not) };
    let spool = work.app.spool_of(work.record.uid);
    tokio::fs::create_dir_all(&spool).await.map_err(|err| fetch::spool_failure(&spool, &err))?;
    let path = spool.join("original.longer");
    let Some(fetched) = download(work, call, &path).await else { return Ok(Replaced::Not) };
    fetch::count(&fetched);
    if fetched.size_bytes <= first.size_bytes || !is_better(&path, &first) {
        let _ = tokio::fs::remove_file(&path).await;
        let is_same = fetched.size_bytes == first.size_bytes;
        return Ok(if is_same { Replaced::AsLong } else { Replaced::Not });
    }
    let (longer, _) = keep::keep(work, &path).await?;
    let place = fetch::download_path(work);
    tokio::fs::rename(&path, &place).await.map_err(|err| fetch::spool_failure(&place, &err))?;
    if first.key != longer.key
        && let Err(err) = work.app.objects.delete(&first.key).await
    {
        tracing::warn!(error = %err, "a shorter copy of the recording stays until the call is erased");
    }
    tracing::info!(from = first.size_bytes, to = longer.size_bytes, "a longer recording replaced the first");
    Ok(Replaced::By(fetched.told))
}

/// Whether the longer body is audio. It is also accepted if the first copy was no known audio container.
fn is_better(path: &Path, first: &Artifact) -> bool {
    let is_audio = matches!(probe::sniff(path), Ok(probe::Sniffed::Audio(_)));
    is_audio || keep::container_of(first) == Container::Other
}

async fn download(work: &Work<'_>, call: &SourceCall, path: &Path) -> Option<Fetched> {
    for link in Link::EACH {
        let Some(url) = link.url(work, call).await else { continue };
        let _permit = work.app.network.acquire().await;
        match work.app.fetcher.fetch(&url, &work.platform.hosts, path).await {
            Ok(fetched) => return Some(fetched),
            Err(FetchError::Denied { .. } | FetchError::Gone { .. }) => {}
            Err(err) => {
                tracing::debug!(error = %err, "cannot fetch a longer recording");
                return None;
            }
        }
    }
    None
}

async fn note(work: &mut Work<'_>, growth: &Growth) -> Result<(), Stop> {
    let written = serde_json::to_value(growth).map_err(|err| Stop::permanent(err.to_string()))?;
    let mut progress = match work.record.progress.take() {
        Some(Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    progress.insert(GROWTH.to_owned(), written);
    let progress = Value::Object(progress);
    let (uid, generation) = (work.record.uid, work.record.generation);
    let mut tx = work.app.store.begin().await.at(Stage::Fetch)?;
    let owned = work.app.store.set_progress(&mut tx, uid, generation, &progress).await.at(Stage::Fetch)?;
    tx.commit().await.at(Stage::Fetch)?;
    work.record.progress = Some(progress);
    if owned {
        return Ok(());
    }
    work.withdraw().await;
    Err(Stop::Fenced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CallId;

    const START: i64 = 1_770_000_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millisecond(START + seconds * 1000).unwrap()
    }

    fn call(ended: i64) -> SourceCall {
        SourceCall { ended_at: Some(at(ended)), ..SourceCall::named(CallId::parse("c1").unwrap()) }
    }

    fn growth() -> Growth {
        let told = Told { size_bytes: Some(100), tag: None };
        Growth { since: START, looks: 0, last: None, told, repeated: false, over: false }
    }

    #[test]
    fn looks_come_after_5_15_and_40_seconds_and_no_more() {
        let (mut growth, call) = (growth(), call(-5));
        for (due, over) in [(5, false), (15, false), (40, true)] {
            assert_eq!(growth.due(&call, at(1)), at(due));
            growth.looked(Some(Change::Longer), &call, at(due));
            assert_eq!(growth.over, over);
        }
    }

    #[test]
    fn two_equal_answers_end_it_and_no_answer_does_not() {
        let (mut growth, call) = (growth(), call(-5));
        growth.looked(Some(Change::Same), &call, at(5));
        assert!(!growth.over, "one answer may be given before the rest is there");
        growth.looked(Some(Change::Same), &call, at(15));
        assert!(growth.over);
        let mut growth = tests::growth();
        growth.looked(None, &call, at(5));
        growth.looked(Some(Change::Same), &call, at(15));
        assert!(!growth.over);
    }

    #[test]
    fn late_looks_stay_apart() {
        let (mut growth, call) = (growth(), call(-5));
        growth.looked(Some(Change::Same), &call, at(90));
        assert_eq!((growth.due(&call, at(90)), growth.over), (at(95), false));
        growth.looked(Some(Change::Same), &call, at(95));
        assert!(growth.over);
    }

    #[test]
    fn the_recording_of_an_old_call_is_asked_about_once_and_at_once() {
        let (mut growth, call) = (growth(), call(-3600));
        assert_eq!(growth.due(&call, at(0)), at(0));
        growth.looked(Some(Change::Same), &call, at(0));
        assert!(growth.over);
    }

    #[test]
    fn a_clock_set_back_does_not_lengthen_the_wait() {
        assert_eq!(growth().due(&call(-5), at(-1000)), at(-995));
    }

    #[test]
    fn the_state_stays_beside_whatever_else_is_kept() {
        let progress = serde_json::json!({ GROWTH: growth(), "kept": 1 });
        let laid = beside(Some(&progress), serde_json::json!({ "kept": 2 }));
        assert_eq!((Growth::of(Some(&laid)), &laid["kept"]), (Some(growth()), &serde_json::json!(2)));
        assert_eq!(Growth::of(Some(&beside(Some(&progress), Value::Null))), Some(growth()));
        assert_eq!(beside(None, Value::Null), Value::Null);
    }
}

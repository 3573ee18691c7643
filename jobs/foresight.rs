//! Whether every recording can be had before its source deletes it, at the pace the workers keep.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{At, Stop};
use crate::app::{App, Platform};
use crate::domain::Stage;
use crate::store::Unfetched;
use crate::telemetry;

/// How far ahead it is reckoned: a loss is to be foreseen a day before it happens, and a pace swings.
const AHEAD: SignedDuration = SignedDuration::from_hours(48);
/// What the workers manage is what they managed in this time.
const LATELY: SignedDuration = SignedDuration::from_hours(1);
/// Nothing is reckoned before calls have waited this long: there is no pace yet.
const SHORTEST_MEASURE: SignedDuration = SignedDuration::from_mins(10);
/// Between two looks, of all workers together.
const LOOK: SignedDuration = SignedDuration::from_mins(1);
/// Between two warnings about one source.
const WARN: SignedDuration = SignedDuration::from_hours(1);

/// Recordings that will be gone before their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loss {
    recordings: u64,
    /// From the end of this hour on.
    from: Timestamp,
}

/// Warns while there is a day left to do something: by a metric, and in the log.
pub(super) async fn foresee(app: &App, platform: &Platform) -> Result<(), Stop> {
    let source = &platform.settings.name;
    let Some(kept) = platform.settings.recordings_kept else { return Ok(()) };
    if !is_due(app, &format!("foresight.looked.{source}"), LOOK).await? {
        return Ok(());
    }
    let now = app.now();
    let kept = SignedDuration::try_from(kept.0).unwrap_or(SignedDuration::MAX);
    let ended = |expires: Timestamp| expires.checked_sub(kept).unwrap_or(Timestamp::MIN);
    let until = now.checked_add(AHEAD).unwrap_or(now);
    let waiting = app.store.unfetched(source, (ended(now), ended(until))).await.at(Stage::Source)?;
    let loss = match pace(app, platform, &waiting).await? {
        Some(per_second) => foreseen(&waiting, kept, now, per_second),
        None => None,
    };
    let lost = loss.map_or(0, |loss| loss.recordings);
    metrics::gauge!(telemetry::RECORDINGS_AT_RISK, "source" => source.to_string()).set(lost as f64);
    let Some(loss) = loss else { return Ok(()) };
    if is_due(app, &format!("foresight.warned.{source}"), WARN).await? {
        let expiring: u64 = waiting.iter().map(|hour| hour.calls).sum();
        tracing::warn!(
            source = %source,
            expiring,
            lost = loss.recordings,
            first_lost = %loss.from,
            "recordings will be deleted at the source before they can be fetched at this pace"
        );
    }
    Ok(())
}

/// Whether something was last done this long ago; if so, it is done now.
async fn is_due(app: &App, fact: &str, every: SignedDuration) -> Result<bool, Stop> {
    let now = app.now();
    let last = app.store.fact(fact).await.at(Stage::Source)?.and_then(|text| text.parse::<Timestamp>().ok());
    // A clock that was set back must not silence it for long.
    if last.is_some_and(|last| now.duration_since(last).abs() < every) {
        return Ok(false);
    }
    app.store.set_fact(fact, &now.to_string()).await.at(Stage::Source)?;
    Ok(true)
}

/// Calls of this source that end per second; none while there is nothing to go by.
async fn pace(app: &App, platform: &Platform, waiting: &[Unfetched]) -> Result<Option<f64>, Stop> {
    let now = app.now();
    let Some(since) = waiting.iter().map(|hour| hour.first_seen_at).min() else { return Ok(None) };
    let waited = now.duration_since(since);
    if waited < SHORTEST_MEASURE {
        return Ok(None);
    }
    let measured = waited.min(LATELY);
    let from = now.checked_sub(measured).unwrap_or(Timestamp::MIN);
    let ended = app.store.ended_since(&platform.settings.name, from).await.at(Stage::Source)?;
    Ok(Some(ended as f64 / measured.as_secs_f64()))
}

/// The most recordings by which any hour's end finds the workers behind, what is gone soonest being fetched first.
fn foreseen(waiting: &[Unfetched], kept: SignedDuration, now: Timestamp, per_second: f64) -> Option<Loss> {
    let mut expiring = 0;
    let mut loss: Option<Loss> = None;
    for hour in waiting {
        expiring += hour.calls;
        let Ok(end) = hour.ended_from.checked_add(kept.saturating_add(Unfetched::SPAN)) else { continue };
        let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
        let behind = expiring.saturating_sub((per_second * left.as_secs_f64()) as u64);
        if behind > 0 {
            let from = loss.map_or(end, |loss| loss.from);
            loss = Some(Loss { recordings: behind.max(loss.map_or(0, |loss| loss.recordings)), from });
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: SignedDuration = SignedDuration::from_hours(72);

    fn now() -> Timestamp {
        "2026-03-02T12:00:00Z".parse().unwrap()
    }

    /// So many calls whose recordings are gone after so many hours from now.
    fn gone_after(hours: i64, calls: u64) -> Unfetched {
        let ended_from = now() + SignedDuration::from_hours(hours - 1) - KEPT;
        Unfetched { ended_from, calls, first_seen_at: now() }
    }

    fn lost(waiting: &[Unfetched], per_hour: f64) -> Option<(u64, i64)> {
        let loss = foreseen(waiting, KEPT, now(), per_hour / 3600.0)?;
        Some((loss.recordings, loss.from.duration_since(now()).as_hours()))
    }

    #[test]
    fn what_can_be_fetched_in_time_is_no_loss() {
        assert_eq!(lost(&[gone_after(1, 10), gone_after(2, 10), gone_after(48, 460)], 10.0), None);
        assert_eq!(lost(&[], 0.0), None);
    }

    #[test]
    fn an_hour_that_takes_too_long_is_a_loss_however_quiet_the_rest() {
        assert_eq!(lost(&[gone_after(1, 25), gone_after(40, 10)], 10.0), Some((15, 1)));
    }

    #[test]
    fn small_excesses_add_up() {
        let waiting: Vec<Unfetched> = (1..=48).map(|hour| gone_after(hour, 12)).collect();
        assert_eq!(lost(&waiting, 10.0), Some((96, 1)));
    }

    #[test]
    fn a_standstill_loses_everything() {
        assert_eq!(lost(&[gone_after(30, 7), gone_after(40, 5)], 0.0), Some((12, 30)));
    }
}

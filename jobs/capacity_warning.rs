//! Capacity warning: predicts whether all recordings can be fetched before their source deletes them, at the current
//! throughput of the workers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{At, Stop};
use crate::app::{App, Platform};
use crate::domain::Stage;
use crate::store::Unfetched;
use crate::telemetry;

/// Forecast horizon. A loss must be predicted a day before it happens, and the throughput varies.
const AHEAD: SignedDuration = SignedDuration::from_hours(48);
/// The throughput of the workers is measured over this time.
const LATELY: SignedDuration = SignedDuration::from_hours(1);
/// No forecast before calls have waited this long, because the throughput is not yet known.
const SHORTEST_MEASURE: SignedDuration = SignedDuration::from_mins(10);
/// Interval between forecasts, shared by all workers.
const LOOK: SignedDuration = SignedDuration::from_mins(1);
/// Interval between warnings about one source.
const WARN: SignedDuration = SignedDuration::from_hours(1);

/// Recordings that expire before they can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loss {
    recordings: u64,
    /// End of the hour of the first loss.
    from: Timestamp,
}

/// Warns by a metric and in the log, about a day before the loss.
pub(super) async fn warn_of_losses(app: &App, platform: &Platform) -> Result<(), Stop> {
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
    let loss = match throughput(app, platform, &waiting).await? {
        Some(per_second) => predicted_loss(&waiting, kept, now, per_second),
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
            "recordings will be deleted at the source before they can be fetched at this rate"
        );
    }
    Ok(())
}

/// Whether the last action is at least `every` ago. If so, notes the current time for this action.
async fn is_due(app: &App, fact: &str, every: SignedDuration) -> Result<bool, Stop> {
    let now = app.now();
    let last = app.store.fact(fact).await.at(Stage::Source)?.and_then(|text| text.parse::<Timestamp>().ok());
    // The absolute difference limits the silence after a clock was set back.
    if last.is_some_and(|last| now.duration_since(last).abs() < every) {
        return Ok(false);
    }
    app.store.set_fact(fact, &now.to_string()).await.at(Stage::Source)?;
    Ok(true)
}

/// Throughput of this source in calls per second. `None` without enough data.
async fn throughput(app: &App, platform: &Platform, waiting: &[Unfetched]) -> Result<Option<f64>, Stop> {
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

/// The largest backlog at the end of any hour, with the recordings fetched in the order in which they expire.
fn predicted_loss(waiting: &[Unfetched], kept: SignedDuration, now: Timestamp, per_second: f64) -> Option<Loss> {
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

    /// `calls` calls with recordings that expire within the hour that ends `hours` hours from now.
    fn gone_after(hours: i64, calls: u64) -> Unfetched {
        let ended_from = now() + SignedDuration::from_hours(hours - 1) - KEPT;
        Unfetched { ended_from, calls, first_seen_at: now() }
    }

    fn lost(waiting: &[Unfetched], per_hour: f64) -> Option<(u64, i64)> {
        let loss = predicted_loss(waiting, KEPT, now(), per_hour / 3600.0)?;
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

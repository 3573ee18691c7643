//! A dry run of a backfill. It reads the list, writes nothing and requests no recording.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{At, Stop, backfill};
use crate::app::App;
use crate::domain::{CallStatus, RetainUntil, SourceName, Stage};
use crate::store::Orders;
use crate::wire::Window;

/// Estimated size of a recording in bytes per millisecond: 64 kbit/s.
const BYTES_PER_MS: u64 = 8;
/// The throughput of the workers is measured over this time.
const LATELY_MS: i64 = 7 * 86_400_000;

/// The expected work of a backfill.
#[derive(Debug, Clone, Serialize)]
pub struct BackfillPlan {
    pub source: SourceName,
    pub from: Timestamp,
    pub to: Timestamp,
    /// Calls that the source lists inside the window, or our own calls that match the filter.
    pub listed: u64,
    pub to_do: u64,
    pub skipped: BTreeMap<String, u64>,
    pub audio_hours: f64,
    pub bytes_estimated: u64,
    /// Requests to the platform: one per call, and the pages of the list.
    pub platform_requests: u64,
    /// Estimated with the requested rate, else with the best recent minute of the workers. `None` if neither is known.
    pub estimated_minutes: Option<f64>,
    /// Upper limit of the minutes for speech engines. Calls with text from the platform need none.
    pub speech_minutes_at_most: f64,
    /// Cost of those minutes; `None` if no engine has a price.
    pub speech_cost: Option<f64>,
    /// Recordings that the source is expected to delete within a day.
    pub expiring_within_a_day: u64,
}

/// Reads the list and estimates the work. Changes nothing.
pub async fn plan(
    app: &App,
    source: &SourceName,
    (from, to): (Timestamp, Timestamp),
    again: bool,
    orders: Orders,
) -> Result<BackfillPlan, Stop> {
    let mut plan = BackfillPlan {
        source: source.clone(),
        from,
        to,
        listed: 0,
        to_do: 0,
        skipped: BTreeMap::new(),
        audio_hours: 0.0,
        bytes_estimated: 0,
        platform_requests: 0,
        estimated_minutes: None,
        speech_minutes_at_most: 0.0,
        speech_cost: None,
        expiring_within_a_day: 0,
    };
    let audio_ms = match orders.only {
        Some(only) => {
            let (count, ms) = app.store.count_of_ours(source, (from, to), only).await.at(Stage::Backfill)?;
            (plan.listed, plan.to_do) = (count, count);
            ms
        }
        None => look_through(app, &mut plan, again).await?,
    };
    plan.platform_requests += plan.to_do;
    plan.audio_hours = audio_ms as f64 / 3_600_000.0;
    plan.speech_minutes_at_most = audio_ms as f64 / 60_000.0;
    plan.bytes_estimated = audio_ms * BYTES_PER_MS;
    let best = app.store.ended_by_minute(app.now(), LATELY_MS).await.at(Stage::Backfill)?.into_values().max();
    let rate = orders.rate_per_minute.map(u64::from).or(best);
    plan.estimated_minutes = rate.filter(|rate| *rate > 0).map(|rate| plan.to_do as f64 / rate as f64);
    Ok(plan)
}

async fn look_through(app: &App, plan: &mut BackfillPlan, again: bool) -> Result<u64, Stop> {
    let Some(platform) = app.platform(&plan.source) else {
        return Err(Stop::permanent(format!("source `{}` is not in the configuration", plan.source)));
    };
    let (now, term) = (app.now(), app.config.retention_term(&plan.source));
    let mut walk = platform.source.walk(Window { from: plan.from, to: plan.to });
    let mut audio_ms = 0;
    while let Some(calls) = walk.next().await.at(Stage::Backfill)? {
        let ids: Vec<&str> = calls.iter().map(|call| call.id.as_str()).collect();
        let known = app.store.known(&plan.source, &ids).await.at(Stage::Backfill)?;
        let unreadable = walk.unreadable().len() as u64;
        if unreadable > 0 {
            plan.listed += unreadable;
            *plan.skipped.entry("unreadable".to_owned()).or_default() += unreadable;
        }
        for call in &calls {
            if walk.came_before(&call.id) {
                // A previous page counted the call as not completed.
                plan.listed = plan.listed.saturating_sub(1);
                backfill::take_back(&mut plan.skipped, "not_completed");
            }
            plan.listed += 1;
            let known = known.get(call.id.as_str());
            let settled = known.and_then(|known| backfill::settled(known, call, app.now()));
            let skipped = match settled {
                _ if call.status != CallStatus::Completed => Some("not_completed"),
                Some(outcome) if !again || !backfill::repeatable(outcome) => Some(outcome.as_str()),
                None if call.opt_out => Some("opted_out"),
                None if RetainUntil::of(call, now, term).at <= now => Some("past_retention"),
                None if !call.eligible() => Some("not_eligible"),
                _ => None,
            };
            if let Some(reason) = skipped {
                *plan.skipped.entry(reason.to_owned()).or_default() += 1;
                continue;
            }
            plan.to_do += 1;
            audio_ms += call.duration_ms.unwrap_or(0);
            let ended = call.ended_at.or(call.created_at);
            let gone = ended.zip(platform.settings.recordings_kept).and_then(|(at, kept)| at.checked_add(kept.0).ok());
            plan.expiring_within_a_day +=
                u64::from(gone.is_some_and(|gone| gone.duration_since(now) < SignedDuration::from_hours(24)));
        }
    }
    plan.platform_requests = walk.pages();
    Ok(audio_ms)
}

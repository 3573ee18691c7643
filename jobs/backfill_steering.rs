//! What a person wants of a running backfill: run, pause or end, and at what rate.

use std::time::Duration;

use super::capacity_warning::warn_of_losses;
use super::{At, Stop};
use crate::app::App;
use crate::domain::Stage;
use crate::store::{Backfill, Steering};

/// Snooze of a paused backfill.
pub(super) const PAUSED_REST: Duration = Duration::from_secs(5);

/// Reads a person's current steering and rate. Snoozes if the backfill is paused.
pub(super) async fn obey(app: &App, backfill: &mut Backfill) -> Result<Steering, Stop> {
    if let Some(now) = app.store.backfill(&backfill.id).await.at(Stage::Backfill)? {
        backfill.steering = now.steering;
        if backfill.orders.rate_per_minute != now.orders.rate_per_minute {
            // The new rate applies from now. The delay of the old rate ends.
            (backfill.orders.rate_per_minute, backfill.next_feed_at) = (now.orders.rate_per_minute, None);
        }
    }
    match backfill.steering {
        Steering::Paused => {
            // The source deletes recordings during a pause too.
            look_ahead(app, backfill).await?;
            Err(Stop::Snooze { after: PAUSED_REST })
        }
        steering => Ok(steering),
    }
}

/// Warns of recordings that the source will delete before this backfill reaches them.
pub(super) async fn look_ahead(app: &App, backfill: &Backfill) -> Result<(), Stop> {
    match app.platform(&backfill.source) {
        Some(platform) => warn_of_losses(app, platform).await,
        None => Ok(()),
    }
}

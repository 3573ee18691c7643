//! Dropouts: short digital silence inside sound.

use std::collections::VecDeque;
use std::ops::Range;

/// A grain is 1 ms.
pub(super) const GRAINS_PER_SECOND: usize = 1000;
/// Peaks below which a grain is silent and above which it is loud.
const GRAIN_SILENT: f32 = 3e-5;
const GRAIN_LOUD: f32 = 0.01;
/// A silence is a dropout only with sound within this many grains before and after it. Speech fades.
const EDGE_GRAINS: u32 = 5;
/// A gap of 20 ms holds at least 19 complete grains. A gap beyond 2 s is a pause.
const DROPOUT_GRAINS: std::ops::RangeInclusive<u32> = 19..=2_000;

/// Finds digital silence inside sound.
#[derive(Debug, Clone, Default)]
pub(super) struct Dropouts {
    since_loud: u32,
    /// Grains of the current silence.
    silent: u32,
    /// A silence that may be a dropout and waits for sound: its grains, and the grains since its end.
    waiting: Option<(u32, u32)>,
    armed: bool,
    pub(super) count: u32,
    /// Grains so far, and grains in dropouts.
    grains: u64,
    pub(super) total: u64,
    /// Pauses by the encoder, from and to in grains.
    meant: VecDeque<(u64, u64)>,
}

impl Dropouts {
    pub(super) fn grain(&mut self, peak: f32) {
        if peak < GRAIN_SILENT {
            if self.silent == 0 {
                self.armed = self.since_loud <= EDGE_GRAINS && self.grains > 0;
                self.waiting = None;
            }
            self.silent += 1;
        } else {
            if self.silent > 0 && self.armed && DROPOUT_GRAINS.contains(&self.silent) && !self.was_meant() {
                self.waiting = Some((self.silent, 0));
            }
            self.silent = 0;
        }
        self.since_loud = if peak >= GRAIN_LOUD { 0 } else { self.since_loud.saturating_add(1) };
        if let Some((grains, since)) = self.waiting {
            if peak >= GRAIN_LOUD {
                self.count += 1;
                self.lost(grains);
            } else if since >= EDGE_GRAINS {
                self.waiting = None;
            } else {
                self.waiting = Some((grains, since + 1));
            }
        }
        self.grains += 1;
    }

    /// Whether the silence that ends here is a pause by the encoder.
    fn was_meant(&self) -> bool {
        let start = self.grains - u64::from(self.silent);
        self.meant.iter().any(|&(from, to)| from < self.grains && start < to)
    }

    pub(super) fn pause(&mut self, seconds: &Range<f64>) {
        let grain = |seconds: f64| (seconds * GRAINS_PER_SECOND as f64) as u64;
        // Pauses further back than the longest dropout are not needed.
        let past = |to: u64, grains: u64| to + u64::from(*DROPOUT_GRAINS.end()) < grains;
        while self.meant.front().is_some_and(|&(_, to)| past(to, self.grains)) {
            self.meant.pop_front();
        }
        self.meant.push_back((grain(seconds.start), grain(seconds.end)));
    }

    fn lost(&mut self, grains: u32) {
        self.total += u64::from(grains);
        self.waiting = None;
    }
}

//! Diarization error rate (NIST Rich Transcription evaluation plan, 2009). Overlap is scored.

use crate::domain::transcript::Turn;

/// Speaker time in error by kind, and total speaker time of the reference, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiarizationError {
    pub missed_ms: u64,
    pub false_ms: u64,
    pub confused_ms: u64,
    pub total_ms: u64,
}

impl DiarizationError {
    /// Error as a share of the reference's speaker time. `None` if the reference has no speech.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        let wrong = self.missed_ms + self.false_ms + self.confused_ms;
        (self.total_ms > 0).then(|| wrong as f64 / self.total_ms as f64)
    }

    pub fn add(&mut self, other: &Self) {
        self.missed_ms += other.missed_ms;
        self.false_ms += other.false_ms;
        self.confused_ms += other.confused_ms;
        self.total_ms += other.total_ms;
    }
}

/// Time resolution of the comparison in milliseconds.
const STEP_MS: u64 = 10;
/// Speakers that are mapped; further ones count as the last.
const MOST: usize = 6;

/// Compares found turns with the reference. `collar_ms` around every boundary of the reference is not scored.
/// Speakers are mapped one to one with the smallest error.
#[must_use]
pub fn diarization(reference: &[Turn], found: &[Turn], collar_ms: u64) -> DiarizationError {
    let end = reference.iter().chain(found).map(|turn| turn.end_ms).max().unwrap_or(0);
    let steps = end.div_ceil(STEP_MS) as usize;
    let mut scored = vec![true; steps];
    if collar_ms > 0 {
        for edge in reference.iter().flat_map(|turn| [turn.start_ms, turn.end_ms]) {
            let from = (edge.saturating_sub(collar_ms) / STEP_MS) as usize;
            let to = ((edge + collar_ms) / STEP_MS) as usize;
            scored[from.min(steps)..to.min(steps)].fill(false);
        }
    }
    let (truth, ours) = (grid(reference, steps), grid(found, steps));
    let mut both = [[0_u64; MOST]; MOST];
    let mut error = DiarizationError::default();
    let mut agreed = 0;
    for at in (0..steps).filter(|at| scored[*at]) {
        let (is, said) = (truth[at].count_ones(), ours[at].count_ones());
        error.total_ms += u64::from(is) * STEP_MS;
        error.missed_ms += u64::from(is.saturating_sub(said)) * STEP_MS;
        error.false_ms += u64::from(said.saturating_sub(is)) * STEP_MS;
        agreed += u64::from(is.min(said)) * STEP_MS;
        for (n, row) in both.iter_mut().enumerate() {
            for (m, time) in row.iter_mut().enumerate() {
                *time += STEP_MS * u64::from(truth[at] >> n & ours[at] >> m & 1);
            }
        }
    }
    error.confused_ms = agreed - best(&both, 0, 0).min(agreed);
    error
}

/// One bit per speaker for every step.
fn grid(turns: &[Turn], steps: usize) -> Vec<u8> {
    let mut grid = vec![0_u8; steps];
    for turn in turns {
        let (from, to) = ((turn.start_ms / STEP_MS) as usize, (turn.end_ms / STEP_MS) as usize);
        for step in &mut grid[from.min(steps)..to.min(steps)] {
            *step |= 1 << (turn.speaker as usize).min(MOST - 1);
        }
    }
    grid
}

/// The largest common time of a one-to-one mapping of the speakers from `row` on. Six by six speakers have 720
/// mappings.
fn best(both: &[[u64; MOST]; MOST], row: usize, taken: u8) -> u64 {
    if row == MOST {
        return 0;
    }
    let free = (0..MOST).filter(|column| taken >> column & 1 == 0);
    free.map(|column| both[row][column] + best(both, row + 1, taken | 1 << column)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn segment(speaker: u32, start_ms: u64, end_ms: u64) -> Turn {
        Turn { speaker, start_ms, end_ms }
    }

    #[test]
    fn each_kind_of_error_is_counted_once() {
        let truth = [segment(0, 0, 1_000), segment(1, 1_000, 2_000), segment(0, 1_500, 2_000)];
        // Different names are no error. One second goes to the wrong speaker, overlap is missed, and 500 ms are
        // invented.
        let found = [segment(3, 0, 1_000), segment(3, 1_000, 1_500), segment(2, 1_500, 2_500)];
        let error = diarization(&truth, &found, 0);
        assert_eq!(error, DiarizationError { missed_ms: 500, false_ms: 500, confused_ms: 500, total_ms: 2_500 });
        assert!((error.rate().unwrap() - 0.6).abs() < 1e-9);
    }

    #[test]
    fn a_collar_forgives_boundaries_and_nothing_else() {
        let truth = [segment(0, 1_000, 3_000)];
        assert_eq!(diarization(&truth, &[segment(0, 800, 3_200)], 250).rate(), Some(0.0));
        assert_eq!(diarization(&truth, &[segment(0, 1_000, 2_000)], 250).missed_ms, 750);
        assert_eq!(diarization(&[], &[segment(0, 0, 500)], 250).rate(), None);
    }
}

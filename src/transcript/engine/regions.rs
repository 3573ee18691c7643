//! Segments of a leg for the recognition. Each contains speech, fits the network, and is cut at a pause if possible.

use super::features::RATE_HZ;
use crate::domain::Segment;

/// The longest segment for a network.
const LONGEST_MS: u64 = 30_000;
/// Speech regions closer than this are joined.
const JOINED_MS: u64 = 300;
/// Added on both sides, so that the first sound is complete. More silence would shift the segment's statistics.
const MARGIN_MS: u64 = 300;
/// A segment that is too long is cut at its quietest interval of this length, in the second half of the possible
/// length.
const PAUSE_MS: u64 = 100;

/// The segments of one leg, in milliseconds from its start. `speech` must be ordered and must not overlap.
#[must_use]
pub fn segments(speech: &[Segment], duration_ms: u64, mut quietest: impl FnMut(Segment) -> u64) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for region in speech.iter().filter(|region| !region.is_empty()) {
        match joined.last_mut() {
            Some(open)
                if region.start_ms < open.end_ms + JOINED_MS && region.end_ms - open.start_ms <= LONGEST_MS / 2 =>
            {
                open.end_ms = open.end_ms.max(region.end_ms);
            }
            _ => joined.push(*region),
        }
    }
    let mut all = Vec::new();
    for (index, region) in joined.iter().enumerate() {
        // Each side gets half of a gap, so that no audio is recognised twice.
        let before = index.checked_sub(1).map_or(0, |i| joined[i].end_ms.midpoint(region.start_ms));
        let after = joined.get(index + 1).map_or(duration_ms, |next| region.end_ms.midpoint(next.start_ms));
        let mut from = region.start_ms.saturating_sub(MARGIN_MS).max(before.min(region.start_ms));
        let to = (region.end_ms + MARGIN_MS).min(after.max(region.end_ms));
        while to - from > LONGEST_MS {
            let cut = quietest(Segment::new(from + LONGEST_MS / 2, from + LONGEST_MS));
            let cut = cut.clamp(from + LONGEST_MS / 2, from + LONGEST_MS);
            all.push(Segment::new(from, cut));
            from = cut;
        }
        all.push(Segment::new(from, to));
    }
    all
}

/// Middle of the quietest 100 ms of these samples, in milliseconds from their start.
#[must_use]
pub fn quietest(samples: &[f32]) -> u64 {
    let window = (PAUSE_MS * u64::from(RATE_HZ) / 1000) as usize;
    let energy = |block: &[f32]| block.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let quiet = samples.chunks_exact(window).enumerate().min_by(|a, b| energy(a.1).total_cmp(&energy(b.1)));
    quiet.map_or(0, |(index, _)| index as u64 * PAUSE_MS + PAUSE_MS / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_speech_is_joined_and_gaps_are_shared() {
        let planned = segments(
            &[
                Segment::new(1_000, 2_000),
                Segment::new(2_200, 3_000),
                Segment::new(3_400, 4_000),
                Segment::new(9_000, 9_500),
            ],
            10_000,
            |_| 0,
        );
        assert_eq!(planned, [Segment::new(700, 3_200), Segment::new(3_200, 4_300), Segment::new(8_700, 9_800)]);
    }

    #[test]
    fn a_monologue_is_cut_at_its_pauses_and_covered_whole() {
        let planned = segments(&[Segment::new(0, 2_400_000)], 2_400_000, |span| span.start_ms + 7_000);
        assert_eq!((planned[0].start_ms, planned.last().unwrap().end_ms), (0, 2_400_000));
        assert!(planned.windows(2).all(|pair| pair[0].end_ms == pair[1].start_ms));
        assert!(planned.iter().all(|span| span.duration_ms() <= LONGEST_MS));
        // A wrong result of the function cannot cause an endless loop.
        assert!(segments(&[Segment::new(0, 100_000)], 100_000, |_| 0).len() < 10);
    }

    #[test]
    fn the_pause_is_found() {
        let mut samples = vec![0.5f32; 32_000];
        samples[16_000..17_600].fill(0.0);
        assert_eq!(quietest(&samples), 1_050);
    }
}

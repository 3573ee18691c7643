//! Segments of a leg for the recognition. Each contains speech, fits the network, and is cut at a pause if possible.

use std::ops::Range;

use super::features::RATE_HZ;

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
pub fn segments(
    speech: &[Range<u64>],
    duration_ms: u64,
    mut quietest: impl FnMut(Range<u64>) -> u64,
) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for region in speech.iter().filter(|region| region.start < region.end) {
        match joined.last_mut() {
            Some(open) if region.start < open.end + JOINED_MS && region.end - open.start <= LONGEST_MS / 2 => {
                open.end = open.end.max(region.end);
            }
            _ => joined.push(region.clone()),
        }
    }
    let mut all = Vec::new();
    for (index, region) in joined.iter().enumerate() {
        // Each side gets half of a gap, so that no audio is recognised twice.
        let before = index.checked_sub(1).map_or(0, |i| joined[i].end.midpoint(region.start));
        let after = joined.get(index + 1).map_or(duration_ms, |next| region.end.midpoint(next.start));
        let mut from = region.start.saturating_sub(MARGIN_MS).max(before.min(region.start));
        let to = (region.end + MARGIN_MS).min(after.max(region.end));
        while to - from > LONGEST_MS {
            let cut = quietest(from + LONGEST_MS / 2..from + LONGEST_MS);
            let cut = cut.clamp(from + LONGEST_MS / 2, from + LONGEST_MS);
            all.push(from..cut);
            from = cut;
        }
        all.push(from..to);
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
        let planned = segments(&[1_000..2_000, 2_200..3_000, 3_400..4_000, 9_000..9_500], 10_000, |_| 0);
        assert_eq!(planned, [700..3_200, 3_200..4_300, 8_700..9_800]);
    }

    #[test]
    fn a_monologue_is_cut_at_its_pauses_and_covered_whole() {
        let planned = segments(std::slice::from_ref(&(0..2_400_000)), 2_400_000, |span| span.start + 7_000);
        assert_eq!((planned[0].start, planned.last().unwrap().end), (0, 2_400_000));
        assert!(planned.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(planned.iter().all(|span| span.end - span.start <= LONGEST_MS));
        // A wrong result of the function cannot cause an endless loop.
        assert!(segments(std::slice::from_ref(&(0..100_000)), 100_000, |_| 0).len() < 10);
    }

    #[test]
    fn the_pause_is_found() {
        let mut samples = vec![0.5f32; 32_000];
        samples[16_000..17_600].fill(0.0);
        assert_eq!(quietest(&samples), 1_050);
    }
}

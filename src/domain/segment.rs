//! Segments of time: overlap, distance, difference and union.

/// A segment of the recording, milliseconds from its start. The end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    pub start_ms: u64,
    pub end_ms: u64,
}

impl Segment {
    #[must_use]
    pub const fn new(start_ms: u64, end_ms: u64) -> Self {
        Self { start_ms, end_ms }
    }

    #[must_use]
    pub const fn duration_ms(&self) -> u64 {
        self.end_ms.saturating_sub(self.start_ms)
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end_ms <= self.start_ms
    }

    #[must_use]
    pub const fn contains(&self, at_ms: u64) -> bool {
        self.start_ms <= at_ms && at_ms < self.end_ms
    }

    /// The common part of two segments.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> Option<Self> {
        let common = Self::new(self.start_ms.max(other.start_ms), self.end_ms.min(other.end_ms));
        (!common.is_empty()).then_some(common)
    }

    /// Duration of the common part of two segments.
    #[must_use]
    pub fn overlap_ms(&self, other: &Self) -> u64 {
        self.overlap(other).map_or(0, |common| common.duration_ms())
    }

    /// Time between two segments. It is 0 where they overlap or touch.
    #[must_use]
    pub fn distance_ms(&self, other: &Self) -> u64 {
        self.start_ms.saturating_sub(other.end_ms).max(other.start_ms.saturating_sub(self.end_ms))
    }

    /// The parts outside of another segment.
    fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let before = Self::new(self.start_ms, self.end_ms.min(other.start_ms));
        let after = Self::new(self.start_ms.max(other.end_ms), self.end_ms);
        [before, after].into_iter().filter(|part| !part.is_empty())
    }
}

/// The parts of the segments that lie outside of all the others.
#[must_use]
pub fn without(segments: Vec<Segment>, others: impl IntoIterator<Item = Segment>) -> Vec<Segment> {
    others.into_iter().fold(segments, |left, other| left.into_iter().flat_map(|part| part.without(other)).collect())
}

/// The union of the segments, sorted. Segments that overlap or touch become one.
#[must_use]
pub fn joined(mut segments: Vec<Segment>) -> Vec<Segment> {
    segments.sort_unstable();
    let mut joined: Vec<Segment> = Vec::new();
    for segment in segments {
        match joined.last_mut() {
            Some(open) if segment.start_ms <= open.end_ms => open.end_ms = open.end_ms.max(segment.end_ms),
            _ => joined.push(segment),
        }
    }
    joined
}

/// Sum of the durations.
#[must_use]
pub fn total_ms(segments: &[Segment]) -> u64 {
    segments.iter().map(Segment::duration_ms).sum()
}

/// Sum of the overlaps of each segment of one list with each of the other.
#[must_use]
pub fn common_ms(a: &[Segment], b: &[Segment]) -> u64 {
    a.iter().map(|one| b.iter().map(|other| one.overlap_ms(other)).sum::<u64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn segment(start_ms: u64, end_ms: u64) -> Segment {
        Segment::new(start_ms, end_ms)
    }

    #[test]
    fn two_segments_overlap_or_lie_apart() {
        let long = segment(100, 500);
        assert_eq!(long.overlap(&segment(400, 900)), Some(segment(400, 500)));
        assert_eq!((long.overlap_ms(&segment(0, 1_000)), long.distance_ms(&segment(400, 900))), (400, 0));
        for (other, distance_ms) in [(segment(500, 600), 0), (segment(700, 800), 200), (segment(0, 60), 40)] {
            assert_eq!((long.overlap(&other), long.overlap_ms(&other)), (None, 0), "{other:?}");
            assert_eq!((long.distance_ms(&other), other.distance_ms(&long)), (distance_ms, distance_ms), "{other:?}");
        }
        assert!(long.contains(100) && long.contains(499) && !long.contains(500));
    }

    #[test]
    fn others_are_cut_out() {
        let left = without(vec![segment(0, 100), segment(200, 300)], [segment(50, 60), segment(90, 210)]);
        assert_eq!(left, [segment(0, 50), segment(60, 90), segment(210, 300)]);
        let left = without(vec![segment(0, 10), segment(20, 30)], [segment(5, 25)]);
        assert_eq!(left, [segment(0, 5), segment(25, 30)]);
        assert!(without(vec![segment(10, 20)], [segment(0, 30)]).is_empty());
        assert!(without(vec![segment(0, 10)], [segment(0, 10)]).is_empty());
    }

    #[test]
    fn segments_that_touch_become_one() {
        let joined = joined(vec![segment(50, 90), segment(0, 40), segment(40, 45), segment(60, 70)]);
        assert_eq!(joined, [segment(0, 45), segment(50, 90)]);
        assert_eq!((total_ms(&joined), common_ms(&joined, &[segment(30, 60)])), (85, 25));
    }
}

//! Places the pages of a stream in time. The packets give the length of the stream. The pages also give granule
//! positions. Some writers write a third of the position, the double, milliseconds, or nothing. A position counts as a
//! gap or as end padding only where the stream's other pages agree with their packets.

/// Positions may be rounded: a difference below this share of a second is ignored.
const ROUNDING: i64 = 100;
/// Longest gap before a page, seconds. A longer one is a broken position. The last page, which no other page confirms,
/// has a lower limit.
const MOST_LEFT_OUT: i64 = 3600;
const MOST_LEFT_OUT_LAST: i64 = 10;
/// An encoder may leave its delay out of all positions: up to the longest packet of Opus.
const MOST_DELAY_MS: i64 = 120;

/// Granule position at the end of a page, and samples of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub granule: Option<i64>,
    pub held: i64,
    /// Samples of its longest packet.
    pub longest: i64,
    /// A pause packet is on this page or right before it. A gap is possible there.
    pub paused: bool,
}

/// Counts how the pages of a stream agree with their packets.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    rate_hz: i64,
    /// The last known position, and samples of the packets since.
    previous: Option<i64>,
    held: i64,
    pages: u64,
    /// Pages that advance by less than their packets. The last page may be shortened by padding and is counted apart.
    short: u64,
    last_is_short: bool,
    /// Pages that advance by their packets' length or up to a quarter more, in hundredths.
    close: [u64; 26],
}

impl Tally {
    pub(super) const fn new(rate_hz: u32) -> Self {
        Self {
            rate_hz: rate_hz as i64,
            previous: None,
            held: 0,
            pages: 0,
            short: 0,
            last_is_short: false,
            close: [0; 26],
        }
    }

    /// Adds the next page.
    pub(super) fn page(&mut self, mark: Mark) {
        self.held = self.held.saturating_add(mark.held);
        let Some(granule) = mark.granule else { return };
        let held = std::mem::take(&mut self.held);
        // The first page only shows whether the stream began at zero. It may have begun long before.
        let (from, first) = (self.previous.unwrap_or(0), self.previous.is_none());
        self.previous = Some(granule);
        let more = granule.saturating_sub(from).saturating_sub(held);
        // A page may be as short as a packet. Then even a small difference counts.
        let exact = more.saturating_abs() <= (held / 100).max(self.rate_hz / 800).min(self.rate_hz / ROUNDING);
        let says_nothing = (first && more >= -(self.rate_hz * MOST_DELAY_MS / 1000)) || (mark.paused && more > 0);
        if held == 0 || (!exact && says_nothing) {
            return;
        }
        self.short += u64::from(std::mem::take(&mut self.last_is_short));
        self.pages += 1;
        if exact {
            self.close[0] += 1;
        } else if more < 0 {
            self.last_is_short = true;
        } else if let Some(close) = self.close.get_mut((more / (held / 100).max(1)) as usize) {
            *close += 1;
        }
    }

    /// Whether the positions match the packets. At most an eighth of the pages may advance by less than their packets,
    /// and at least an eighth must be close. When most pages are too long by the same share, the positions use another
    /// unit.
    pub(super) fn agrees(&self) -> bool {
        let pages = self.pages - u64::from(self.last_is_short);
        let close: u64 = self.close.iter().sum();
        let scaled = self.close[1..].iter().any(|&alike| alike * 2 > pages);
        pages > 0 && self.short * 8 <= pages && close * 8 >= pages && !scaled
    }

    /// No page except the last gave a comparable position.
    const fn is_silent(&self) -> bool {
        self.pages == self.last_is_short as u64
    }
}

/// The timeline of one stream, page by page.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    tally: Tally,
    /// Position at the end of the output so far. `None` before the first known position.
    position: Option<i64>,
    /// The last rejected position, advanced by the packets since.
    doubted: Option<i64>,
    /// Pages with a position, and samples of all packets.
    known: u64,
    held: i64,
}

impl Clock {
    pub(super) const fn new(rate_hz: u32) -> Self {
        Self { tally: Tally::new(rate_hz), position: None, doubted: None, known: 0, held: 0 }
    }

    /// Adds the next page. Returns the samples of the gap before its packets. `following` is the page after it.
    /// `agrees` checks all pages of the stream and is called only when a page shows a gap.
    pub(super) fn page(&mut self, mark: Mark, following: Option<Mark>, agrees: impl FnOnce() -> bool) -> i64 {
        self.tally.page(mark);
        self.known += u64::from(mark.granule.is_some());
        self.held = self.held.saturating_add(mark.held);
        let expected = self.position.map(|position| position.saturating_add(mark.held));
        let doubted = self.doubted.take().map(|doubted| doubted.saturating_add(mark.held));
        self.position = expected;
        let Some(granule) = mark.granule else {
            self.doubted = doubted;
            return 0;
        };
        let Some(expected) = expected else {
            self.position = Some(granule);
            return 0;
        };
        let left_out = granule.saturating_sub(expected);
        if self.alike(left_out) {
            return 0;
        }
        // A second page that continues from a rejected position: the writer changed its clock.
        if doubted.is_some_and(|doubted| self.alike(granule.saturating_sub(doubted))) {
            self.position = Some(granule);
            return 0;
        }
        let following = following.filter(|next| next.granule.is_some());
        let most = if following.is_some() { MOST_LEFT_OUT } else { MOST_LEFT_OUT_LAST };
        let believed = doubted.is_none()
            && (0..=most * self.tally.rate_hz).contains(&left_out)
            && !following.is_some_and(|next| self.takes_back(expected, next))
            && agrees();
        if believed {
            self.position = Some(granule);
            return left_out;
        }
        self.doubted = Some(granule);
        0
    }

    /// Samples to cut at the end, where `mark` is the last page: at most the samples of its packets (RFC 7845 section
    /// 4.4). Call it after [`Self::page`].
    pub(super) fn padding(&self, mark: Mark) -> i64 {
        let Some(granule) = mark.granule else { return 0 };
        // Without other pages to compare, only the last packet may hold padding.
        let (end, most) = match self.position {
            // The only page of a stream gives its length.
            _ if self.known == 1 => (self.held, mark.longest),
            Some(position) if self.tally.agrees() => (position, mark.held),
            Some(position) if self.tally.is_silent() => (position, mark.longest),
            _ => return 0,
        };
        let padding = end.saturating_sub(granule);
        if (0..=most).contains(&padding) { padding } else { 0 }
    }

    /// Samples missing at the end, when a cut-off page ends at this position.
    pub(super) fn missing(&self, granule: i64) -> i64 {
        let missing = self.position.map_or(0, |position| granule.saturating_sub(position));
        if self.tally.agrees() && (0..=MOST_LEFT_OUT * self.tally.rate_hz).contains(&missing) { missing } else { 0 }
    }

    /// Whether the next page is where the packets alone lead.
    fn takes_back(&self, expected: i64, next: Mark) -> bool {
        next.granule.is_some_and(|granule| self.alike(granule.saturating_sub(expected.saturating_add(next.held))))
    }

    const fn alike(&self, difference: i64) -> bool {
        difference.saturating_abs() <= self.tally.rate_hz / ROUNDING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 48_000;

    /// Plays pages of one second. Returns the gap before each page, and the padding at the end.
    fn play(marks: &[Mark]) -> (Vec<i64>, i64) {
        let mut tally = Tally::new(48_000);
        for mark in marks {
            tally.page(*mark);
        }
        let mut clock = Clock::new(48_000);
        let left_out =
            (0..marks.len()).map(|n| clock.page(marks[n], marks.get(n + 1).copied(), || tally.agrees())).collect();
        (left_out, marks.last().map_or(0, |last| clock.padding(*last)))
    }

    const fn page(granule: Option<i64>) -> Mark {
        Mark { granule, held: SECOND, longest: 960, paused: false }
    }

    fn marks(granules: impl IntoIterator<Item = i64>) -> Vec<Mark> {
        granules.into_iter().map(|granule| page(Some(granule))).collect()
    }

    fn seconds(last: i64) -> impl Iterator<Item = i64> {
        (1..=last).map(|n| n * SECOND)
    }

    #[test]
    fn positions_that_are_not_those_of_the_packets_change_nothing() {
        let cases: Vec<(&str, Vec<Mark>)> = vec![
            ("a third", marks(seconds(12).map(|at| at / 3))),
            ("zero", marks(seconds(12).map(|_| 0))),
            ("constant", marks(seconds(12).map(|_| 7 * SECOND))),
            ("doubled", marks(seconds(12).map(|at| at * 2))),
            ("of another rate", marks(seconds(12).map(|at| at * 480 / 441))),
            ("milliseconds", marks(seconds(12).map(|at| at / 48))),
            ("microseconds", marks(seconds(12).map(|at| at / 48 * 1000))),
            ("decreasing", marks(seconds(12).map(|at| 12 * SECOND - at))),
            ("huge", marks(seconds(12).map(|at| (1 << 62) + at * 1000))),
            ("a late start", marks(seconds(12).map(|at| at + 60 * SECOND))),
            ("a third of two", marks(seconds(2).map(|at| at / 3))),
            ("double of two", marks(seconds(2).map(|at| at * 2))),
            ("a third of one", marks([SECOND / 3])),
            ("zero of one", marks([0])),
            ("one that is huge", marks(seconds(12).map(|at| if at == 5 * SECOND { 1 << 62 } else { at }))),
            (
                "one that is ten minutes off",
                marks(seconds(12).map(|at| at + if at == 5 * SECOND { 600 * SECOND } else { 0 })),
            ),
            ("one zero", marks(seconds(12).map(|at| if at == 5 * SECOND { 0 } else { at }))),
            ("a zero at the end", marks(seconds(12).map(|at| if at == 12 * SECOND { 0 } else { at }))),
            ("zeros, then right", marks(seconds(12).map(|at| if at < 6 * SECOND { 0 } else { at }))),
            ("right, then zeros", marks(seconds(12).map(|at| if at < 6 * SECOND { at } else { 0 }))),
            ("set back to zero", marks(seconds(12).map(|at| if at > 6 * SECOND { at - 6 * SECOND } else { at }))),
            ("none", vec![page(None); 12]),
        ];
        for (name, marks) in cases {
            let (left_out, padding) = play(&marks);
            assert!(left_out.iter().all(|&samples| samples == 0) && padding == 0, "{name}: {left_out:?} {padding}");
        }
    }

    #[test]
    fn time_left_out_stays_where_the_other_pages_agree() {
        let gap = |at: i64, more: i64| at + if at > 5 * SECOND { more } else { 0 };
        let (left_out, _) = play(&marks(seconds(12).map(|at| gap(at, 2 * SECOND))));
        assert_eq!(left_out, [0, 0, 0, 0, 0, 2 * SECOND, 0, 0, 0, 0, 0, 0]);
        // The stream began long before, and some pages have no position.
        let mut late = marks(seconds(12).map(|at| gap(at, 2 * SECOND) + 3600 * SECOND));
        late[2].granule = None;
        late[5].granule = None;
        assert_eq!(play(&late).0.iter().sum::<i64>(), 2 * SECOND);
        // Packets are lost throughout: every page is too long by a different share.
        let lost = [960, 4_800, 1_920, 3_840, 2_880, 7_680, 960, 5_760, 1_920, 2_880, 960, 3_840];
        let mut at = 0;
        let granules = lost.map(|lost| {
            at += SECOND + lost;
            at
        });
        assert_eq!(play(&marks(granules)).0.iter().sum::<i64>(), at - granules[0] - 11 * SECOND);
        // Two pages, the second one late.
        assert_eq!(play(&marks([SECOND, 4 * SECOND])).0, [0, 2 * SECOND]);
        let hours = 9_000 * SECOND;
        assert_eq!(play(&marks([SECOND, 2 * SECOND, hours, hours + SECOND])).0, [0; 4], "hours are no pause");
        assert_eq!(play(&marks([SECOND, 2 * SECOND, 30 * SECOND])).0, [0; 3], "nothing confirms the last page");
        // Packets of 20 ms on pages of their own, nearly all next to a pause of 380 ms.
        let (mut at, mut silent) = (0, Vec::new());
        for n in 0..40 {
            at += if n % 2 == 1 { 960 } else { 960 + 18_240 };
            silent.push(Mark { granule: Some(at), held: 960, longest: 960, paused: n > 0 });
        }
        assert_eq!(play(&silent).0.iter().sum::<i64>(), 19 * 18_240);
    }

    #[test]
    fn the_last_page_cuts_off_what_its_own_packets_hold() {
        for padding in [100, 648, SECOND / 2, SECOND] {
            let granules = seconds(12).map(|at| if at == 12 * SECOND { at - padding } else { at });
            assert_eq!(play(&marks(granules)).1, padding);
        }
        assert_eq!(play(&marks([SECOND - 648])).1, 648, "the only page");
        assert_eq!(play(&marks([61 * SECOND, 62 * SECOND - 648])).1, 648, "nothing to compare with");
        assert_eq!(play(&marks([61 * SECOND, 61 * SECOND + 100])).1, 0, "nothing to compare with");
    }
}

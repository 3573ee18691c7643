//! Scale factor bands (ISO/IEC 11172-3 table B.8, ISO/IEC 13818-3 table B.2; MPEG 2.5 by what encoders do).

use std::ops::Range;

pub const LONG_BANDS: usize = 22;
pub const SHORT_BANDS: usize = 13;
/// Lines of the spectrum of a granule.
pub const LINES: usize = 576;
/// In a mixed block the lines below this are a long block's.
pub const MIXED_LINES: usize = 36;

/// Widths of the bands at one rate: of long blocks, and of each of the three windows of short ones.
#[derive(Debug)]
pub struct Bands {
    long: [u8; LONG_BANDS],
    short: [u8; SHORT_BANDS],
    /// How many long bands a mixed block begins with; none where no encoder ever said.
    pub mixed: Option<usize>,
}

const WIDTHS_22: [u8; LONG_BANDS] = [6, 6, 6, 6, 6, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 38, 46, 52, 60, 68, 58, 54];

static AT_44: Bands = Bands {
    long: [4, 4, 4, 4, 4, 4, 6, 6, 8, 8, 10, 12, 16, 20, 24, 28, 34, 42, 50, 54, 76, 158],
    short: [4, 4, 4, 4, 6, 8, 10, 12, 14, 18, 22, 30, 56],
    mixed: Some(8),
};
static AT_48: Bands = Bands {
    long: [4, 4, 4, 4, 4, 4, 6, 6, 6, 8, 10, 12, 16, 18, 22, 28, 34, 40, 46, 54, 54, 192],
    short: [4, 4, 4, 4, 6, 6, 10, 12, 14, 16, 20, 26, 66],
    mixed: Some(8),
};
static AT_32: Bands = Bands {
    long: [4, 4, 4, 4, 4, 4, 6, 6, 8, 10, 12, 16, 20, 24, 30, 38, 46, 56, 68, 84, 102, 26],
    short: [4, 4, 4, 4, 6, 8, 12, 16, 20, 26, 34, 42, 12],
    mixed: Some(8),
};
static AT_22: Bands = Bands { long: WIDTHS_22, short: [4, 4, 4, 6, 6, 8, 10, 14, 18, 26, 32, 42, 18], mixed: Some(6) };
static AT_24: Bands = Bands {
    long: [6, 6, 6, 6, 6, 6, 8, 10, 12, 14, 16, 18, 22, 26, 32, 38, 46, 54, 62, 70, 76, 36],
    short: [4, 4, 4, 6, 8, 10, 12, 14, 18, 24, 32, 44, 12],
    mixed: Some(6),
};
static AT_16: Bands = Bands { long: WIDTHS_22, short: [4, 4, 4, 6, 8, 10, 12, 14, 18, 24, 30, 40, 18], mixed: Some(6) };
static AT_8: Bands = Bands {
    long: [12, 12, 12, 12, 12, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 76, 90, 2, 2, 2, 2, 2],
    short: [8, 8, 8, 12, 16, 20, 24, 28, 36, 2, 2, 2, 26],
    mixed: None,
};

impl Bands {
    pub const fn at(rate_hz: u32) -> &'static Self {
        match rate_hz {
            44_100 => &AT_44,
            48_000 => &AT_48,
            32_000 => &AT_32,
            22_050 => &AT_22,
            24_000 => &AT_24,
            8_000 => &AT_8,
            _ => &AT_16,
        }
    }

    /// The line at which a long band begins.
    pub fn long_start(&self, band: usize) -> usize {
        self.long.iter().take(band).map(|&width| usize::from(width)).sum()
    }

    /// The long bands.
    pub fn long(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.long.iter().scan(0, |start, &width| Some(take(start, width)))
    }

    /// The short bands from this one on, as they lie in the stream: the three windows of a band one after the other.
    pub fn short(&self, first: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start: usize = self.short[..first].iter().map(|&width| 3 * usize::from(width)).sum();
        self.short[first..].iter().flat_map(|&width| [width; 3]).map(move |width| take(&mut start, width))
    }
}

fn take(start: &mut usize, width: u8) -> Range<usize> {
    let from = *start;
    *start += usize::from(width);
    from..*start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bands_cover_the_spectrum_at_every_rate() {
        for rate_hz in [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000] {
            let bands = Bands::at(rate_hz);
            assert_eq!(bands.long().last(), Some(bands.long_start(21)..LINES), "{rate_hz}");
            assert_eq!((bands.short(0).count(), bands.short(0).last().map(|band| band.end)), (39, Some(LINES)));
            if let Some(mixed) = bands.mixed {
                assert_eq!(bands.long_start(mixed), MIXED_LINES, "{rate_hz}");
                assert_eq!(bands.short(3).next().map(|band| band.start), Some(MIXED_LINES), "{rate_hz}");
            }
        }
    }
}

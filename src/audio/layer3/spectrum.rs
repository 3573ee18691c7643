//! From the bits of one channel of a granule to its spectrum: scale factors, Huffman codes, requantisation (ISO/IEC
//! 11172-3 2.4.3.4, ISO/IEC 13818-3 2.4.3.2).

use std::sync::LazyLock;

use super::Broken;
use super::bands::LINES;
use super::bits::Bits;
use super::codes::{CODES, Lookup};
use super::side_info::{Coding, Form, SideInfo, Windows};

/// Lengths of the scale factors of the lower and of the upper bands (MPEG 1).
const LENGTHS: [(u32, u32); 16] = [
    (0, 0),
    (0, 1),
    (0, 2),
    (0, 3),
    (3, 0),
    (1, 1),
    (1, 2),
    (1, 3),
    (2, 1),
    (2, 2),
    (2, 3),
    (3, 1),
    (3, 2),
    (3, 3),
    (4, 2),
    (4, 3),
];
/// How many scale factors have each of the four lengths (MPEG 2): for long, short and mixed blocks, first of the channel
/// that carries intensity positions, then of others.
const COUNTS: [[[usize; 4]; 3]; 6] = [
    [[7, 7, 7, 0], [12, 12, 12, 0], [6, 15, 12, 0]],
    [[6, 6, 6, 3], [12, 9, 9, 6], [6, 12, 9, 6]],
    [[8, 8, 5, 0], [15, 12, 9, 0], [6, 18, 9, 0]],
    [[6, 5, 5, 5], [9, 9, 9, 9], [6, 9, 9, 9]],
    [[6, 5, 7, 3], [9, 9, 12, 6], [6, 9, 12, 6]],
    [[11, 10, 0, 0], [18, 18, 0, 0], [15, 18, 0, 0]],
];
/// Added to the scale factors of the upper bands (ISO/IEC 11172-3 table B.6).
const EMPHASIS: [u8; 22] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 2, 0];
/// Bands of long blocks in the groups that may be shared between granules.
const SHARED: [std::ops::Range<usize>; 4] = [0..6, 6..11, 11..16, 16..21];
/// The largest value a code can stand for: 15 and thirteen more bits.
const MOST: usize = 15 + (1 << 13) - 1;

/// Each value to the power of 4/3.
static POWERS: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..=MOST).map(|value| (value as f64).powf(4.0 / 3.0) as f32).collect());

/// Scale factors of one channel; of the bands past the last coded one they are 0.
pub type Factors = [u8; 39];

/// One channel of a granule, decoded.
#[derive(Debug, Clone)]
pub struct Spectrum {
    pub lines: [f32; LINES],
    /// Lines from here on are 0.
    pub filled: usize,
    pub factors: Factors,
}

impl Default for Spectrum {
    fn default() -> Self {
        Self { lines: [0.0; LINES], filled: 0, factors: [0; 39] }
    }
}

impl Spectrum {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Reads the channel that begins at `bits`, of granule `number`. `first` are the scale factors of the granule before.
    pub fn read(
        &mut self,
        mut bits: Bits<'_>,
        form: &Form,
        info: &mut SideInfo,
        (granule, channel): (usize, usize),
        first: &Factors,
    ) -> Result<(), Broken> {
        let end = bits.at + info.codings[granule][channel].bits;
        let coding = &mut info.codings[granule][channel];
        self.factors = if form.mpeg1 {
            let shared = if granule > 0 { info.shared[channel] } else { [false; 4] };
            factors(&mut bits, coding, shared, first)
        } else {
            factors_mpeg2(&mut bits, coding, channel > 0 && form.joint.intensity)
        };
        if bits.at > end {
            return Err(Broken);
        }
        self.codes(&mut bits, end, coding);
        // Codes may run over the end by a few bits, but not out of everything there is.
        if !bits.inside() {
            return Err(Broken);
        }
        self.requantise(coding, form);
        Ok(())
    }

    fn codes(&mut self, bits: &mut Bits<'_>, end: usize, coding: &Coding) {
        let codes = &*CODES;
        let mut at = 0;
        let big = coding.big;
        for (table, until) in coding.tables.into_iter().zip([coding.regions[0], coding.regions[1], LINES]) {
            let until = until.min(big).max(at);
            if let Some((lookup, more)) = codes.pairs(table) {
                at += pairs(bits, end, lookup, more, &mut self.lines[at..until]);
            } else {
                self.lines[at..until].fill(0.0);
                at = until;
            }
        }
        at += quads(bits, end, codes.quads(coding.second_quads), &mut self.lines[at..]);
        if bits.at > end && at > big {
            // The bits at the end were no code but filling.
            at -= 4;
        }
        self.lines[at..].fill(0.0);
        self.filled = at;
    }

    fn requantise(&mut self, coding: &Coding, form: &Form) {
        let gain = i32::from(coding.gain) - 210;
        let shift = coding.scale_shift;
        let long = match coding.windows {
            Windows::Short => 0,
            Windows::Mixed => form.bands.mixed.unwrap_or(0),
            _ => usize::MAX,
        };
        let mut factors = self.factors.iter();
        let emphasis = |band: usize| if coding.emphasis { EMPHASIS[band] } else { 0 };
        for (band, range) in form.bands.long().enumerate().take(long) {
            if range.start >= self.filled {
                return;
            }
            let factor = i32::from(factors.next().copied().unwrap_or(0) + emphasis(band)) << shift;
            scale(&mut self.lines[range], gain - factor);
        }
        if long == usize::MAX {
            return;
        }
        let first = if long == 0 { 0 } else { 3 };
        for (n, range) in form.bands.short(first).enumerate() {
            if range.start >= self.filled {
                return;
            }
            let factor = i32::from(factors.next().copied().unwrap_or(0)) << shift;
            scale(&mut self.lines[range], gain - 8 * i32::from(coding.window_gains[n % 3]) - factor);
        }
    }
}

/// Multiplies by two to the power of a quarter of `quarters`.
fn scale(lines: &mut [f32], quarters: i32) {
    const ROOTS: [f32; 4] = [1.0, 1.189_207_1, std::f32::consts::SQRT_2, 1.681_792_8];
    let power = f32::from_bits((((quarters >> 2) + 127).max(0) as u32) << 23);
    let factor = ROOTS[(quarters & 3) as usize] * power;
    for line in lines {
        *line *= factor;
    }
}

/// The most bits a pair takes: the longest code and two signs, and what may follow two fifteens.
const PAIR_BITS: u32 = 19 + 2;
const MORE_BITS: u32 = 2 * 13;
/// The same of a group of four.
const QUAD_BITS: u32 = 6 + 4;

/// Reads pairs up to the end of `lines`, or of the bits; how many lines were read.
fn pairs(bits: &mut Bits<'_>, end: usize, lookup: &Lookup, more: u32, lines: &mut [f32]) -> usize {
    let powers = &**POWERS;
    let needed = if more > 0 { PAIR_BITS + MORE_BITS } else { PAIR_BITS };
    let (mut word, mut left) = (0, 0);
    let mut count = 0;
    for pair in lines.as_chunks_mut::<2>().0 {
        if bits.at >= end {
            break;
        }
        if left < needed {
            (word, left) = (bits.ahead(), Bits::AHEAD);
        }
        let code = lookup.find(word);
        let [first, second] = [code.value >> 4, code.value & 15];
        let mut used = code.len;
        if more > 0 && (first == 15 || second == 15) {
            for (line, mut value) in pair.iter_mut().zip([first, second]) {
                if value == 15 {
                    value += (word << used >> (64 - more)) as u32;
                    used += more;
                }
                *line = signed(powers[value as usize], word << used, u32::from(value > 0));
                used += u32::from(value > 0);
            }
        } else {
            let there = u32::from(first > 0);
            pair[0] = signed(powers[first as usize], word << used, there);
            pair[1] = signed(powers[second as usize], word << (used + there), u32::from(second > 0));
            used = code.signed_len;
        }
        word <<= used;
        left -= used;
        bits.at += used as usize;
        count += 2;
    }
    count
}

/// Reads groups of four that are 0 or 1, as [`pairs`] does.
fn quads(bits: &mut Bits<'_>, end: usize, lookup: &Lookup, lines: &mut [f32]) -> usize {
    let (mut word, mut left) = (0, 0);
    let mut count = 0;
    for quad in lines.as_chunks_mut::<4>().0 {
        if bits.at >= end {
            break;
        }
        if left < QUAD_BITS {
            (word, left) = (bits.ahead(), Bits::AHEAD);
        }
        let code = lookup.find(word);
        let mut signs = word << code.len;
        for (n, line) in quad.iter_mut().enumerate() {
            let there = code.value >> (3 - n) & 1;
            *line = signed(f32::from_bits(there * 1f32.to_bits()), signs, there);
            signs <<= there;
        }
        word <<= code.signed_len;
        left -= code.signed_len;
        bits.at += code.signed_len as usize;
        count += 4;
    }
    count
}

/// A value with the sign that the uppermost bit says, where there is one.
#[inline]
fn signed(value: f32, bits: u64, there: u32) -> f32 {
    f32::from_bits(value.to_bits() | ((bits >> 63) as u32 & there) << 31)
}

fn factors(bits: &mut Bits<'_>, coding: &Coding, shared: [bool; 4], first: &Factors) -> Factors {
    let mut factors = [0; 39];
    let (low, high) = LENGTHS[usize::from(coding.lengths & 15)];
    if coding.windows.are_short() {
        let lower = if coding.windows == Windows::Mixed { 8 + 9 } else { 18 };
        for (n, factor) in factors[..lower + 18].iter_mut().enumerate() {
            *factor = bits.take(if n < lower { low } else { high }) as u8;
        }
        return factors;
    }
    for (n, (range, shared)) in SHARED.into_iter().zip(shared).enumerate() {
        if shared {
            factors[range.clone()].copy_from_slice(&first[range]);
        } else {
            for factor in &mut factors[range] {
                *factor = bits.take(if n < 2 { low } else { high }) as u8;
            }
        }
    }
    factors
}

fn factors_mpeg2(bits: &mut Bits<'_>, coding: &mut Coding, positions: bool) -> Factors {
    let code = u32::from(coding.lengths);
    let (lengths, row) = if positions {
        match code >> 1 {
            n @ 0..180 => ([n / 36, n % 36 / 6, n % 6, 0], 0),
            n @ 180..244 => ([(n - 180) >> 4, ((n - 180) & 15) >> 2, (n - 180) & 3, 0], 1),
            n => ([(n - 244) / 3, (n - 244) % 3, 0, 0], 2),
        }
    } else {
        coding.emphasis = code >= 500;
        match code {
            n @ 0..400 => ([(n >> 4) / 5, (n >> 4) % 5, (n & 15) >> 2, n & 3], 3),
            n @ 400..500 => ([((n - 400) >> 2) / 5, ((n - 400) >> 2) % 5, (n - 400) & 3, 0], 4),
            n => ([(n - 500) / 3, (n - 500) % 3, 0, 0], 5),
        }
    };
    let kind = match coding.windows {
        Windows::Short => 1,
        Windows::Mixed => 2,
        _ => 0,
    };
    let mut factors = [0; 39];
    let mut all = factors.iter_mut();
    for (length, count) in lengths.into_iter().zip(COUNTS[row][kind]) {
        for factor in all.by_ref().take(count) {
            *factor = bits.take(length) as u8;
        }
    }
    factors
}

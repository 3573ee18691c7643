//! From a spectrum to the samples of 32 subbands (ISO/IEC 11172-3 2.4.3.4: reordering, alias reduction, inverse MDCT,
//! windowing). Subbands lie side by side, so that one step serves many of them at once.

// What is called under `dispatch!` is compiled for each instruction set only where it is inlined.
#![allow(clippy::inline_always)]

use std::f64::consts::PI;
use std::ops::{Add, Mul, Sub};
use std::sync::LazyLock;

use fearless_simd::{Simd, SimdBase};

use super::bands::{Bands, LINES, MIXED_LINES};
use super::side_info::Windows;

pub const SUBBANDS: usize = 32;
/// Samples of a subband in a granule.
pub const SLOTS: usize = 18;
/// Subbands of a mixed block that have long windows.
const MIXED_SUBBANDS: usize = MIXED_LINES / SLOTS;

/// A value of every subband.
pub type Row = [f32; SUBBANDS];
/// Time after time, or line after line.
pub type Rows = [Row; SLOTS];

struct Tables {
    /// Windows of long, start and stop blocks, and of short ones.
    long: [f32; 36],
    start: [f32; 36],
    stop: [f32; 36],
    short: [f32; 12],
    /// The transform of a short window.
    cos: [[f32; 6]; 6],
    /// Alias reduction.
    alias: [(f32, f32); 8],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let sine = |n: usize, len: usize| (PI / len as f64 * (n as f64 + 0.5)).sin() as f32;
    let long = std::array::from_fn(|n| sine(n, 36));
    let start = std::array::from_fn(|n| match n {
        0..18 => sine(n, 36),
        18..24 => 1.0,
        24..30 => sine(n - 18, 12),
        _ => 0.0,
    });
    let mut stop: [f32; 36] = start;
    stop.reverse();
    let cos = |m: usize, j: usize| (PI / 6.0 * (m as f64 + 0.5) * (j as f64 + 0.5)).cos() as f32;
    let alias = [-0.6f64, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037].map(|c| {
        let root = (1.0 + c * c).sqrt();
        ((1.0 / root) as f32, (c / root) as f32)
    });
    Tables {
        long,
        start,
        stop,
        short: std::array::from_fn(|n| sine(n, 12)),
        cos: std::array::from_fn(|j| std::array::from_fn(|m| cos(m, j))),
        alias,
    }
});

/// In the stream the three windows of a short band lie one after the other; here the lines of all three go side by side.
pub fn reorder(lines: &mut [f32; LINES], bands: &Bands, windows: Windows) {
    let first = match windows {
        Windows::Short => 0,
        Windows::Mixed => 3,
        _ => return,
    };
    let before = *lines;
    let mut band = bands.short(first);
    while let (Some(a), Some(b), Some(c)) = (band.next(), band.next(), band.next()) {
        let out = lines[a.start..c.end].as_chunks_mut::<3>().0;
        for (out, ((a, b), c)) in out.iter_mut().zip(before[a].iter().zip(&before[b]).zip(&before[c])) {
            *out = [*a, *b, *c];
        }
    }
}

/// What the subbands of one channel carry over to the next granule.
#[derive(Debug, Clone)]
pub struct Hybrid {
    overlap: Rows,
}

impl Default for Hybrid {
    fn default() -> Self {
        Self { overlap: [[0.0; SUBBANDS]; SLOTS] }
    }
}

impl Hybrid {
    /// Turns a reordered spectrum, 0 from line `filled` on, into samples of the subbands, time after time.
    #[inline(always)]
    pub fn run<S: Simd>(&mut self, simd: S, lines: &[f32; LINES], filled: usize, windows: Windows, out: &mut Rows) {
        let tables = &*TABLES;
        let mut rows = [[0.0; SUBBANDS]; SLOTS];
        for (subband, lines) in lines.as_chunks::<SLOTS>().0.iter().enumerate().take(filled.div_ceil(SLOTS)) {
            for (row, line) in rows.iter_mut().zip(lines) {
                row[subband] = *line;
            }
        }
        let borders = match windows {
            Windows::Short => 0,
            Windows::Mixed => MIXED_SUBBANDS - 1,
            _ => SUBBANDS - 1,
        };
        reduce_alias(&mut rows, borders, &tables.alias);
        // Alias reduction spreads into one more subband.
        let used = (filled.div_ceil(SLOTS) + 1).min(SUBBANDS);
        let window = match windows {
            Windows::Short => return self.short(simd, &rows, used, tables, out),
            Windows::Mixed => return self.mixed(simd, &rows, used, tables, out),
            Windows::Start => &tables.start,
            Windows::Stop => &tables.stop,
            Windows::Long => &tables.long,
        };
        self.long(simd, &rows, used, window, out);
    }

    #[inline(always)]
    fn long<S: Simd>(&mut self, simd: S, rows: &Rows, used: usize, window: &[f32; 36], out: &mut Rows) {
        for at in (0..SUBBANDS).step_by(S::f32s::LEN) {
            let all = at..at + S::f32s::LEN;
            let load = |row: &Row| S::f32s::from_slice(simd, &row[all.clone()]);
            let signs = load(&INVERSION);
            let mut half = [S::f32s::splat(simd, 0.0); SLOTS];
            if at < used {
                for (half, row) in half.iter_mut().zip(rows) {
                    *half = load(row);
                }
                half = transform_18(half);
            }
            for n in 0..SLOTS {
                // The transform holds a quarter of what comes out; the rest mirrors it.
                let (now, later) = if n < 9 { (half[9 + n], -half[8 - n]) } else { (-half[26 - n], -half[n - 9]) };
                let sample = now * window[n] + load(&self.overlap[n]);
                let sample = if n % 2 == 1 { sample * signs } else { sample };
                sample.store_slice(&mut out[n][all.clone()]);
                (later * window[18 + n]).store_slice(&mut self.overlap[n][all.clone()]);
            }
        }
    }

    #[inline(always)]
    fn short<S: Simd>(&mut self, simd: S, rows: &Rows, used: usize, tables: &Tables, out: &mut Rows) {
        for at in (0..SUBBANDS).step_by(S::f32s::LEN) {
            let all = at..at + S::f32s::LEN;
            let load = |row: &Row| S::f32s::from_slice(simd, &row[all.clone()]);
            let zero = S::f32s::splat(simd, 0.0);
            let mut sum = [zero; 36];
            if at < used {
                for window in 0..3 {
                    let mut z = [zero; 6];
                    for (m, row) in rows[window..].iter().step_by(3).enumerate() {
                        let x = load(row);
                        for (z, cos) in z.iter_mut().zip(&tables.cos) {
                            *z += x * cos[m];
                        }
                    }
                    for n in 0..12 {
                        let y = match n {
                            0..3 => z[3 + n],
                            3..9 => -z[8 - n],
                            _ => -z[n - 9],
                        };
                        let place = &mut sum[6 + 6 * window + n];
                        *place += y * tables.short[n];
                    }
                }
            }
            let signs = load(&INVERSION);
            for n in 0..SLOTS {
                let sample = sum[n] + load(&self.overlap[n]);
                let sample = if n % 2 == 1 { sample * signs } else { sample };
                sample.store_slice(&mut out[n][all.clone()]);
                sum[SLOTS + n].store_slice(&mut self.overlap[n][all.clone()]);
            }
        }
    }

    /// Both, and of each its own subbands. Hardly any encoder makes such blocks.
    #[inline(always)]
    fn mixed<S: Simd>(&mut self, simd: S, rows: &Rows, used: usize, tables: &Tables, out: &mut Rows) {
        let (mut long, mut lower) = (self.clone(), [[0.0; SUBBANDS]; SLOTS]);
        long.long(simd, rows, used, &tables.long, &mut lower);
        self.short(simd, rows, used, tables, out);
        for n in 0..SLOTS {
            out[n][..MIXED_SUBBANDS].copy_from_slice(&lower[n][..MIXED_SUBBANDS]);
            self.overlap[n][..MIXED_SUBBANDS].copy_from_slice(&long.overlap[n][..MIXED_SUBBANDS]);
        }
    }
}

/// The filter bank turns odd subbands upside down: every second sample of theirs changes its sign.
const INVERSION: Row = {
    let mut row = [1.0; SUBBANDS];
    let mut n = 1;
    while n < SUBBANDS {
        row[n] = -1.0;
        n += 2;
    }
    row
};

/// Butterflies across the lowest `borders` borders between subbands.
#[inline(always)]
fn reduce_alias(rows: &mut Rows, borders: usize, alias: &[(f32, f32); 8]) {
    let (lower, upper) = rows.split_at_mut(9);
    for (n, &(cs, ca)) in alias.iter().enumerate() {
        let (above, below) = (&mut lower[n][1..=borders], &mut upper[8 - n][..borders]);
        for (above, below) in above.iter_mut().zip(below) {
            (*below, *above) = (*below * cs - *above * ca, *above * cs + *below * ca);
        }
    }
}

/// One value or many side by side.
trait Lanes: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<f32, Output = Self> {}
impl<T: Copy + Add<Output = T> + Sub<Output = T> + Mul<f32, Output = T>> Lanes for T {}

/// `cos(pi * n / 18)`, and twice the cosines that turn a transform of type II into one of type IV.
const C: [f32; 9] =
    [1.0, 0.984_807_7, 0.939_692_6, 0.866_025_4, 0.766_044_44, 0.642_787_6, 0.5, 0.342_020_14, 0.173_648_18];
static TURNS: LazyLock<([f32; 18], [f32; 9])> = LazyLock::new(|| {
    let turn = |n: usize, len: f64| (2.0 * (PI / (4.0 * len) * (2.0 * n as f64 + 1.0)).cos()) as f32;
    (std::array::from_fn(|n| turn(n, 18.0)), std::array::from_fn(|n| turn(n, 9.0)))
});

/// DCT-IV of 18 points: `y[k] = sum of x[n] cos(pi/18 (n + 1/2) (k + 1/2))`. With x turned, neighbours of y add up to a
/// DCT-II, which falls into two halves: one again a DCT-II, the other a DCT-IV.
#[inline(always)]
fn transform_18<V: Lanes>(mut x: [V; 18]) -> [V; 18] {
    let (turns, half_turns) = &*TURNS;
    for (x, turn) in x.iter_mut().zip(turns) {
        *x = *x * *turn;
    }
    let (mut even, mut odd) = ([x[0]; 9], [x[0]; 9]);
    for n in 0..9 {
        even[n] = x[n] + x[17 - n];
        odd[n] = (x[n] - x[17 - n]) * half_turns[n];
    }
    transform_9(&mut even);
    transform_9(&mut odd);
    unfold(&mut odd);
    for n in 0..9 {
        (x[2 * n], x[2 * n + 1]) = (even[n], odd[n]);
    }
    unfold(&mut x);
    x
}

/// From sums of neighbours to the values themselves; the first is a sum of the first value with itself.
#[inline(always)]
fn unfold<V: Lanes, const N: usize>(sums: &mut [V; N]) {
    sums[0] = sums[0] * 0.5;
    for n in 1..N {
        sums[n] = sums[n] - sums[n - 1];
    }
}

/// DCT-II of 9 points: `y[k] = sum of x[n] cos(pi/9 (n + 1/2) k)`.
#[inline(always)]
fn transform_9<V: Lanes>(x: &mut [V; 9]) {
    let (s0, s1, s2, s3) = (x[0] + x[8], x[1] + x[7], x[2] + x[6], x[3] + x[5]);
    let (d0, d1, d2, d3) = (x[0] - x[8], x[1] - x[7], x[2] - x[6], x[3] - x[5]);
    let m = x[4];
    let (halves, across) = ((s0 + s2 + s3) * 0.5, d1 * C[3]);
    *x = [
        s0 + s1 + s2 + s3 + m,
        d0 * C[1] + across + d2 * C[5] + d3 * C[7],
        s0 * C[2] + s1 * C[6] - s2 * C[8] - s3 * C[4] - m,
        (d0 - d2 - d3) * C[3],
        s0 * C[4] - s1 * C[6] - s2 * C[2] + s3 * C[8] + m,
        d0 * C[5] - across - d2 * C[7] + d3 * C[1],
        halves - s1 - m,
        d0 * C[7] - across + d2 * C[1] - d3 * C[5],
        s0 * C[8] - s1 * C[6] + s2 * C[4] - s3 * C[2] + m,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_is_what_its_formula_says() {
        let x: [f32; 18] = std::array::from_fn(|n| ((n * n * 7 + 3) % 19) as f32 - 9.0);
        for (k, y) in transform_18(x).into_iter().enumerate() {
            let angle = |n: usize| PI / 18.0 * (n as f64 + 0.5) * (k as f64 + 0.5);
            let plain: f64 = x.iter().enumerate().map(|(n, &x)| f64::from(x) * angle(n).cos()).sum();
            assert!((f64::from(y) - plain).abs() < 1e-4, "{k}: {y} {plain}");
        }
    }
}

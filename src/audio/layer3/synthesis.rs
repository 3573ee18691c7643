//! The polyphase filter bank (ISO/IEC 11172-3 2.4.3.2): 32 subband samples in, 32 samples out.
//!
//! Of the 64 values its matrix makes of a slot only 32 differ; they are a cosine transform of the 32 samples, half of it
//! leaning on their sums with their mirror images, half on the differences. Values with even and with odd numbers are
//! therefore made, kept and windowed apart, and come together at the very end.

// What is called under `dispatch!` is compiled for each instruction set only where it is inlined.
#![allow(clippy::inline_always)]

use std::sync::LazyLock;

use fearless_simd::{Simd, SimdBase, SimdFloat};

use super::bands::LINES;
use super::hybrid::{Row, Rows, SLOTS, SUBBANDS};
use super::window::window;

const HALF: usize = SUBBANDS / 2;
/// Slots the window reaches back.
const PAST: usize = 15;
/// Slots worked on together, which keeps the processor's adders busy.
const TOGETHER: usize = 2;

struct Tables {
    /// What each sum (each difference) adds to the values with even (odd) numbers.
    even: [[f32; HALF]; HALF],
    odd: [[f32; HALF]; HALF],
    /// The window, 16 pieces of 32, each ordered as a [`Row`] of values is.
    window: [Row; 16],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let cos = |number: usize, k: usize| (std::f64::consts::PI / 64.0 * number as f64 * (2 * k + 1) as f64).cos() as f32;
    let sorted = |piece: usize| -> Row {
        std::array::from_fn(|n| window(32 * piece + if n < HALF { 2 * n } else { 2 * (n - HALF) + 1 }))
    };
    Tables {
        even: std::array::from_fn(|k| std::array::from_fn(|q| cos(2 * q, k))),
        odd: std::array::from_fn(|k| std::array::from_fn(|q| cos(2 * q + 1, k))),
        window: std::array::from_fn(sorted),
    }
});

/// The filter bank of one channel.
#[derive(Debug, Clone)]
pub struct Synthesis {
    /// The values 0 to 31 and 32 to 63 of past slots and of those at hand; even numbers first, then odd ones.
    lower: [Row; PAST + SLOTS],
    upper: [Row; PAST + SLOTS],
}

impl Default for Synthesis {
    fn default() -> Self {
        Self { lower: [[0.0; SUBBANDS]; PAST + SLOTS], upper: [[0.0; SUBBANDS]; PAST + SLOTS] }
    }
}

impl Synthesis {
    /// Makes the samples of a granule.
    #[inline(always)]
    pub fn run<S: Simd>(&mut self, simd: S, rows: &Rows, out: &mut [f32; LINES]) {
        let tables = &*TABLES;
        for (pair, rows) in rows.as_chunks::<TOGETHER>().0.iter().enumerate() {
            let values = transform(simd, tables, rows);
            for (n, (even, odd)) in values.iter().enumerate() {
                let at = PAST + TOGETHER * pair + n;
                spread(even, odd, &mut self.lower[at], &mut self.upper[at]);
            }
        }
        for (pair, out) in out.as_chunks_mut::<{ TOGETHER * SUBBANDS }>().0.iter_mut().enumerate() {
            let sums = self.windowed(simd, tables, PAST + TOGETHER * pair);
            for (out, sums) in out.as_chunks_mut::<SUBBANDS>().0.iter_mut().zip(&sums) {
                let (even, odd) = sums.split_at(HALF);
                for (out, (even, odd)) in out.as_chunks_mut::<2>().0.iter_mut().zip(even.iter().zip(odd)) {
                    *out = [*even, *odd];
                }
            }
        }
        self.lower.copy_within(SLOTS.., 0);
        self.upper.copy_within(SLOTS.., 0);
    }

    #[inline(always)]
    fn windowed<S: Simd>(&self, simd: S, tables: &Tables, slot: usize) -> [Row; TOGETHER] {
        let mut sums = [[0.0; SUBBANDS]; TOGETHER];
        for at in (0..SUBBANDS).step_by(S::f32s::LEN) {
            let all = at..at + S::f32s::LEN;
            let load = |row: &Row| S::f32s::from_slice(simd, &row[all.clone()]);
            let mut sum = [S::f32s::splat(simd, 0.0); TOGETHER];
            for piece in 0..16 {
                let window = load(&tables.window[piece]);
                let from = if piece % 2 == 0 { &self.lower } else { &self.upper };
                for (n, sum) in sum.iter_mut().enumerate() {
                    *sum = load(&from[slot + n - piece]).mul_add(window, *sum);
                }
            }
            for (sums, sum) in sums.iter_mut().zip(sum) {
                sum.store_slice(&mut sums[all.clone()]);
            }
        }
        sums
    }
}

/// The cosine transform: values with even and with odd numbers.
#[inline(always)]
fn transform<S: Simd>(simd: S, tables: &Tables, rows: &[Row; TOGETHER]) -> [([f32; HALF], [f32; HALF]); TOGETHER] {
    let mut values = [([0.0; HALF], [0.0; HALF]); TOGETHER];
    let mut folded = [([0.0; HALF], [0.0; HALF]); TOGETHER];
    for ((sums, differences), row) in folded.iter_mut().zip(rows) {
        for k in 0..HALF {
            sums[k] = row[k] + row[SUBBANDS - 1 - k];
            differences[k] = row[k] - row[SUBBANDS - 1 - k];
        }
    }
    for at in (0..HALF).step_by(S::f32s::LEN) {
        let all = at..at + S::f32s::LEN;
        let load = |row: &[f32; HALF]| S::f32s::from_slice(simd, &row[all.clone()]);
        let mut sums = [[S::f32s::splat(simd, 0.0); 2]; TOGETHER];
        for k in 0..HALF {
            let (even, odd) = (load(&tables.even[k]), load(&tables.odd[k]));
            for ([even_sum, odd_sum], (sums, differences)) in sums.iter_mut().zip(&folded) {
                *even_sum = even.mul_add(S::f32s::splat(simd, sums[k]), *even_sum);
                *odd_sum = odd.mul_add(S::f32s::splat(simd, differences[k]), *odd_sum);
            }
        }
        for ((even, odd), [even_sum, odd_sum]) in values.iter_mut().zip(sums) {
            even_sum.store_slice(&mut even[all.clone()]);
            odd_sum.store_slice(&mut odd[all.clone()]);
        }
    }
    values
}

/// The 64 values of the standard's matrix out of the 32 of the transform: value n is the transform's 16 + n, which repeats
/// itself backwards after 32 with the other sign.
#[inline(always)]
fn spread(even: &[f32; HALF], odd: &[f32; HALF], lower: &mut Row, upper: &mut Row) {
    let (lower_even, lower_odd) = lower.split_at_mut(HALF);
    let (upper_even, upper_odd) = upper.split_at_mut(HALF);
    lower_even[..8].copy_from_slice(&even[8..]);
    lower_even[8] = 0.0;
    lower_odd[..8].copy_from_slice(&odd[8..]);
    upper_even[0] = -even[8];
    for n in 0..7 {
        lower_even[9 + n] = -even[15 - n];
        upper_even[1 + n] = -even[7 - n];
    }
    for n in 0..8 {
        lower_odd[8 + n] = -odd[15 - n];
        upper_odd[n] = -odd[7 - n];
        upper_even[8 + n] = -even[n];
        upper_odd[8 + n] = -odd[n];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the standard draws it (figure A.2).
    fn plain(slots: &[Row]) -> Vec<f64> {
        let (mut v, mut out) = (vec![0.0f64; 1024], Vec::new());
        for slot in slots {
            v.rotate_right(64);
            for (n, v) in v[..64].iter_mut().enumerate() {
                let cos = |k: usize| (std::f64::consts::PI / 64.0 * ((16 + n) * (2 * k + 1)) as f64).cos();
                *v = slot.iter().enumerate().map(|(k, sample)| f64::from(*sample) * cos(k)).sum();
            }
            for n in 0..32 {
                let lower = |i: usize| v[128 * i + n] * f64::from(window(64 * i + n));
                let upper = |i: usize| v[128 * i + 96 + n] * f64::from(window(64 * i + 32 + n));
                out.push((0..8).map(|i| lower(i) + upper(i)).sum());
            }
        }
        out
    }

    #[test]
    fn equal_to_the_filter_bank_of_the_standard() {
        let mut state = 7u32;
        let slots: Vec<Row> = (0..2 * SLOTS)
            .map(|_| {
                std::array::from_fn(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / 8_388_608.0 - 1.0
                })
            })
            .collect();
        let mut bank = Synthesis::default();
        let mut made = Vec::new();
        for rows in slots.as_chunks::<SLOTS>().0 {
            let mut out = [0.0; LINES];
            let level = fearless_simd::Level::new();
            fearless_simd::dispatch!(level, simd => bank.run(simd, rows, &mut out));
            made.extend(out);
        }
        for (n, (made, plain)) in made.into_iter().zip(plain(&slots)).enumerate() {
            assert!((f64::from(made) - plain).abs() < 2e-5, "{n}: {made} {plain}");
        }
    }
}

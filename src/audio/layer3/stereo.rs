//! Joint stereo (ISO/IEC 11172-3 2.4.3.4.9, ISO/IEC 13818-3 2.4.3.2): two channels out of their sum and difference, or
//! out of one of them and a direction for each band.

use std::f32::consts::FRAC_1_SQRT_2;
use std::ops::Range;

use super::bands::LINES;
use super::side_info::{Coding, Form, Windows};
use super::spectrum::{Factors, Spectrum};

/// Turns the coded pair into left and right. Both are coded with the same windows.
pub fn separate(pair: &mut [Spectrum; 2], form: &Form, coding: &Coding) {
    let joint = form.joint;
    let [first, second] = pair;
    let filled = first.filled.max(second.filled);
    if joint.intensity {
        let positions = Positions::of(&second.factors, form, coding);
        directed(first, second, form, coding, &positions);
    } else if joint.mid_side {
        mid_side(&mut first.lines[..filled], &mut second.lines[..filled]);
    }
    if joint.intensity || joint.mid_side {
        (first.filled, second.filled) = (filled, filled);
    }
}

fn mid_side(mid: &mut [f32], side: &mut [f32]) {
    for (mid, side) in mid.iter_mut().zip(side) {
        (*mid, *side) = ((*mid + *side) * FRAC_1_SQRT_2, (*mid - *side) * FRAC_1_SQRT_2);
    }
}

/// Directions of the bands, in the place of the second channel's scale factors.
struct Positions {
    places: Factors,
    mpeg1: bool,
    /// MPEG 2 has two scales.
    coarse: bool,
}

impl Positions {
    fn of(factors: &Factors, form: &Form, coding: &Coding) -> Self {
        let mut places = *factors;
        // The last band has no scale factor of its own; it goes where the one before goes.
        match (coding.windows, form.bands.mixed) {
            (Windows::Short, _) => places.copy_within(33..36, 36),
            (Windows::Mixed, Some(long)) => places.copy_within(long + 24..long + 27, long + 27),
            _ => places[21] = places[20],
        }
        Self { places, mpeg1: form.mpeg1, coarse: coding.lengths & 1 == 1 }
    }

    /// Shares of the two channels; `None` where the band has no direction.
    fn shares(&self, band: usize) -> Option<(f32, f32)> {
        let place = self.places.get(band).copied()?;
        if self.mpeg1 {
            return match place {
                0..6 => {
                    let ratio = (std::f32::consts::PI / 12.0 * f32::from(place)).tan();
                    Some((ratio / (1.0 + ratio), 1.0 / (1.0 + ratio)))
                }
                6 => Some((1.0, 0.0)),
                _ => None,
            };
        }
        let base = if self.coarse { FRAC_1_SQRT_2 } else { FRAC_1_SQRT_2.sqrt() };
        match place {
            31 => None,
            odd if odd % 2 == 1 => Some((base.powi(i32::from(odd).midpoint(1)), 1.0)),
            even => Some((1.0, base.powi(i32::from(even) / 2))),
        }
    }
}

/// A band that the second channel left to directions, or one in front of those.
fn band(lines: [&mut [f32; LINES]; 2], range: Range<usize>, shares: Option<(f32, f32)>, sum_and_difference: bool) {
    let [first, second] = lines;
    let (first, second) = (&mut first[range.clone()], &mut second[range]);
    match shares {
        Some((left, right)) => {
            for (first, second) in first.iter_mut().zip(second) {
                (*first, *second) = (*first * left, *first * right);
            }
        }
        None if sum_and_difference => mid_side(first, second),
        None => {}
    }
}

/// Bands above the last one in which the second channel holds anything have a direction; of short blocks that goes for
/// each of the three windows.
fn directed(first: &mut Spectrum, second: &mut Spectrum, form: &Form, coding: &Coding, positions: &Positions) {
    let mid_side = form.joint.mid_side;
    let long = match coding.windows {
        Windows::Short => 0,
        Windows::Mixed => form.bands.mixed.unwrap_or(0),
        _ => usize::MAX,
    };
    let silent = |lines: &[f32; LINES], range: &Range<usize>| lines[range.clone()].iter().all(|line| *line == 0.0);
    let mut empty = [true; 3];
    if long != usize::MAX {
        let short: Vec<Range<usize>> = form.bands.short(if long == 0 { 0 } else { 3 }).collect();
        for (n, range) in short.into_iter().enumerate().rev() {
            empty[n % 3] &= silent(&second.lines, &range);
            let shares = if empty[n % 3] { positions.shares(long + n) } else { None };
            band([&mut first.lines, &mut second.lines], range, shares, mid_side);
        }
    }
    let mut empty = empty == [true; 3];
    let bands: Vec<Range<usize>> = form.bands.long().take(long).collect();
    for (n, range) in bands.into_iter().enumerate().rev() {
        empty &= silent(&second.lines, &range);
        let shares = if empty { positions.shares(n) } else { None };
        band([&mut first.lines, &mut second.lines], range, shares, mid_side);
    }
}

//! Two-speaker HMM over speech segments. A speaker-change penalty (small at pauses, larger within a region) prevents
//! over-segmentation. Input: segment embeddings in the order of time. Output: two groups, and the log odds of two
//! speakers against one. `benches/training/train_voices.py` holds the same features in Python and trains their weights.

use super::network::DIMENSIONS;
use super::summary::Pitch;
use super::summary::Point;
use crate::transcript::viterbi;

/// Tried start pairs; the one with the lowest cost is used.
const STARTS: usize = 12;
const ROUNDS: usize = 12;
/// Cost of a speaker change, in nats.
const CHANGE_INSIDE: f64 = 3.0;
const CHANGE_AT_PAUSE: f64 = 0.5;
/// Effective number of independent dimensions of an embedding.
const FREE: f64 = 4.0;
/// Frames of a full-length segment.
const WHOLE: f64 = 80.0;
/// Least variance of a voice around its mean.
const STEADIEST: f64 = 0.1;
/// A group with fewer segments or a smaller share of the time is penalised as an accident.
const FEWEST: usize = 2;
const SMALLEST: f64 = 0.06;
const ACCIDENT: f64 = 1e3;
/// Least voiced frames for a mean pitch.
const ENOUGH_VOICED: f64 = 20.0;

/// Logistic regression for two speakers: the weights of the features, and the offset.
const WORTH: [f64; FIGURES] = [2.04, -23.99, 1.22, 0.10, 8.54, 1.67, 2.22];
const OFFSET: f64 = -9.28;
const FIGURES: usize = 7;
/// Pitch difference of a woman and a man in octaves, and the least number of regions per group. The value of pitch
/// cannot be trained on synthetic voices: they vary too much in other features and too little in pitch.
const APART: f64 = 0.4;
const REGIONS: usize = 3;
/// Largest addition for the pitch, and the range of distances over which it grows, in standard deviations of the
/// groups' pitch.
const PITCH_WORTH: f64 = 3.0;
const PITCH_APART: (f64, f64) = (1.2, 1.8);

type Centres = [[f64; DIMENSIONS]; 2];

/// A division into two groups.
#[derive(Debug, Clone)]
pub(super) struct Split {
    pub groups: Vec<u8>,
    /// Log odds of two speakers against one.
    pub odds: f64,
}

/// One try with its cost.
struct Try {
    cost: f64,
    groups: Vec<u8>,
    centres: Centres,
}

/// The best division of the segments into two groups. `None` if there are too few. `begins` marks the segments after a
/// pause.
pub(super) fn two(points: &[Point], begins: &[bool]) -> Option<Split> {
    if points.len() < 2 * FEWEST {
        return None;
    }
    let step = points.len().div_ceil(STARTS);
    let tries = points.iter().step_by(step).map(|seed| {
        let far = points.iter().max_by(|a, b| distance(&a.at, &seed.at).total_cmp(&distance(&b.at, &seed.at)));
        refine(points, begins, [seed.at, far.map_or(seed.at, |far| far.at)])
    });
    let best = tries.min_by(|a, b| a.cost.total_cmp(&b.cost))?;
    let odds = odds(points, begins, &best);
    Some(Split { groups: best.groups, odds })
}

/// Alternates between assigning segments and updating the centres.
fn refine(points: &[Point], begins: &[bool], mut centres: Centres) -> Try {
    let middle = mean(points.iter().map(|point| (point, 1.0))).unwrap_or([0.0; DIMENSIONS]);
    let spread: f64 = points.iter().map(|point| distance(&point.at, &middle)).sum();
    let mut variance = (0.5 * spread / points.len() as f64).max(STEADIEST);
    let mut groups: Vec<u8> = Vec::new();
    for _ in 0..ROUNDS {
        let placed = place(points, begins, &centres, variance);
        if placed == groups {
            break;
        }
        groups = placed;
        for (group, centre) in (0_u8..).zip(&mut centres) {
            let own = points.iter().zip(&groups).filter(|(_, by)| **by == group);
            *centre = mean(own.map(|(point, _)| (point, point.weight))).unwrap_or(*centre);
        }
        variance = inside(points, &groups, &centres).max(STEADIEST);
    }
    let changed = (1..groups.len()).filter(|n| groups[*n] != groups[n - 1]);
    let changes: f64 = changed.map(|n| change(begins[n])).sum();
    let [few, share] = smaller(points, &groups);
    let accident = if few < FEWEST as f64 || share < SMALLEST { ACCIDENT } else { 0.0 };
    let cost = points.len() as f64 * FREE / 2.0 * variance.ln() + changes + accident;
    Try { cost, groups, centres }
}

/// The most likely groups of all segments.
fn place(points: &[Point], begins: &[bool], centres: &Centres, variance: f64) -> Vec<u8> {
    let cost = |n: usize, group: usize| {
        let away = distance(&points[n].at, &centres[group]) / variance;
        points[n].weight / WHOLE * away * FREE / 2.0
    };
    viterbi::cheapest(points.len(), 2, |n| change(begins[n]), cost)
}

/// Cost of a speaker change before a segment.
const fn change(begins: bool) -> f64 {
    if begins { CHANGE_AT_PAUSE } else { CHANGE_INSIDE }
}

/// The log odds from the features of the division.
fn odds(points: &[Point], begins: &[bool], best: &Try) -> f64 {
    let Try { groups, centres, .. } = best;
    let all: f64 = points.iter().map(|point| point.weight).sum();
    let middle = mean(points.iter().map(|point| (point, point.weight))).unwrap_or([0.0; DIMENSIONS]);
    let whole: f64 = points.iter().map(|point| point.weight * distance(&point.at, &middle)).sum::<f64>() / all;
    let within = inside(points, groups, centres).max(1e-9);
    let gain = (whole / within).ln();
    let apart = distance(&centres[0], &centres[1]).max(1e-9);
    let along = |point: &Point, centre: &[f64; DIMENSIONS]| {
        (0..DIMENSIONS).map(|n| (point.at[n] - centre[n]) * (centres[1][n] - centres[0][n])).sum::<f64>()
    };
    let off = |(point, group): (&Point, &u8)| point.weight * along(point, &centres[usize::from(*group)]).powi(2);
    let across = points.iter().zip(groups).map(off).sum::<f64>() / all / apart;
    let separation = apart.sqrt() / across.sqrt().max(1e-9);
    let changes = groups.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let length = all / WHOLE;
    let [_, share] = smaller(points, groups);
    let figures = [
        gain,
        1.0 / length,
        apart.ln(),
        fewest_regions(begins, groups).min(4) as f64,
        share.min(0.3),
        separation.ln(),
        changes.min(8) as f64 / 8.0,
    ];
    OFFSET
        + WORTH.iter().zip(figures).map(|(worth, figure)| worth * figure).sum::<f64>()
        + if fewest_regions(begins, groups) >= REGIONS { pitch_odds(points, groups) } else { 0.0 }
}

/// The addition for the pitches of the two groups.
fn pitch_odds(points: &[Point], groups: &[u8]) -> f64 {
    let of = |group: u8| {
        let own = points.iter().zip(groups).filter(|(_, by)| **by == group);
        own.fold(Pitch::default(), |sum, (point, _)| sum.and(point.pitch))
    };
    let (first, second) = (of(0), of(1));
    let apart = (first.mean() - second.mean()).abs();
    if first.voiced.min(second.voiced) < ENOUGH_VOICED || apart < APART {
        return 0.0;
    }
    let spread = ((first.scatter() + second.scatter()) / (first.voiced + second.voiced)).max(1e-3).sqrt();
    let (from, to) = PITCH_APART;
    PITCH_WORTH * ((apart / spread - from) / (to - from)).clamp(0.0, 1.0)
}

/// Number of segments and share of time, each of the smaller group.
fn smaller(points: &[Point], groups: &[u8]) -> [f64; 2] {
    let all: f64 = points.iter().map(|point| point.weight).sum();
    let of = |group: u8| points.iter().zip(groups).filter(move |(_, by)| **by == group).map(|(point, _)| point.weight);
    let [first, second] = [of(0).sum::<f64>() / all, of(1).sum::<f64>() / all];
    [of(0).count().min(of(1).count()) as f64, first.min(second)]
}

/// The number of regions with speech of the group that has fewer.
fn fewest_regions(begins: &[bool], groups: &[u8]) -> usize {
    let count = |group: u8| {
        let (mut regions, mut counted) = (0, false);
        for (begins, by) in begins.iter().zip(groups) {
            counted &= !begins;
            if *by == group && !counted {
                (regions, counted) = (regions + 1, true);
            }
        }
        regions
    };
    count(0).min(count(1))
}

/// Mean squared distance of the segments from the centres of their groups.
fn inside(points: &[Point], groups: &[u8], centres: &Centres) -> f64 {
    let (mut sum, mut weight) = (0.0, 0.0);
    for (point, group) in points.iter().zip(groups) {
        sum += point.weight * distance(&point.at, &centres[usize::from(*group)]);
        weight += point.weight;
    }
    sum / f64::max(weight, 1e-9)
}

fn mean<'a>(points: impl Iterator<Item = (&'a Point, f64)>) -> Option<[f64; DIMENSIONS]> {
    let (mut sum, mut all) = ([0.0; DIMENSIONS], 0.0);
    for (point, weight) in points {
        all += weight;
        sum.iter_mut().zip(&point.at).for_each(|(sum, at)| *sum += weight * at);
    }
    (all > 0.0).then(|| sum.map(|sum| sum / all))
}

fn distance(a: &[f64; DIMENSIONS], b: &[f64; DIMENSIONS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

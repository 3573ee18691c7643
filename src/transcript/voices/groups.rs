//! Two groups of points, and how far apart they are (Lloyd's algorithm, the number of groups by their separation).

use super::summary::DIMENSIONS;
use super::summary::Point;

/// Starting pairs tried; the best of them counts.
const STARTS: usize = 24;
const ROUNDS: usize = 20;

/// A division in two.
#[derive(Debug)]
pub struct Split {
    pub groups: Vec<u8>,
    /// Distance of the two centres, in units of how far the points lie from theirs along the line between the two.
    pub separation: f64,
}

/// A group of fewer points, or of a smaller share of the time, is an accident.
const FEWEST: usize = 3;
const SMALLEST: f64 = 0.06;
/// Times that accidents are put aside before giving up.
const PUT_ASIDE: usize = 3;

/// The best division of the points in two. What stands apart by accident (a cough, a second of another sound) is left out of
/// it and then counted with whom it is nearest to.
pub fn two_apart_from_accidents(points: &[Point]) -> Option<Split> {
    let mut kept: Vec<Point> = points.to_vec();
    for _ in 0..PUT_ASIDE {
        let (split, centres) = two(&kept)?;
        let of =
            |group: u8| kept.iter().zip(&split.groups).filter(move |(_, by)| **by == group).map(|(point, _)| point);
        let weight = |group: u8| of(group).map(|point| point.weight).sum::<f64>();
        let small = u8::from(weight(1) < weight(0));
        let accident = of(small).count() < FEWEST || weight(small) < SMALLEST * (weight(0) + weight(1));
        if !accident {
            let nearest = |point: &Point| u8::from(distance(&point.at, &centres[1]) < distance(&point.at, &centres[0]));
            return Some(Split { groups: points.iter().map(nearest).collect(), ..split });
        }
        kept = of(1 - small).copied().collect();
    }
    None
}

type Centres = [[f64; DIMENSIONS]; 2];

/// The best division of the points in two; `None` where there are not enough of them.
fn two(points: &[Point]) -> Option<(Split, Centres)> {
    if points.len() < 2 {
        return None;
    }
    let step = points.len().div_ceil(STARTS);
    let tries = points.iter().step_by(step).map(|seed| {
        let far = points.iter().max_by(|a, b| distance(&a.at, &seed.at).total_cmp(&distance(&b.at, &seed.at)));
        refine(points, [seed.at, far.map_or(seed.at, |far| far.at)])
    });
    tries.min_by(|a, b| a.0.total_cmp(&b.0)).map(|best| best.1)
}

/// Lloyd's algorithm: the cost, and the division.
fn refine(points: &[Point], mut centres: Centres) -> (f64, (Split, Centres)) {
    let mut groups = vec![0_u8; points.len()];
    let mut cost = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut sums = [[0.0; DIMENSIONS]; 2];
        let mut weights = [0.0; 2];
        let mut now = 0.0;
        for (group, point) in groups.iter_mut().zip(points) {
            let away = [distance(&point.at, &centres[0]), distance(&point.at, &centres[1])];
            *group = u8::from(away[1] < away[0]);
            let nearest = usize::from(*group);
            now += point.weight * away[nearest];
            weights[nearest] += point.weight;
            for (sum, value) in sums[nearest].iter_mut().zip(&point.at) {
                *sum += point.weight * value;
            }
        }
        for ((centre, sum), weight) in centres.iter_mut().zip(sums).zip(weights) {
            if weight > 0.0 {
                *centre = sum.map(|value| value / weight);
            }
        }
        if now >= cost {
            break;
        }
        cost = now;
    }
    let separation = separation(points, &groups, &centres);
    (cost, (Split { groups, separation }, centres))
}

fn separation(points: &[Point], groups: &[u8], centres: &Centres) -> f64 {
    let apart = distance(&centres[0], &centres[1]).sqrt().max(1e-9);
    let along = |point: &Point, centre: &[f64; DIMENSIONS]| {
        (0..DIMENSIONS).map(|n| (point.at[n] - centre[n]) * (centres[1][n] - centres[0][n])).sum::<f64>() / apart
    };
    let (mut weight, mut squares) = (0.0, 0.0);
    for (point, group) in points.iter().zip(groups) {
        let off = along(point, &centres[usize::from(*group)]);
        weight += point.weight;
        squares += point.weight * off * off;
    }
    apart / (squares / weight.max(1.0)).sqrt().max(1e-9)
}

fn distance(a: &[f64; DIMENSIONS], b: &[f64; DIMENSIONS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

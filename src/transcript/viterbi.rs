//! The cheapest sequence of states with a cost for every change (Viterbi's algorithm).

use std::ops::Add;

/// The state of each step. `change` is the cost of another state than before, by step; `cost` is the cost of a state,
/// by step and state.
pub(super) fn cheapest<C: Copy + Default + PartialOrd + Add<Output = C>>(
    steps: usize,
    states: usize,
    change: impl Fn(usize) -> C,
    cost: impl Fn(usize, usize) -> C,
) -> Vec<u8> {
    let mut costs = vec![C::default(); states];
    let mut came_from: Vec<u8> = Vec::with_capacity(steps * states);
    for step in 0..steps {
        let best = least(&costs);
        let changed = costs[best] + change(step);
        for (state, total) in costs.iter_mut().enumerate() {
            let (before, from) = if changed < *total { (changed, best) } else { (*total, state) };
            came_from.push(from as u8);
            *total = before + cost(step, state);
        }
    }
    let mut state = least(&costs);
    let mut path = vec![0; steps];
    for (step, place) in path.iter_mut().enumerate().rev() {
        *place = state as u8;
        state = came_from[step * states + state].into();
    }
    path
}

/// The first of the cheapest states.
fn least<C: PartialOrd>(costs: &[C]) -> usize {
    (1..costs.len()).fold(0, |best, state| if costs[state] < costs[best] { state } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_made_where_it_pays() {
        let states = |change: f64| {
            let costs = [[0.0, 0.5], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 0.0]];
            cheapest(costs.len(), 2, |_| change, |step, state| costs[step][state])
        };
        assert_eq!(states(0.1), [0, 1, 0, 1, 1]);
        assert_eq!(states(0.9), [0, 0, 0, 1, 1]);
        assert_eq!(states(5.0), [1, 1, 1, 1, 1]);
        assert!(cheapest(0, 2, |_| 0.0_f32, |_, _| 0.0).is_empty());
    }
}

//! Made by `tests/calls/train_roles.py`: do not edit by hand.

/// Weight of ln(1 + known words), agent's minus the other's.
pub const KNOWN_WORDS: f64 = 1.491;
/// The most that the calls it was learnt on can show: right ones and one more, of all and two more (Laplace's rule).
pub const MOST: f64 = 0.9935;

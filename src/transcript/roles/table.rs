//! Made by `benches/training/train_roles.py`: do not edit by hand.

/// Weight of ln(1 + known words), the agent's minus the other speaker's.
pub(super) const KNOWN_WORDS: f64 = 1.491;
/// Upper limit of the confidence from the training calls: (right + 1) / (all + 2), by Laplace's rule.
pub(super) const MOST: f64 = 0.9935;

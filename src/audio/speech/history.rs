//! Comparison of a spectrum or a pitch with an earlier one.

use std::collections::VecDeque;

/// The last values of a series.
pub(super) struct History<T> {
    values: VecDeque<T>,
    /// Distance of the two compared values.
    apart: usize,
}

impl<T> History<T> {
    pub(super) const fn new(apart: usize) -> Self {
        Self { values: VecDeque::new(), apart }
    }

    /// Adds a value. Returns the value that far before it, and the value itself.
    pub(super) fn push(&mut self, value: T) -> Option<(&T, &T)> {
        self.values.push_back(value);
        if self.values.len() > self.apart + 1 {
            self.values.pop_front();
        }
        if self.values.len() > self.apart { self.values.front().zip(self.values.back()) } else { None }
    }
}

/// Subtracts the mean and scales to unit length. Returns the mean.
pub(super) fn to_unit(shape: &mut [f32]) -> f32 {
    let mean = shape.iter().sum::<f32>() / shape.len() as f32;
    for value in &mut *shape {
        *value -= mean;
    }
    let length = shape.iter().map(|value| value * value).sum::<f32>().sqrt() + 1e-3;
    for value in shape {
        *value /= length;
    }
    mean
}

pub(super) fn correlation(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

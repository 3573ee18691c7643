//! Dense layers of the networks that are part of this program.

/// A layer that sums all of its inputs for each output.
pub(crate) struct Dense {
    /// The weights of one output are contiguous.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Dense {
    /// Takes the weights and the biases of a layer from the numbers of a network.
    pub(crate) fn take(numbers: &mut impl Iterator<Item = f32>, inputs: usize, outputs: usize) -> Self {
        let mut take = |count: usize| numbers.by_ref().take(count).collect();
        Self { weights: take(inputs * outputs), bias: take(outputs) }
    }

    pub(crate) fn sums(&self, input: &[f32]) -> impl Iterator<Item = f32> {
        self.weights.chunks_exact(input.len()).zip(&self.bias).map(|(weights, bias)| dot(input, weights) + bias)
    }

    pub(crate) fn outputs<const OUT: usize>(&self, input: &[f32]) -> [f32; OUT] {
        let mut out = [0.0; OUT];
        out.iter_mut().zip(self.sums(input)).for_each(|(out, sum)| *out = sum);
        out
    }
}

/// The numbers of a network, from their little-endian bytes.
pub(crate) fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// Zero for a negative sum.
pub(crate) const fn relu(sum: f32) -> f32 {
    sum.max(0.0)
}

/// Eight parallel sums. A single sum would be a serial chain.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for n in 0..8 {
            lanes[n] += a[n] * b[n];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

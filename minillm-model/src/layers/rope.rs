//! RoPE, rotary position embedding (Su et al. 2021, arXiv:2104.09864): position as rotation.
//!
//! The E values of a head are taken as E/2 pairs, and at position p pair i is turned by the angle
//!
//! ```text
//! angle(p, i) = p * theta^(-2i/E)          i = 0 .. E/2
//! (a, b) -> (a cos - b sin, b cos + a sin)
//! ```
//!
//! Queries and keys are both turned, so their dot product depends only on the *difference* of their positions. It
//! replaces GPT-2's learned vector per position, which says nothing about positions never trained. Early pairs turn
//! fast (one radian a token), late ones slowly: a clock with many hands.
//!
//! A pair is (value i, value i + E/2), "halves", as Hugging Face stores LLaMA. The paper, Meta's files and GGUF pair
//! neighbours (2i, 2i + 1): the same up to the order of rows in the q and k matrices, and wrong if mixed.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

/// The rotation of some neighbouring positions.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Cosines, `[1, 1, T, E]`: both halves of a row are equal, as each pair shares an angle.
    pub(super) cos: Tensor<4>,
    /// Sines, `[1, 1, T, E]`, negative in the first half: that is the `- b sin` of the rotation.
    pub(super) sin: Tensor<4>,
}

impl Rotation {
    /// Turns queries or keys.
    ///
    /// # Shapes
    /// - `x`: `[B, heads, T, E]` -> the same
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, _, e] = x.dims();
        let first = x.clone().narrow(3, 0, e / 2); // [B, heads, T, E/2]
        let second = x.clone().narrow(3, e / 2, e / 2); // [B, heads, T, E/2]
        let swapped = Tensor::cat(vec![second, first], 3); // [B, heads, T, E]
        x * self.cos.clone() + swapped * self.sin.clone()
    }
}

/// `theta^(-2i/E)`: radians per token of each pair, `[E/2]`.
pub fn plain_frequencies(theta: f64, head_dim: usize) -> impl Iterator<Item = f64> {
    (0..head_dim / 2).map(move |pair| theta.powf(-2.0 * pair as f64 / head_dim as f64))
}

/// Cosines and sines of `positions`, as [`Rotation`] has them, times `size`: `[T, E]` each.
pub(super) fn tables(frequencies: &[f64], positions: Range<usize>, size: f64, device: &Device) -> [Tensor<2>; 2] {
    let shape = [positions.len(), 2 * frequencies.len()];
    let [mut cos, mut sin] = [(); 2].map(|()| Vec::<f32>::with_capacity(shape[0] * shape[1]));
    for position in positions {
        // The angles in f64: at position 100,000 an f32 angle is already off by 0.004.
        let turns = frequencies.iter().map(|frequency| (position as f64 * frequency).sin_cos());
        let (sines, cosines): (Vec<f32>, Vec<f32>) =
            turns.map(|(sin, cos)| ((size * sin) as f32, (size * cos) as f32)).unzip();
        cos.extend(cosines.iter().chain(&cosines));
        sin.extend(sines.iter().map(|sin| -sin).chain(sines.iter().copied()));
    }
    [cos, sin].map(|table| Tensor::from_data(TensorData::new(table, shape), device))
}

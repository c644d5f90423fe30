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

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::config::ModelConfig;
use crate::ops::{self, Kernels};

/// Angles in the tables. What lies beyond, in a model of a million positions, is computed when it is asked for.
const LARGEST_TABLE: usize = 1 << 22;

/// Precomputed angles for the positions up to C.
#[derive(Module, Debug)]
pub struct RotaryEmbedding {
    /// Cosines, `[up to C, E]`: both halves of a row are equal, as each pair shares an angle.
    cos: Tensor<2>,
    /// Sines, `[up to C, E]`, negative in the first half: that is the `- b sin` of the rotation.
    sin: Tensor<2>,
    /// What further angles are computed from: with dynamic scaling they depend on the length of the sequence.
    #[module(skip)]
    config: ModelConfig,
    /// Which form computes.
    #[module(skip)]
    pub kernels: Kernels,
}

/// The rotation of some neighbouring positions.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// `[1, 1, T, E]`
    cos: Tensor<4>,
    /// `[1, 1, T, E]`
    sin: Tensor<4>,
    /// Which form computes.
    pub kernels: Kernels,
}

impl RotaryEmbedding {
    /// Tables for the head width, context and scaling of `config`.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let rows = config.max_position_embeddings.min(LARGEST_TABLE / config.head_dim);
        let [cos, sin] = tables(config, 0, rows, rows, device);
        Self { cos, sin, config: config.clone(), kernels: Kernels::fastest(device) }
    }

    /// The rotation of positions `start..start + T`, the last of a sequence.
    pub fn at(&self, start: usize, t: usize) -> Rotation {
        let [rows, _] = self.cos.dims();
        let s = start + t;
        let [cos, sin] = if s <= rows {
            [&self.cos, &self.sin].map(|table| table.clone().narrow(0, start, t)) // [T, E]
        } else {
            tables(&self.config, start, t, s, &self.cos.device()) // [T, E]
        };
        Rotation { cos: cos.unsqueeze(), sin: sin.unsqueeze(), kernels: self.kernels }
    }
}

impl Rotation {
    /// Turns queries or keys.
    ///
    /// # Shapes
    /// - `x`: `[B, heads, T, E]` -> the same
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        if self.kernels.rotary {
            return ops::rotary::rotate(x, self.cos.clone(), self.sin.clone());
        }
        let [_, _, _, e] = x.dims();
        let first = x.clone().narrow(3, 0, e / 2); // [B, heads, T, E/2]
        let second = x.clone().narrow(3, e / 2, e / 2); // [B, heads, T, E/2]
        let swapped = Tensor::cat(vec![second, first], 3); // [B, heads, T, E]
        x * self.cos.clone() + swapped * self.sin.clone()
    }
}

/// Cosines and sines of T positions from `start` on, in a sequence of S, each `[T, E]`.
fn tables(config: &ModelConfig, start: usize, t: usize, s: usize, device: &Device) -> [Tensor<2>; 2] {
    let e = config.head_dim;
    let frequencies = frequencies(config, s);
    let size = config.rope_scaling.map_or(1.0, |scaling| scaling.attention_factor());
    let (mut cos, mut sin) = (Vec::<f32>::with_capacity(t * e), Vec::<f32>::with_capacity(t * e));
    for position in start..start + t {
        // The angles in f64: at position 100,000 an f32 angle is already off by 0.004.
        let turns = frequencies.iter().map(|frequency| (position as f64 * frequency).sin_cos());
        let (sines, cosines): (Vec<f32>, Vec<f32>) =
            turns.map(|(sin, cos)| ((size * sin) as f32, (size * cos) as f32)).unzip();
        cos.extend(cosines.iter().chain(&cosines));
        sin.extend(sines.iter().map(|sin| -sin).chain(sines.iter().copied()));
    }
    [cos, sin].map(|table| Tensor::from_data(TensorData::new(table, [t, e]), device))
}

/// Radians per token of each pair, `[E/2]`, in a sequence of S tokens.
pub fn frequencies(config: &ModelConfig, s: usize) -> Vec<f64> {
    match config.rope_scaling {
        None => plain_frequencies(config.rope_theta, config.head_dim).collect(),
        Some(scaling) => scaling.frequencies(config, s),
    }
}

/// `theta^(-2i/E)`
pub(super) fn plain_frequencies(theta: f64, head_dim: usize) -> impl Iterator<Item = f64> {
    (0..head_dim / 2).map(move |pair| theta.powf(-2.0 * pair as f64 / head_dim as f64))
}

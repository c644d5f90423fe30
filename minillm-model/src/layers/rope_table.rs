//! The angles of [`rope`](super::rope) for all positions of a model, computed once.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::rope::{Rotation, plain_frequencies, tables};
use super::rope_scaling::scaled_frequencies;
use crate::config::ModelConfig;

/// Angles in the tables. What is beyond, in a model of a million positions, is computed when it is asked for.
const LARGEST_TABLE: usize = 1 << 22;

/// Precomputed angles for the positions up to C.
#[derive(Module, Debug)]
pub struct RotaryEmbedding {
    /// Cosines, `[up to C, E]`.
    cos: Tensor<2>,
    /// Sines, `[up to C, E]`.
    sin: Tensor<2>,
    /// What further angles are computed from: with dynamic scaling they depend on the length of the sequence.
    #[module(skip)]
    config: ModelConfig,
}

impl RotaryEmbedding {
    /// Tables for the head width, context and scaling of `config`.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let rows = config.max_position_embeddings.min(LARGEST_TABLE / config.head_dim);
        let [cos, sin] = tables(&frequencies(config, rows), 0..rows, size(config), device);
        Self { cos, sin, config: config.clone() }
    }

    /// The rotation of positions `start..start + T`, the last of a sequence.
    pub fn at(&self, start: usize, t: usize) -> Rotation {
        let [rows, _] = self.cos.dims();
        let s = start + t;
        let [cos, sin] = if s <= rows {
            [&self.cos, &self.sin].map(|table| table.clone().narrow(0, start, t)) // [T, E]
        } else {
            let frequencies = frequencies(&self.config, s);
            tables(&frequencies, start..s, size(&self.config), &self.cos.device()) // [T, E]
        };
        Rotation { cos: cos.unsqueeze(), sin: sin.unsqueeze() } // [1, 1, T, E]
    }
}

/// Radians per token of each pair, `[E/2]`, in a sequence of S tokens.
pub fn frequencies(config: &ModelConfig, s: usize) -> Vec<f64> {
    match config.rope_scaling {
        None => plain_frequencies(config.rope_theta, config.head_dim).collect(),
        Some(scaling) => scaled_frequencies(scaling, config, s),
    }
}

/// What rotated queries and keys are multiplied by.
fn size(config: &ModelConfig) -> f64 {
    config.rope_scaling.map_or(1.0, |scaling| scaling.attention_factor())
}

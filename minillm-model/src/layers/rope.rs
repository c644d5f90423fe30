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

use crate::config::{ModelConfig, RopeScaling};

/// Precomputed angles for every position up to C.
#[derive(Module, Debug)]
pub struct RotaryEmbedding {
    /// Cosines, `[C, E]`: both halves of a row are equal, as each pair shares an angle.
    cos: Tensor<2>,
    /// Sines, `[C, E]`, negative in the first half: that is the `- b sin` of the rotation.
    sin: Tensor<2>,
}

impl RotaryEmbedding {
    /// Tables for the head width, context and scaling of `config`.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let (c, e) = (config.max_position_embeddings, config.head_dim);
        let frequencies = frequencies(config);
        let (mut cos, mut sin) = (Vec::<f32>::with_capacity(c * e), Vec::<f32>::with_capacity(c * e));
        for position in 0..c {
            // The angles in f64: at position 100,000 an f32 angle is already off by 0.004.
            let turns = frequencies.iter().map(|frequency| (position as f64 * frequency).sin_cos());
            let (sines, cosines): (Vec<f32>, Vec<f32>) = turns.map(|(sin, cos)| (sin as f32, cos as f32)).unzip();
            cos.extend(cosines.iter().chain(&cosines));
            sin.extend(sines.iter().map(|sin| -sin).chain(sines.iter().copied()));
        }
        Self {
            cos: Tensor::from_data(TensorData::new(cos, [c, e]), device),
            sin: Tensor::from_data(TensorData::new(sin, [c, e]), device),
        }
    }

    /// Turns `x` as standing at positions `start..start + T`.
    ///
    /// # Shapes
    /// - `x`: `[B, heads, T, E]` -> the same
    pub fn apply(&self, x: Tensor<4>, start: usize) -> Tensor<4> {
        let [_, _, t, e] = x.dims();
        let cos = self.cos.clone().narrow(0, start, t).unsqueeze(); // [1, 1, T, E]
        let sin = self.sin.clone().narrow(0, start, t).unsqueeze(); // [1, 1, T, E]
        let first = x.clone().narrow(3, 0, e / 2); // [B, heads, T, E/2]
        let second = x.clone().narrow(3, e / 2, e / 2); // [B, heads, T, E/2]
        let swapped = Tensor::cat(vec![second, first], 3); // [B, heads, T, E]
        x * cos + swapped * sin
    }
}

/// Radians per token of each pair, `[E/2]`, after scaling as transformers computes it.
pub fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let e = config.head_dim as f64;
    (0..config.head_dim / 2)
        .map(|pair| {
            let frequency = config.rope_theta.powf(-2.0 * pair as f64 / e);
            match config.rope_scaling {
                None => frequency,
                Some(RopeScaling::Linear { factor }) => frequency / factor,
                Some(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings,
                }) => {
                    let turns = original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
                    // 0 for pairs that turn rarely (interpolated), 1 for those that turn often (kept).
                    let keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    frequency * ((1.0 - keep) / factor + keep)
                }
            }
        })
        .collect()
}

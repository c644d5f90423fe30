//! How rotary frequencies are stretched to contexts longer than the training's, as transformers computes it.
//!
//! [`rope`](super::rope) works without it. All methods change how fast a pair turns, so that positions never seen in
//! training give angles that were.

use std::f64::consts::TAU;

use super::rope::plain_frequencies;
use crate::config::{ModelConfig, RopeScaling};

/// Radians per token of each pair, `[E/2]`, in a sequence of S tokens.
pub fn scaled_frequencies(scaling: RopeScaling, config: &ModelConfig, s: usize) -> Vec<f64> {
    let (theta, e) = (config.rope_theta, config.head_dim as f64);
    let plain = || plain_frequencies(theta, config.head_dim);
    match scaling {
        RopeScaling::Linear { factor } => plain().map(|frequency| frequency / factor).collect(),
        RopeScaling::Dynamic { factor } => {
            let longer = (s as f64 / config.max_position_embeddings as f64).max(1.0);
            let theta = theta * (factor * longer - (factor - 1.0)).powf(e / (e - 2.0));
            plain_frequencies(theta, config.head_dim).collect()
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let blend = |frequency: f64| {
                let turns = original_max_position_embeddings as f64 * frequency / TAU;
                // 0 for pairs that turn rarely (interpolated), 1 for those that turn often (kept).
                let keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                frequency * ((1.0 - keep) / factor + keep)
            };
            plain().map(blend).collect()
        }
        RopeScaling::Yarn { factor, original_max_position_embeddings, beta_fast, beta_slow, truncate, .. } => {
            // The pair, as a fraction, that turns so many times over the original context.
            let original = original_max_position_embeddings as f64;
            let pair_of = |turns: f64| e * (original / (turns * TAU)).ln() / (2.0 * theta.ln());
            let (low, high) = (pair_of(beta_fast), pair_of(beta_slow));
            let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
            let (low, high) = (low.max(0.0), high.min(e - 1.0));
            let width = (high - low).max(0.001); // transformers' guard against dividing by 0
            let blend = |(pair, frequency): (usize, f64)| {
                let interpolate = ((pair as f64 - low) / width).clamp(0.0, 1.0);
                frequency * (interpolate / factor + 1.0 - interpolate)
            };
            plain().enumerate().map(blend).collect()
        }
    }
}

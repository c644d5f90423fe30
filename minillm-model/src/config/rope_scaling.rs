//! How rotary frequencies are stretched to contexts longer than the training's: the methods and their numbers. The formulas are
//! in [`layers::rope_scaling`](crate::layers::rope_scaling).

use serde::{Deserialize, Serialize};

use super::ModelConfig;

/// How rotary frequencies are stretched to contexts longer than the training's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScaling {
    /// Every position divided by `factor` (position interpolation, arXiv:2306.15595).
    Linear {
        /// How many times longer the new context is.
        factor: f64,
    },
    /// The base grows once a sequence is longer than `max_position_embeddings` (NTK-aware scaling; Peng et al. 2023,
    /// arXiv:2309.00071, section 3.3). Up to there nothing changes.
    Dynamic {
        /// How many times longer than `max_position_embeddings` a sequence may get.
        factor: f64,
    },
    /// Pairs that turn less than `beta_slow` times over the original context are interpolated, those that turn more than
    /// `beta_fast` times are kept, and attention is sharpened (YaRN; Peng et al. 2023, arXiv:2309.00071).
    Yarn {
        /// How many times longer the new context is.
        factor: f64,
        /// The context of the original training, in tokens.
        original_max_position_embeddings: usize,
        /// Size of the rotated queries and keys; by default `0.1 ln(factor) + 1`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
        /// Turns over the original context, above which a pair is kept.
        #[serde(default = "yarn_beta_fast")]
        beta_fast: f64,
        /// Turns over the original context, below which a pair is interpolated.
        #[serde(default = "yarn_beta_slow")]
        beta_slow: f64,
        /// Whether the bounds of the blend are rounded outwards to whole pairs.
        #[serde(default = "yarn_truncate")]
        truncate: bool,
    },
    /// Slow pairs are interpolated, fast ones kept, those between blended (LLaMA 3.1).
    Llama3 {
        /// How many times longer the new context is.
        factor: f64,
        /// Pairs that turn fewer times than this over the original context are interpolated.
        low_freq_factor: f64,
        /// Pairs that turn more often than this over the original context are kept.
        high_freq_factor: f64,
        /// The context of the original training, in tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// YaRN with the paper's constants, to a context `factor` times `original`.
    pub fn yarn(factor: f64, original: usize) -> Self {
        Self::Yarn {
            factor,
            original_max_position_embeddings: original,
            attention_factor: None,
            beta_fast: yarn_beta_fast(),
            beta_slow: yarn_beta_slow(),
            truncate: yarn_truncate(),
        }
    }

    /// What the rotated queries and keys are multiplied by: above 1 only with YaRN, which so sharpens attention over a
    /// long context.
    pub fn attention_factor(&self) -> f64 {
        match *self {
            Self::Yarn { attention_factor: Some(given), .. } => given,
            Self::Yarn { factor, .. } if factor > 1.0 => 0.1 * factor.ln() + 1.0,
            _ => 1.0,
        }
    }

    /// The longest sequence in tokens: `max_position_embeddings`, or more where the base grows with the sequence.
    pub fn context(&self, config: &ModelConfig) -> usize {
        match *self {
            Self::Dynamic { factor } => (config.max_position_embeddings as f64 * factor) as usize,
            _ => config.max_position_embeddings,
        }
    }

    /// Whether the numbers make sense for `config`; the error says what must hold.
    pub(crate) fn check(&self, config: &ModelConfig) -> Result<(), &'static str> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let (good, must) = match *self {
            Self::Linear { factor } => (positive(factor), "`factor` must be positive"),
            Self::Dynamic { factor } => (
                factor.is_finite() && factor >= 1.0 && config.head_dim > 2,
                "`factor` must be 1 or more, `head_dim` above 2",
            ),
            Self::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings } => {
                (
                    [factor, low, high].into_iter().all(positive) && high > low && original_max_position_embeddings > 0,
                    "all must be positive, and `high_freq_factor` above `low_freq_factor`",
                )
            }
            Self::Yarn { factor, original_max_position_embeddings, attention_factor, beta_fast, beta_slow, .. } => (
                [factor, beta_fast, beta_slow].into_iter().all(positive)
                    && attention_factor.is_none_or(positive)
                    && original_max_position_embeddings > 0
                    && beta_fast > beta_slow
                    && config.rope_theta > 1.0,
                "all must be positive, `beta_fast` above `beta_slow`, and `rope_theta` above 1",
            ),
        };
        if good { Ok(()) } else { Err(must) }
    }
}

/// YaRN's defaults are the paper's.
pub(crate) fn yarn_beta_fast() -> f64 {
    32.0
}

pub(crate) fn yarn_beta_slow() -> f64 {
    1.0
}

fn yarn_truncate() -> bool {
    true
}

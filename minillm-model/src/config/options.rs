//! The `[model]` section of a configuration file: a preset, what differs from it, and how the rest follows.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{AttentionBias, MlpKind, ModelConfig, NormKind, Position, RopeScaling};

/// A named filling of the switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// LayerNorm, learned positions, GELU, biases, tied embeddings.
    Gpt2,
    /// RMSNorm, rotary positions, SwiGLU, no biases.
    #[default]
    Llama,
    /// LLaMA with normalised queries and keys.
    Qwen3,
}

/// The `[model]` section: a preset and whatever differs from it. What is left out follows from the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the fields of `ModelConfig`, each optional
pub struct ModelOptions {
    /// The preset whose switches are the defaults.
    pub preset: Preset,
    /// A model whose architecture and weights the training starts from: a directory, a run, or a GGUF file. Of the other
    /// fields only `dropout` may be set beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    pub vocab_size: Option<usize>,
    pub hidden_size: Option<usize>,
    pub intermediate_size: Option<usize>,
    pub num_hidden_layers: Option<usize>,
    pub num_attention_heads: Option<usize>,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub max_position_embeddings: Option<usize>,
    pub norm: Option<NormKind>,
    pub norm_eps: Option<f64>,
    pub position: Option<Position>,
    pub rope_theta: Option<f64>,
    pub rope_scaling: Option<RopeScaling>,
    pub sliding_window: Option<usize>,
    pub max_window_layers: Option<usize>,
    pub mlp: Option<MlpKind>,
    pub attention_bias: Option<AttentionBias>,
    pub mlp_bias: Option<bool>,
    pub qk_norm: Option<bool>,
    pub tie_word_embeddings: Option<bool>,
    pub dropout: Option<f64>,
    pub initializer_range: Option<f64>,
}

impl ModelOptions {
    /// Fills what was left open: switches from the preset, sizes from one another. The vocabulary comes from the
    /// tokenizer and the context from training, unless the options say otherwise.
    pub fn resolve(&self, vocab_size: usize, context: usize) -> ModelConfig {
        let gpt2 = self.preset == Preset::Gpt2;
        let bias = if gpt2 { AttentionBias::All } else { AttentionBias::None };
        let mlp = self.mlp.unwrap_or(if gpt2 { MlpKind::Gelu } else { MlpKind::Swiglu });
        let hidden_size = self.hidden_size.unwrap_or(128);
        let num_attention_heads = self.num_attention_heads.unwrap_or(4);
        ModelConfig {
            vocab_size: self.vocab_size.unwrap_or(vocab_size),
            hidden_size,
            intermediate_size: self.intermediate_size.unwrap_or(match mlp {
                // SwiGLU has three matrices where GELU has two: 2/3 of the width gives the same parameters.
                // Down to a multiple of 32, which matrix kernels like.
                MlpKind::Swiglu => (hidden_size * 8 / 3 / 32 * 32).max(1),
                _ => 4 * hidden_size,
            }),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(4),
            num_attention_heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(num_attention_heads),
            head_dim: self.head_dim.unwrap_or(hidden_size / num_attention_heads.max(1)),
            max_position_embeddings: self.max_position_embeddings.unwrap_or(context),
            norm: self.norm.unwrap_or(if gpt2 { NormKind::LayerNorm } else { NormKind::RmsNorm }),
            norm_eps: self.norm_eps.unwrap_or(1e-5),
            position: self.position.unwrap_or(if gpt2 { Position::Learned } else { Position::Rope }),
            rope_theta: self.rope_theta.unwrap_or(10_000.0),
            rope_scaling: self.rope_scaling,
            sliding_window: self.sliding_window,
            max_window_layers: self.max_window_layers.unwrap_or(0),
            mlp,
            attention_bias: self.attention_bias.unwrap_or(bias),
            mlp_bias: self.mlp_bias.unwrap_or(gpt2),
            qk_norm: self.qk_norm.unwrap_or(self.preset == Preset::Qwen3),
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(gpt2),
            dropout: self.dropout.unwrap_or(0.0),
            initializer_range: self.initializer_range.unwrap_or(0.02),
        }
    }
}

impl ModelConfig {
    /// The options that resolve to exactly this.
    pub fn to_options(&self, preset: Preset) -> ModelOptions {
        ModelOptions {
            preset,
            from: None,
            vocab_size: Some(self.vocab_size),
            hidden_size: Some(self.hidden_size),
            intermediate_size: Some(self.intermediate_size),
            num_hidden_layers: Some(self.num_hidden_layers),
            num_attention_heads: Some(self.num_attention_heads),
            num_key_value_heads: Some(self.num_key_value_heads),
            head_dim: Some(self.head_dim),
            max_position_embeddings: Some(self.max_position_embeddings),
            norm: Some(self.norm),
            norm_eps: Some(self.norm_eps),
            position: Some(self.position),
            rope_theta: Some(self.rope_theta),
            rope_scaling: self.rope_scaling,
            sliding_window: self.sliding_window,
            max_window_layers: Some(self.max_window_layers),
            mlp: Some(self.mlp),
            attention_bias: Some(self.attention_bias),
            mlp_bias: Some(self.mlp_bias),
            qk_norm: Some(self.qk_norm),
            tie_word_embeddings: Some(self.tie_word_embeddings),
            dropout: Some(self.dropout),
            initializer_range: Some(self.initializer_range),
        }
    }
}

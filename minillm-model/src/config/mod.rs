//! What a model is made of: four switches (norm, position, key/value heads, MLP), a few small ones, and sizes.
//!
//! GPT-2 and LLaMA differ in exactly these fields. A [`Preset`] fills the switches, [`ModelOptions`] (the `[model]`
//! section of a configuration file) overrides any of them, and [`ModelConfig`] is the result with nothing left open.
//! [`ModelConfig::validate`] is the only place that rejects an architecture; behind it every `forward` may assume that
//! the sizes fit. Field names are Hugging Face's; the letters in the comments are explained in the crate's root.

mod attention_bias;
mod options;
pub mod rope_scaling;
mod validate;

use serde::{Deserialize, Serialize};

pub use self::attention_bias::AttentionBias;
pub use self::options::{ModelOptions, Preset};
pub use self::rope_scaling::RopeScaling;

/// How a vector is brought to a standard size before each sub-layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation (GPT-2).
    LayerNorm,
    /// Divide by the root mean square (LLaMA).
    RmsNorm,
}

/// How the model knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// One trained vector per position, added to the embedding (GPT-2).
    Learned,
    /// Queries and keys are rotated by an angle that grows with the position (LLaMA).
    Rope,
    /// Nothing: only the causal mask breaks the symmetry.
    None,
}

/// What happens to each token by itself, between two attentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MlpKind {
    /// `down(gelu(up(x)))` with GELU's tanh form, as GPT-2 was trained.
    Gelu,
    /// The same with the exact GELU, through the error function.
    GeluErf,
    /// `down(silu(gate(x)) * up(x))` (LLaMA).
    Swiglu,
    /// `down(relu(up(x))^2)`.
    Relu2,
}

/// A complete architecture. Any combination of the switches trains and generates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// V: how many different tokens there are.
    pub vocab_size: usize,
    /// D: width of the residual stream.
    pub hidden_size: usize,
    /// F: width of the MLP.
    pub intermediate_size: usize,
    /// L: number of blocks.
    pub num_hidden_layers: usize,
    /// H: query heads.
    pub num_attention_heads: usize,
    /// K: key/value heads. K = H is multi-head attention, K = 1 multi-query, between them grouped-query.
    pub num_key_value_heads: usize,
    /// E: width of one head; usually D / H, but free.
    pub head_dim: usize,
    /// C: the longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// LayerNorm or RMSNorm.
    pub norm: NormKind,
    /// Added to the variance or mean square before the root, so that a zero vector divides by something.
    pub norm_eps: f64,
    /// Learned, rotary or no positions.
    pub position: Position,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Change of the rotary frequencies for long contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// How many tokens back a query may look, itself included; all if absent (Mistral; Beltagy et al. 2020,
    /// arXiv:2004.05150).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// The first so many blocks look at everything in spite of `sliding_window` (Qwen2).
    #[serde(default)]
    pub max_window_layers: usize,
    /// GELU, SwiGLU or squared ReLU.
    pub mlp: MlpKind,
    /// Biases in attention.
    pub attention_bias: AttentionBias,
    /// Biases in the MLP, and in the norms where they are LayerNorm: GPT-2 has both, nanoGPT neither.
    pub mlp_bias: bool,
    /// RMSNorm over each head's query and key (Qwen3).
    pub qk_norm: bool,
    /// The output matrix is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Share of values dropped in training after embedding, attention weights, attention and MLP (where GPT-2 drops).
    pub dropout: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
}

impl ModelConfig {
    /// The longest sequence that the model can look at, in tokens: `max_position_embeddings`, and more where the rotary
    /// base grows with the sequence.
    pub fn context(&self) -> usize {
        self.rope_scaling.map_or(self.max_position_embeddings, |scaling| scaling.context(self))
    }

    /// How many tokens back the queries of block `index` may look; `None` for all.
    pub fn window(&self, index: usize) -> Option<usize> {
        self.sliding_window.filter(|_| index >= self.max_window_layers)
    }
}

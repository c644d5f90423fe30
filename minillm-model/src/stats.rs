//! Sizes and costs as formulas. A test compares them with the model that is built.

use crate::config::{AttentionBias, MlpKind, ModelConfig, NormKind, Position};

/// Parameters by part; the sum is the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// `V D`
    pub embedding: usize,
    /// `C D` where positions are learned
    pub positions: usize,
    /// One block's attention: `2 D H E + 2 D K E`, biases and q/k norms.
    pub attention: usize,
    /// One block's MLP: `3 D F` (SwiGLU) or `2 D F`, and biases.
    pub mlp: usize,
    /// One block's two norms.
    pub norms: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// The norm after the last block.
    pub final_norm: usize,
    /// `D V`, or 0 if tied.
    pub output: usize,
}

impl Parameters {
    /// One block.
    pub fn block(&self) -> usize {
        self.attention + self.mlp + self.norms
    }

    /// The whole model.
    pub fn total(&self) -> usize {
        self.embedding + self.positions + self.blocks * self.block() + self.final_norm + self.output
    }
}

/// Parameters of every part.
pub fn parameters(config: &ModelConfig) -> Parameters {
    let (v, d, f) = (config.vocab_size, config.hidden_size, config.intermediate_size);
    let queries = config.num_attention_heads * config.head_dim; // H E
    let keys = config.num_key_value_heads * config.head_dim; // K E
    let attention_bias = match config.attention_bias {
        AttentionBias::None => 0,
        AttentionBias::Qkv => queries + 2 * keys,
        AttentionBias::All => queries + 2 * keys + d,
    };
    let qk_norm = if config.qk_norm { 2 * config.head_dim } else { 0 };
    let matrices = if config.mlp == MlpKind::Swiglu { 3 } else { 2 };
    let mlp_bias = if config.mlp_bias { (matrices - 1) * f + d } else { 0 };
    let norm = if config.norm == NormKind::LayerNorm && config.mlp_bias { 2 * d } else { d };
    Parameters {
        embedding: v * d,
        positions: if config.position == Position::Learned { config.max_position_embeddings * d } else { 0 },
        attention: 2 * d * queries + 2 * d * keys + attention_bias + qk_norm,
        mlp: matrices * d * f + mlp_bias,
        norms: 2 * norm,
        blocks: config.num_hidden_layers,
        final_norm: norm,
        output: if config.tie_word_embeddings { 0 } else { d * v },
    }
}

/// Floating-point operations of the forward pass for one token, by part: 2 for each multiply-and-add of a matrix (Kaplan et
/// al. 2020, arXiv:2001.08361). What is not a matrix product (looking up a row, norms, activations, softmax) is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flops {
    /// One block's attention matrices: `4 D H E + 4 D K E`.
    pub projections: usize,
    /// One block's scores and mix over `context` tokens: `4 H E context`, counted in full as if nothing were masked
    /// (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
    pub scores: usize,
    /// One block's MLP: `6 D F` (SwiGLU) or `4 D F`.
    pub mlp: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// `2 D V`, tied or not.
    pub output: usize,
}

impl Flops {
    /// The whole model.
    pub fn total(&self) -> usize {
        self.blocks * (self.projections + self.scores + self.mlp) + self.output
    }
}

/// Operations of every part, for one token of a sequence of `context` tokens.
pub fn forward_flops_per_token(config: &ModelConfig, context: usize) -> Flops {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let queries = config.num_attention_heads * config.head_dim; // H E
    let keys = config.num_key_value_heads * config.head_dim; // K E
    let matrices = if config.mlp == MlpKind::Swiglu { 3 } else { 2 };
    Flops {
        projections: 2 * (2 * d * queries + 2 * d * keys),
        scores: 2 * 2 * queries * context,
        mlp: 2 * matrices * d * f,
        blocks: config.num_hidden_layers,
        output: 2 * d * config.vocab_size,
    }
}

/// Floating-point operations to train on one token of a sequence of `context` tokens: the backward pass takes twice those
/// of the forward pass.
pub fn training_flops_per_token(config: &ModelConfig, context: usize) -> usize {
    3 * forward_flops_per_token(config, context).total()
}

/// Bytes the KV cache grows by with each token, in f32: `2 L K E * 4`.
pub fn kv_cache_bytes_per_token(config: &ModelConfig) -> usize {
    2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * size_of::<f32>()
}

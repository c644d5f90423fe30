//! The switches in which models differ, in words.

use minillm_model::config::{MlpKind, ModelConfig, NormKind, Position};

/// `RMSNorm` or `LayerNorm`.
pub fn norm(config: &ModelConfig) -> &'static str {
    match config.norm {
        NormKind::LayerNorm => "LayerNorm",
        NormKind::RmsNorm => "RMSNorm",
    }
}

/// How the model knows the order of its tokens.
pub fn positions(config: &ModelConfig) -> &'static str {
    match config.position {
        Position::Learned => "learned positions",
        Position::Rope => "RoPE",
        Position::None => "no positions",
    }
}

/// The activation of the MLP.
pub fn mlp(config: &ModelConfig) -> String {
    if config.mlp == MlpKind::Swiglu { "SwiGLU".to_owned() } else { format!("{:?}", config.mlp) }
}

/// 8 heads, or 8 heads over 2 for keys and values.
pub fn heads(config: &ModelConfig) -> String {
    match (config.num_attention_heads, config.num_key_value_heads) {
        (h, k) if h == k => format!("{h} heads"),
        (h, k) => format!("{h} heads over {k} for keys and values"),
    }
}

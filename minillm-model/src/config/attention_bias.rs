//! Which of attention's projections carry a bias, and how a file says so.

use serde::{Deserialize, Serialize};

/// Which of attention's four projections carry a bias; in TOML `false`, `true` or `"qkv"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BiasValue", into = "BiasValue")]
pub enum AttentionBias {
    /// No biases (LLaMA).
    None,
    /// Query, key and value, not the output (Qwen2).
    Qkv,
    /// All four (GPT-2).
    All,
}

/// How a file writes [`AttentionBias`].
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BiasValue {
    Flag(bool),
    Only(QkvOnly),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum QkvOnly {
    Qkv,
}

impl AttentionBias {
    /// Whether query, key and value have one, and whether the output has.
    pub fn of_projections(self) -> (bool, bool) {
        (self != Self::None, self == Self::All)
    }
}

impl From<BiasValue> for AttentionBias {
    fn from(value: BiasValue) -> Self {
        match value {
            BiasValue::Flag(false) => Self::None,
            BiasValue::Flag(true) => Self::All,
            BiasValue::Only(QkvOnly::Qkv) => Self::Qkv,
        }
    }
}

impl From<AttentionBias> for BiasValue {
    fn from(bias: AttentionBias) -> Self {
        match bias {
            AttentionBias::None => Self::Flag(false),
            AttentionBias::All => Self::Flag(true),
            AttentionBias::Qkv => Self::Only(QkvOnly::Qkv),
        }
    }
}

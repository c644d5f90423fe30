//! Which foreign model class computes exactly what a configuration describes, and if none does, which switch is in the way.

use crate::config::{AttentionBias, MlpKind, ModelConfig, NormKind, Position};

/// The families whose files we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `LlamaForCausalLM`
    Llama,
    /// `MistralForCausalLM`: LLaMA with a sliding window in every block.
    Mistral,
    /// `Qwen2ForCausalLM`: biases on query, key and value, a window from some block on.
    Qwen2,
    /// `Qwen3ForCausalLM`: normalised queries and keys.
    Qwen3,
    /// `GPT2LMHeadModel`
    Gpt2,
    /// No class of transformers has this combination of switches.
    MiniLlm,
}

impl Family {
    /// The families of others, the plainest first.
    pub const FOREIGN: [Self; 5] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3, Self::Gpt2];

    /// The family that computes exactly what `config` describes.
    pub fn of(config: &ModelConfig) -> Self {
        let fits = |family: &Self| family.blocking_switches(config).is_empty();
        Self::FOREIGN.into_iter().find(fits).unwrap_or(Self::MiniLlm)
    }

    /// The foreign family that `config` comes closest to, with the switches that are in the way.
    pub fn nearest(config: &ModelConfig) -> (Self, Vec<&'static str>) {
        let mut nearest = (Self::MiniLlm, Vec::new());
        for family in Self::FOREIGN {
            let switches = family.blocking_switches(config);
            if nearest.0 == Self::MiniLlm || switches.len() < nearest.1.len() {
                nearest = (family, switches);
            }
        }
        nearest
    }

    /// The fields of `config` with a value that this family does not have.
    pub fn blocking_switches(self, config: &ModelConfig) -> Vec<&'static str> {
        let ModelConfig { attention_bias, mlp_bias, qk_norm, .. } = *config;
        let no_qkv = attention_bias != AttentionBias::Qkv;
        let heads_fill_width = config.head_dim * config.num_attention_heads == config.hidden_size;
        let is_gpt2 = self == Self::Gpt2;
        let gelu = matches!(config.mlp, MlpKind::Gelu | MlpKind::GeluErf);
        let mut required = vec![
            ("norm", config.norm == if is_gpt2 { NormKind::LayerNorm } else { NormKind::RmsNorm }),
            ("position", config.position == if is_gpt2 { Position::Learned } else { Position::Rope }),
            ("mlp", if is_gpt2 { gelu } else { config.mlp == MlpKind::Swiglu }),
        ];
        required.extend(match self {
            Self::Llama => vec![
                ("attention_bias", no_qkv),
                ("qk_norm", !qk_norm),
                ("sliding_window", config.sliding_window.is_none()),
            ],
            Self::Mistral => vec![
                ("attention_bias", attention_bias == AttentionBias::None),
                ("mlp_bias", !mlp_bias),
                ("qk_norm", !qk_norm),
                ("max_window_layers", config.sliding_window.is_none() || config.max_window_layers == 0),
            ],
            Self::Qwen2 => vec![
                ("attention_bias", attention_bias == AttentionBias::Qkv),
                ("mlp_bias", !mlp_bias),
                ("qk_norm", !qk_norm),
                ("head_dim", heads_fill_width),
            ],
            Self::Qwen3 => vec![("attention_bias", no_qkv), ("mlp_bias", !mlp_bias), ("qk_norm", qk_norm)],
            Self::Gpt2 => vec![
                ("num_key_value_heads", config.num_key_value_heads == config.num_attention_heads),
                ("head_dim", heads_fill_width),
                ("attention_bias", attention_bias == AttentionBias::All),
                ("mlp_bias", mlp_bias),
                ("tie_word_embeddings", config.tie_word_embeddings),
                ("qk_norm", !qk_norm),
                ("sliding_window", config.sliding_window.is_none()),
            ],
            Self::MiniLlm => return Vec::new(),
        });
        required.into_iter().filter(|(_, fits)| !fits).map(|(field, _)| field).collect()
    }

    /// `model_type` and class in `config.json`.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("llama", "LlamaForCausalLM"),
            Self::Mistral => ("mistral", "MistralForCausalLM"),
            Self::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Self::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Self::Gpt2 => ("gpt2", "GPT2LMHeadModel"),
            Self::MiniLlm => ("minillm", "MiniLlmForCausalLM"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelOptions, Preset};

    fn preset(preset: Preset) -> ModelConfig {
        ModelOptions { preset, ..ModelOptions::default() }.resolve(64, 32)
    }

    #[test]
    fn presets_are_their_families() {
        assert_eq!(Family::of(&preset(Preset::Llama)), Family::Llama);
        assert_eq!(Family::of(&preset(Preset::Qwen3)), Family::Qwen3);
        assert_eq!(Family::of(&preset(Preset::Gpt2)), Family::Gpt2);
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let llama = preset(Preset::Llama);
        let windowed = ModelConfig { sliding_window: Some(8), ..llama.clone() };
        assert_eq!(Family::of(&windowed), Family::Mistral);
        let later = ModelConfig { max_window_layers: 1, ..windowed.clone() };
        assert_eq!((Family::of(&later), Family::nearest(&later).1), (Family::MiniLlm, vec!["sliding_window"]));
        let squared = ModelConfig { mlp: MlpKind::Relu2, ..llama };
        assert_eq!(Family::nearest(&squared), (Family::Llama, vec!["mlp"]));
        let untied = ModelConfig { tie_word_embeddings: false, ..preset(Preset::Gpt2) };
        assert_eq!(Family::nearest(&untied), (Family::Gpt2, vec!["tie_word_embeddings"]));
    }
}

//! What a model is made of, and what each part costs: the formulas of [`stats`], put into rows.

use minillm_model::config::{ModelConfig, Position};
use minillm_model::stats;
use serde::Serialize;

/// A part of the model, summed over the blocks where each of them has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelPart {
    /// Its name.
    pub name: &'static str,
    /// The number of such parts: one for each block, or one.
    pub count: usize,
    /// Parameters of all `count` parts together.
    pub parameters: usize,
    /// FLOPs of the forward pass, for one token at the end of a full context.
    pub flops_per_token: usize,
    /// Size of the parameters in f32.
    pub bytes: usize,
}

/// What the K/V cache would take with another number of key/value heads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// The number of key/value heads, K.
    pub num_key_value_heads: usize,
    /// Size per token in f32.
    pub bytes_per_token: usize,
    /// Whether this is the K of the model.
    pub is_this_model: bool,
}

/// The whole model in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The architecture.
    pub config: ModelConfig,
    /// The tokens in view for which FLOPs are counted: the model's longest sequence.
    pub context: usize,
    /// The parts of the model in the order of a pass, from token ids to logits.
    pub parts: Vec<ModelPart>,
    /// Parameters of all parts.
    pub parameters: usize,
    /// FLOPs per token of all parts.
    pub flops_per_token: usize,
    /// Size of all parts.
    pub bytes: usize,
    /// K = H first, then every smaller number of key/value heads that H query heads can share.
    pub kv_cache: Vec<Cache>,
}

impl Summary {
    /// The numbers of a model of `config`.
    pub fn new(config: &ModelConfig) -> Self {
        let context = config.context();
        let sizes = stats::parameters(config);
        let flops = stats::forward_flops_per_token(config, context);
        let l = sizes.blocks;
        let part = |name, count, parameters, flops_per_token| {
            let bytes = parameters * size_of::<f32>();
            ModelPart { name, count, parameters, flops_per_token, bytes }
        };
        let mut parts = vec![part("token embedding", 1, sizes.embedding, 0)];
        if config.position == Position::Learned {
            parts.push(part("position embedding", 1, sizes.positions, 0));
        }
        parts.extend([
            part("attention: projections", l, l * sizes.attention, l * flops.projections),
            part("attention: scores and mix", l, 0, l * flops.scores),
            part("MLP", l, l * sizes.mlp, l * flops.mlp),
            part("norms of the blocks", l, l * sizes.norms, 0),
            part("final norm", 1, sizes.final_norm, 0),
            part("output matrix", 1, sizes.output, flops.output),
        ]);
        let h = config.num_attention_heads;
        let cache = |k| Cache {
            num_key_value_heads: k,
            bytes_per_token: stats::kv_cache_bytes_per_token(&ModelConfig { num_key_value_heads: k, ..config.clone() }),
            is_this_model: k == config.num_key_value_heads,
        };
        Self {
            config: config.clone(),
            context,
            parts,
            parameters: sizes.total(),
            flops_per_token: flops.total(),
            bytes: sizes.total() * size_of::<f32>(),
            kv_cache: (1..=h).rev().filter(|k| h.is_multiple_of(*k)).map(cache).collect(),
        }
    }

    /// Bytes that the model's own K/V cache grows by with each token.
    pub fn kv_cache_bytes_per_token(&self) -> usize {
        stats::kv_cache_bytes_per_token(&self.config)
    }
}

#[cfg(test)]
mod tests {
    use minillm_model::config::{ModelOptions, Preset};

    use super::*;

    #[test]
    fn the_parts_are_the_whole() {
        for (preset, k) in [(Preset::Gpt2, 6), (Preset::Llama, 2), (Preset::Qwen3, 1)] {
            let options = ModelOptions {
                preset,
                hidden_size: Some(48),
                num_attention_heads: Some(6),
                num_key_value_heads: Some(k),
                ..ModelOptions::default()
            };
            let summary = Summary::new(&options.resolve(23, 12));
            let sum = |of: fn(&ModelPart) -> usize| summary.parts.iter().map(of).sum::<usize>();
            assert_eq!(sum(|part| part.parameters), summary.parameters);
            assert_eq!(sum(|part| part.flops_per_token), summary.flops_per_token);
            assert_eq!(sum(|part| part.bytes), summary.bytes);
            let heads: Vec<_> = summary.kv_cache.iter().map(|cache| cache.num_key_value_heads).collect();
            assert_eq!(heads, [6, 3, 2, 1]);
            let this: Vec<_> = summary.kv_cache.iter().filter(|cache| cache.is_this_model).collect();
            // 2 L K E numbers of four bytes: L = 4, E = 8.
            assert_eq!((this.len(), this[0].bytes_per_token), (1, 2 * 4 * k * 8 * 4));
        }
    }
}

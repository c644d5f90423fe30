//! One block: attention mixes tokens, the MLP works on each alone, and both *add* to the residual stream.
//!
//! ```text
//! x = x + attention(norm(x))
//! x = x + mlp(norm(x))
//! ```
//!
//! The norm stands before each sub-layer (pre-norm; Xiong et al. 2020, arXiv:2002.04745), so that the sum runs
//! unbroken from the embedding to the output. GPT-2 and LLaMA agree on this.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::ModelConfig;
use crate::kv_cache::Cache;
use crate::layers::attention::{Attention, attention_weights};
use crate::layers::context::ForwardContext;
use crate::layers::gpu::{attention_forward, dropout_forward};
use crate::layers::{Mlp, Norm};

/// A transformer block.
#[derive(Module, Debug)]
pub struct Block {
    /// Before attention.
    pub input_layernorm: Norm,
    /// Mixes tokens.
    pub self_attn: Attention,
    /// Before the MLP.
    pub post_attention_layernorm: Norm,
    /// Works on each token alone.
    pub mlp: Mlp,
    /// Which block of L this is; what dropout draws depends on it.
    #[module(skip)]
    index: usize,
}

impl Block {
    /// Block `index` of L; all are alike, but for a sliding window.
    pub fn new(config: &ModelConfig, index: usize, device: &Device) -> Self {
        Self {
            input_layernorm: Norm::new(config, device),
            self_attn: Attention::new(config, index, device),
            post_attention_layernorm: Norm::new(config, device),
            mlp: Mlp::new(config, device),
            index,
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, T, D]`
    pub fn forward(&self, x: Tensor<3>, cache: Cache, context: &ForwardContext) -> Tensor<3> {
        let drop = |place| context.dropout.in_block(self.index, place);
        let normalized = self.input_layernorm.forward(x.clone(), context);
        let x = x + dropout_forward(attention_forward(&self.self_attn, normalized, cache, &drop(0), context), &drop(1));
        let normalized = self.post_attention_layernorm.forward(x.clone(), context);
        x + dropout_forward(self.mlp.forward(normalized, context), &drop(2))
    }

    /// Where each head looks while [`Block::forward`] is given `x` and no cache.
    ///
    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, H, T, T]`, rows of queries
    pub fn attention_weights(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<4> {
        let ([_, t, _], device) = (x.dims(), x.device());
        let (query, key) = self.self_attn.query_and_key(self.input_layernorm.forward(x, context), context);
        attention_weights(query, key, context.mask(self.self_attn.window).tensor(t, t, &device))
    }
}

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
use crate::kv_cache::LayerCache;
use crate::layers::attention::Attention;
use crate::layers::causal_mask::CausalMask;
use crate::layers::dropout::{Dropout, dropout};
use crate::layers::rope::Rotation;
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
}

impl Block {
    /// One of the L blocks; all are alike.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        Self {
            input_layernorm: Norm::new(config, device),
            self_attn: Attention::new(config, device),
            post_attention_layernorm: Norm::new(config, device),
            mlp: Mlp::new(config, device),
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, T, D]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        mask: &CausalMask,
        cache: Option<&mut LayerCache>,
        drop: &Dropout,
    ) -> Tensor<3> {
        let normalized = self.input_layernorm.forward(x.clone());
        let attended = self.self_attn.forward(normalized, rotation, mask, cache, &drop.at(0));
        let x = x + dropout(attended, &drop.at(1));
        let transformed = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()));
        x + dropout(transformed, &drop.at(2))
    }
}

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
use crate::layers::attention::{Attention, attention_weights};
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
    /// How many tokens back a query may look.
    #[module(skip)]
    window: Option<usize>,
}

/// The rotation of the positions given, and who may look at whom: the same in every block.
#[derive(Debug)]
pub struct Shared {
    rotation: Option<Rotation>,
    full: CausalMask,
    windowed: CausalMask,
}

impl Shared {
    /// For T tokens from position `start` on, whose rotation is given.
    pub fn new(blocks: &[Block], rotation: Option<Rotation>, start: usize, t: usize, device: &Device) -> Self {
        let window = blocks.iter().find_map(|block| block.window);
        let mask = |window| CausalMask::new(t, start + t, window, device);
        Self { rotation, full: mask(None), windowed: mask(window) }
    }
}

impl Block {
    /// Block `index` of L; all are alike, but for the window.
    pub fn new(config: &ModelConfig, index: usize, device: &Device) -> Self {
        Self {
            input_layernorm: Norm::new(config, device),
            self_attn: Attention::new(config, device),
            post_attention_layernorm: Norm::new(config, device),
            mlp: Mlp::new(config, device),
            window: config.window(index),
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, T, D]`
    pub fn forward(&self, x: Tensor<3>, shared: &Shared, cache: Option<&mut LayerCache>, drop: &Dropout) -> Tensor<3> {
        let normalized = self.input_layernorm.forward(x.clone());
        let (rotation, mask) = (shared.rotation.as_ref(), self.mask(shared));
        let attended = self.self_attn.forward(normalized, rotation, mask, cache, &drop.at(0));
        let x = x + dropout(attended, &drop.at(1));
        let transformed = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()));
        x + dropout(transformed, &drop.at(2))
    }

    /// Where each head looks while [`Block::forward`] is given `x` and no cache.
    ///
    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, H, T, T]`, rows of queries
    pub fn attention_weights(&self, x: Tensor<3>, shared: &Shared) -> Tensor<4> {
        let normalized = self.input_layernorm.forward(x);
        let (query, key) = self.self_attn.query_and_key(normalized, shared.rotation.as_ref());
        attention_weights(query, key, self.mask(shared).tensor())
    }

    fn mask<'a>(&self, shared: &'a Shared) -> &'a CausalMask {
        if self.window.is_some() { &shared.windowed } else { &shared.full }
    }
}

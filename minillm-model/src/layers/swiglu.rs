//! SwiGLU (Shazeer 2020, arXiv:2002.05202): an MLP in which one half decides how much of the other passes.
//!
//! ```text
//! SwiGLU(x) = down( silu(gate(x)) * up(x) ),    silu(z) = z * sigmoid(z)
//! ```
//!
//! It replaces GPT-2's `down(gelu(up(x)))`. The product lets one unit multiply two features of the same token, which a
//! unit that bends one sum cannot. Three matrices instead of two: with F at 2/3 of GPT-2's width the parameters and
//! FLOPs are the same.

use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::context::ForwardContext;
use super::linear::Linear;
use crate::config::ModelConfig;

/// LLaMA's gated MLP.
#[derive(Module, Debug)]
pub struct Swiglu {
    /// D -> F: how much passes.
    pub gate_proj: Linear,
    /// D -> F: what passes.
    pub up_proj: Linear,
    /// F -> D: back into the residual stream.
    pub down_proj: Linear,
}

impl Swiglu {
    /// The MLP of one block.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let (d, f, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        Self {
            gate_proj: Linear::new(d, f, bias, device),
            up_proj: Linear::new(d, f, bias, device),
            down_proj: Linear::new(f, d, bias, device),
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, T, D]`
    pub fn forward(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        let gate = self.gate_proj.forward(x.clone(), context); // [B, T, F]
        let up = self.up_proj.forward(x, context); // [B, T, F]
        self.down_proj.forward(silu(gate) * up, context) // [B, T, D]
    }
}

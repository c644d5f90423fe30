//! The layers, one mechanism a file. LLaMA's choice first, GPT-2's beside it.

pub mod attention;
pub mod causal_mask;
pub mod context;
pub mod dropout;
pub mod forms;
pub mod gelu_mlp;
pub mod layer_norm;
pub mod linear;
pub mod rms_norm;
pub mod rope;
pub mod rope_scaling;
pub mod rope_table;
pub mod swiglu;

#[cfg(test)]
mod tests;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::{Mlp as MlpKind, ModelConfig, Norm as NormKind};
use context::ForwardContext;
use gelu_mlp::GeluMlp;
use layer_norm::LayerNorm;
use rms_norm::RmsNorm;
use swiglu::Swiglu;

/// The norm that the configuration chose.
#[derive(Module, Debug)]
pub enum Norm {
    /// LLaMA's.
    Rms(RmsNorm),
    /// GPT-2's.
    Layer(LayerNorm),
}

impl Norm {
    /// A norm over the residual stream.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        match config.norm {
            NormKind::RmsNorm => Self::Rms(RmsNorm::new(config.hidden_size, config.norm_eps, device)),
            NormKind::LayerNorm => {
                Self::Layer(LayerNorm::new(config.hidden_size, config.norm_eps, config.mlp_bias, device))
            }
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, T, D]`
    pub fn forward(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        match self {
            Self::Rms(norm) => forms::rms_norm(norm, x, context),
            Self::Layer(norm) => forms::layer_norm(norm, x, context),
        }
    }
}

/// The MLP that the configuration chose.
#[derive(Module, Debug)]
pub enum Mlp {
    /// LLaMA's.
    Swiglu(Swiglu),
    /// GPT-2's, and squared ReLU in its place.
    Gelu(GeluMlp),
}

impl Mlp {
    /// The MLP of one block.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        match config.mlp {
            MlpKind::Swiglu => Self::Swiglu(Swiglu::new(config, device)),
            _ => Self::Gelu(GeluMlp::new(config, device)),
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, T, D]`
    pub fn forward(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        match self {
            Self::Swiglu(mlp) => forms::swiglu(mlp, x, context),
            Self::Gelu(mlp) => forms::gelu_mlp(mlp, x, context),
        }
    }
}

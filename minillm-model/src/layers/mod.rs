//! The layers, one mechanism per file: LLaMA's choice first, GPT-2's next to it. And here, which form of a layer runs: its own
//! lines, or the fast form in [`ops`] that gives the same numbers in one pass.
//!
//! With `--set train.kernels=readable` (all of [`ComputeOptions`](crate::ops::ComputeOptions) off) every function here calls the layer's
//! own lines; by default it calls the fast form where the device has one. So whoever edits a layer's `forward` either sets
//! that, or changes the fast form, too; a test (`minillm-infer/tests/kernels.rs`) says so. ([`linear::Linear`] chooses for itself.)

pub mod attention;
pub mod causal_mask;
pub mod context;
pub mod documents;
pub mod dropout;
pub mod gelu_mlp;
pub mod gpu;
pub mod layer_norm;
pub mod linear;
pub mod lora;
pub(crate) mod product;
pub mod rms_norm;
pub mod rope;
pub mod rope_scaling;
pub mod rope_table;
pub mod swiglu;

#[cfg(test)]
mod tests;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::config::{MlpKind, ModelConfig, NormKind};
use crate::ops;
use crate::ops::activation::Activation;
use crate::ops::attention::Reach;
use attention::grouped_attention;
use context::ForwardContext;
use dropout::Dropout;
use gelu_mlp::GeluMlp;
use layer_norm::LayerNorm;
use rms_norm::RmsNorm;
use rope::Rotation;
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
            Self::Rms(norm) => rms_norm_forward(norm, x, context),
            Self::Layer(norm) => layer_norm_forward(norm, x, context),
        }
    }
}

/// The MLP that the configuration chose.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one for each block: their size does not matter
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
            Self::Swiglu(mlp) => swiglu_forward(mlp, x, context),
            Self::Gelu(mlp) => gelu_mlp_forward(mlp, x, context),
        }
    }
}

/// [`RmsNorm`] in the form that `context` asks for.
///
/// # Shapes
/// - `x`: `[.., D]` -> the same
pub fn rms_norm_forward<const N: usize>(norm: &RmsNorm, x: Tensor<N>, context: &ForwardContext) -> Tensor<N> {
    if context.compute.norm { ops::rms_norm::rms_norm(x, norm.weight.val(), norm.eps) } else { norm.forward(x) }
}

/// [`LayerNorm`] in the form that `context` asks for.
///
/// # Shapes
/// - `x`: `[.., D]` -> the same
pub fn layer_norm_forward<const N: usize>(norm: &LayerNorm, x: Tensor<N>, context: &ForwardContext) -> Tensor<N> {
    if !context.compute.norm {
        return norm.forward(x);
    }
    let bias = norm.bias.as_ref().map_or_else(|| norm.weight.val().zeros_like(), Param::val);
    ops::layer_norm::layer_norm(x, norm.weight.val(), bias, norm.eps)
}

/// [`Rotation`] in the form that `context` asks for.
///
/// # Shapes
/// - `x`: `[B, heads, T, E]` -> the same
pub fn rotate(rotation: &Rotation, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
    if context.compute.rotary {
        ops::rotary::rotate(x, rotation.cos.clone(), rotation.sin.clone())
    } else {
        rotation.apply(x)
    }
}

/// [`Swiglu`] in the form that `context` asks for.
///
/// # Shapes
/// - `x`: `[B, T, D]` -> the same
pub fn swiglu_forward(mlp: &Swiglu, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
    if !context.compute.activation {
        return mlp.forward(x, context);
    }
    if context.compute.joined && mlp.gate_proj.is_plain() && mlp.up_proj.is_plain() {
        return gpu::swiglu(mlp, x, context);
    }
    let gate = mlp.gate_proj.forward(x.clone(), context); // [B, T, F]
    let up = mlp.up_proj.forward(x, context); // [B, T, F]
    mlp.down_proj.forward(ops::swiglu::swiglu(gate, up), context) // [B, T, D]
}

/// [`GeluMlp`] in the form that `context` asks for.
///
/// # Shapes
/// - `x`: `[B, T, D]` -> the same
pub fn gelu_mlp_forward(mlp: &GeluMlp, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
    let kind = match mlp.activation {
        MlpKind::Gelu if context.compute.activation => Activation::GeluTanh,
        MlpKind::Relu2 if context.compute.activation => Activation::Relu2,
        _ => return mlp.forward(x, context), // an activation without a fast form
    };
    let up = mlp.up_proj.forward(x, context); // [B, T, F]
    mlp.down_proj.forward(ops::activation::activation(up, kind), context) // [B, T, D]
}

/// Attention's core in the form that `context` asks for: every query's mix of the values.
///
/// # Shapes
/// - `query`: `[B, H, T, E]`, `key` and `value`: `[B, K, S, E]` -> `[B, H, T, E]`
pub fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    window: Option<usize>,
    drop: &Dropout,
    context: &ForwardContext,
) -> Tensor<4> {
    if context.compute.attention && drop.is_off() {
        let [query, key, value] = [query, key, value].map(|x| context.compute.precision.round(x));
        return ops::attention::causal_attention(query, key, value, Reach { window, starts: context.starts() });
    }
    let (t, s, device) = (query.dims()[2], key.dims()[2], query.device());
    grouped_attention(query, key, value, context.mask(window).tensor(t, s, &device), drop)
}

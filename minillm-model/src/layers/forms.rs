//! Which form of an operation runs: the layer's own lines, or the fast form in [`ops`] that gives the same
//! numbers in one pass.
//!
//! This is the only place that decides. With `--set train.kernels=readable` (all of [`ComputeOptions`] off) every function here
//! calls the readable lines; by default it calls the fast form where the device has one. Whoever edits a layer's
//! `forward` therefore either sets that, or changes the fast form, too: the test `edited_layers_match_their_fast_forms` says so.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{FloatDType, Tensor, module};

use super::attention::grouped_attention;
use super::context::ForwardContext;
use super::dropout::Dropout;
use super::gelu_mlp::GeluMlp;
use super::layer_norm::LayerNorm;
use super::rms_norm::RmsNorm;
use super::rope::Rotation;
use super::swiglu::Swiglu;
use crate::config;
use crate::ops::activation::{Activation, activation};
use crate::ops::generation::{QuantizedMatrix, quantized_matmul};
use crate::ops::{self, Precision};

/// # Shapes
/// - `x`: `[.., D]` -> the same
pub fn rms_norm<const N: usize>(norm: &RmsNorm, x: Tensor<N>, context: &ForwardContext) -> Tensor<N> {
    if context.compute.norm { ops::rms_norm::rms_norm(x, norm.weight.val(), norm.eps) } else { norm.forward(x) }
}

/// # Shapes
/// - `x`: `[.., D]` -> the same
pub fn layer_norm<const N: usize>(norm: &LayerNorm, x: Tensor<N>, context: &ForwardContext) -> Tensor<N> {
    if !context.compute.norm {
        return norm.forward(x);
    }
    let bias = norm.bias.as_ref().map_or_else(|| norm.weight.val().zeros_like(), Param::val);
    ops::layer_norm::layer_norm(x, norm.weight.val(), bias, norm.eps)
}

/// # Shapes
/// - `x`: `[B, heads, T, E]` -> the same
pub fn rotate(rotation: &Rotation, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
    if context.compute.rotary {
        ops::rotary::rotate(x, rotation.cos.clone(), rotation.sin.clone())
    } else {
        rotation.apply(x)
    }
}

/// # Shapes
/// - `x`: `[B, T, D]` -> the same
pub fn swiglu(mlp: &Swiglu, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
    if !context.compute.activation {
        return mlp.forward(x, context);
    }
    let gate = mlp.gate_proj.forward(x.clone(), context); // [B, T, F]
    let up = mlp.up_proj.forward(x, context); // [B, T, F]
    mlp.down_proj.forward(ops::swiglu::swiglu(gate, up), context) // [B, T, D]
}

/// # Shapes
/// - `x`: `[B, T, D]` -> the same
pub fn gelu_mlp(mlp: &GeluMlp, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
    let kind = match mlp.activation {
        config::Mlp::Gelu if context.compute.activation => Activation::GeluTanh,
        config::Mlp::Relu2 if context.compute.activation => Activation::Relu2,
        _ => return mlp.forward(x, context), // an activation without a fast form
    };
    let up = mlp.up_proj.forward(x, context); // [B, T, F]
    mlp.down_proj.forward(activation(up, kind), context) // [B, T, D]
}

/// Attention's core: every query's mix of the values.
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
        return ops::attention::causal_attention(query, key, value, window);
    }
    let (t, s, device) = (query.dims()[2], key.dims()[2], query.device());
    grouped_attention(query, key, value, context.mask(window).tensor(t, s, &device), drop)
}

/// `x W + b`
///
/// # Shapes
/// - `x`: `[B, T, input]`, `weight`: `[input, output]` -> `[B, T, output]`
pub fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>, context: &ForwardContext) -> Tensor<3> {
    match context.compute.precision {
        Precision::F32 if context.compute.matmul => add_bias(ops::matmul::matmul(x, weight), bias),
        Precision::F32 => module::linear(x, weight, bias),
        lower => {
            let product = module::linear(lower.round(x), lower.round(weight), None);
            add_bias(product.cast(FloatDType::F32), bias)
        }
    }
}

/// `x W + b` with W in 8 bits.
///
/// # Shapes
/// - `x`: `[B, T, input]` -> `[B, T, output]`
pub fn quantized_linear(x: Tensor<3>, matrix: &Arc<QuantizedMatrix>, bias: Option<Tensor<1>>) -> Tensor<3> {
    add_bias(quantized_matmul(x, matrix), bias)
}

/// The output matrix of a model without one: its embedding, transposed.
///
/// # Shapes
/// - `hidden`: `[B, T, D]`, `embedding`: `[V, D]` -> `[B, T, V]`
pub fn tied_head(hidden: Tensor<3>, embedding: Tensor<2>, context: &ForwardContext) -> Tensor<3> {
    if context.compute.matmul {
        ops::matmul::matmul(hidden, embedding.transpose())
    } else {
        hidden.matmul(embedding.transpose().unsqueeze())
    }
}

fn add_bias(x: Tensor<3>, bias: Option<Tensor<1>>) -> Tensor<3> {
    match bias {
        Some(bias) => x + bias.unsqueeze(),
        None => x,
    }
}

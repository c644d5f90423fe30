//! Products with a layer's matrix, in the form and the precision that a pass asks for.

use std::sync::Arc;

use burn::tensor::{FloatDType, Tensor, module};

use super::context::ForwardContext;
use crate::ops::quantized::{QuantizedMatrix, quantized_matmul};
use crate::ops::{self, Precision};

/// `x W + b`
///
/// # Shapes
/// - `x`: `[B, T, input]`, `weight`: `[input, output]` -> `[B, T, output]`
pub(super) fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>, context: &ForwardContext) -> Tensor<3> {
    match context.compute.precision {
        Precision::F32 if context.compute.matmul => add_bias(ops::matmul::matmul(x, weight), bias),
        Precision::F32 if context.compute.flat_products => add_bias(flat_product(x, weight), bias),
        Precision::F32 => module::linear(x, weight, bias),
        lower => {
            let product = if context.compute.flat_products {
                flat_product(lower.round(x), lower.round(weight))
            } else {
                module::linear(lower.round(x), lower.round(weight), None)
            };
            add_bias(product.cast(FloatDType::F32), bias)
        }
    }
}

/// `x W` of all rows at once. Where it multiplies each sequence by itself, Burn also makes a gradient of W for each, and adds them.
///
/// # Shapes
/// - `x`: `[B, T, input]`, `weight`: `[input, output]` -> `[B, T, output]`
pub(super) fn flat_product(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    let ([b, t, input], [_, output]) = (x.dims(), weight.dims());
    x.reshape([1, b * t, input]).matmul(weight.unsqueeze()).reshape([b, t, output])
}

/// The output matrix of a model without one: its embedding, transposed; for generation maybe in 8 bits.
///
/// # Shapes
/// - `hidden`: `[B, T, D]`, `embedding`: `[V, D]` -> `[B, T, V]`
pub(crate) fn tied_head(
    hidden: Tensor<3>,
    embedding: Tensor<2>,
    in_8_bits: Option<&Arc<QuantizedMatrix>>,
    context: &ForwardContext,
) -> Tensor<3> {
    if let Some(matrix) = in_8_bits {
        quantized_matmul(hidden, matrix)
    } else if context.compute.matmul {
        ops::matmul::matmul(hidden, embedding.transpose())
    } else if context.compute.flat_products {
        flat_product(hidden, embedding.transpose())
    } else {
        hidden.matmul(embedding.transpose().unsqueeze())
    }
}

pub(super) fn add_bias(x: Tensor<3>, bias: Option<Tensor<1>>) -> Tensor<3> {
    match bias {
        Some(bias) => x + bias.unsqueeze(),
        None => x,
    }
}

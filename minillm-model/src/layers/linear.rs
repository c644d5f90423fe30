//! A matrix, and maybe a bias: what most of a model's numbers are.
//!
//! ```text
//! linear(x) = x W + b
//! ```

use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Tensor, module};

use super::context::ForwardContext;
use super::lora::Lora;
use crate::ops::quantized::{QuantizedMatrix, quantized_matmul};
use crate::ops::{self, Precision};

/// `x W + b` with a weight of `[input, output]`; PyTorch and its files have `[output, input]`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[input, output]`
    pub weight: Param<Tensor<2>>,
    /// `[output]`
    pub bias: Option<Param<Tensor<1>>>,
    /// An adapter beside the weight, while it is trained.
    pub lora: Option<Lora>,
    /// The weight in 8 bits instead, for generation; `weight` is then empty.
    #[module(skip)]
    pub(crate) quantized: Option<Arc<QuantizedMatrix>>,
}

impl Linear {
    /// A layer that is all zero. [`init`](crate::init) or a checkpoint fills it; zeros draw nothing from Burn's global
    /// generator.
    pub fn new(input: usize, output: usize, bias: bool, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([input, output], device),
            bias: bias.then(|| Initializer::Zeros.init([output], device)),
            lora: None,
            quantized: None,
        }
    }

    /// Whether `weight` is all that there is.
    pub(super) fn is_plain(&self) -> bool {
        self.quantized.is_none() && self.lora.is_none()
    }

    /// # Shapes
    /// - `x`: `[B, T, input]` -> `[B, T, output]`
    pub fn forward(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        let bias = self.bias.as_ref().map(Param::val);
        let out = match &self.quantized {
            Some(matrix) => add_bias(quantized_matmul(x.clone(), matrix), bias),
            None => linear(x.clone(), self.weight.val(), bias, context),
        };
        match &self.lora {
            Some(lora) => out + lora.forward(x, context),
            None => out,
        }
    }
}

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

fn add_bias(x: Tensor<3>, bias: Option<Tensor<1>>) -> Tensor<3> {
    match bias {
        Some(bias) => x + bias.unsqueeze(),
        None => x,
    }
}

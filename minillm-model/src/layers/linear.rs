//! A matrix, and maybe a bias: what most of a model's numbers are.
//!
//! ```text
//! linear(x) = x W + b
//! ```

use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::linear;
use burn::tensor::{Device, FloatDType, Tensor};

use crate::ops::linear::{QuantizedMatrix, product, quantized};
use crate::ops::{Kernels, Precision};

/// `x W + b` with a weight of `[input, output]`; PyTorch and its files have `[output, input]`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[input, output]`
    pub weight: Param<Tensor<2>>,
    /// `[output]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Which form computes.
    #[module(skip)]
    pub kernels: Kernels,
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
            kernels: Kernels::fastest(device),
            quantized: None,
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, input]` -> `[B, T, output]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self.bias.as_ref().map(Param::val);
        let out = match &self.quantized {
            Some(matrix) => quantized(x, matrix),
            None => match self.kernels.precision {
                Precision::F32 if self.kernels.product => product(x, self.weight.val()),
                Precision::F32 => return linear(x, self.weight.val(), bias),
                precision => linear(precision.round(x), precision.round(self.weight.val()), None).cast(FloatDType::F32),
            },
        };
        match bias {
            Some(bias) => out + bias.unsqueeze(),
            None => out,
        }
    }
}

/// The output matrix of a model without one: its embedding, transposed.
///
/// # Shapes
/// - `hidden`: `[B, T, D]`, `embedding`: `[V, D]` -> `[B, T, V]`
pub(crate) fn tied_head(
    hidden: Tensor<3>,
    embedding: Tensor<2>,
    kernels: Kernels,
    in_8_bits: Option<&Arc<QuantizedMatrix>>,
) -> Tensor<3> {
    match in_8_bits {
        Some(matrix) => quantized(hidden, matrix),
        None if kernels.product => product(hidden, embedding.transpose()),
        None => hidden.matmul(embedding.transpose().unsqueeze()),
    }
}

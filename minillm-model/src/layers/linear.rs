//! A matrix, and maybe a bias: what most of a model's numbers are.
//!
//! ```text
//! linear(x) = x W + b
//! ```

use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

use super::context::ForwardContext;
use super::lora::Lora;
use super::product::{add_bias, linear};
use crate::ops::quantized::{QuantizedMatrix, quantized_matmul};

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

    /// The layer without its adapter.
    fn own(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        let bias = self.bias.as_ref().map(Param::val);
        match &self.quantized {
            Some(matrix) => add_bias(quantized_matmul(x, matrix), bias),
            None => linear(x, self.weight.val(), bias, context),
        }
    }

    /// Whether `weight` is all that there is.
    pub(super) fn is_plain(&self) -> bool {
        self.quantized.is_none() && self.lora.is_none()
    }

    /// # Shapes
    /// - `x`: `[B, T, input]` -> `[B, T, output]`
    pub fn forward(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        match &self.lora {
            Some(lora) => self.own(x.clone(), context) + lora.forward(x, context),
            None => self.own(x, context),
        }
    }
}

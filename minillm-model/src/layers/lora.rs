//! LoRA, low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): two thin matrices beside one that stays as it is.
//!
//! ```text
//! y = x W + s (x A) B        A: [input, r], B: [r, output], s = alpha / r
//! ```
//!
//! B begins with zeros, so at first nothing has changed; what is learned is the product A B, of rank r. In place of a matrix's
//! `input * output` numbers `r (input + output)` are trained: gradients and the optimiser's state shrink alike, and one model can have many
//! adapters. With s = alpha / sqrt(r) the size of the change does not fall with the rank (rsLoRA; Kalajdzievski 2023, arXiv:2312.03732).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::context::ForwardContext;
use super::product::linear;

/// The two matrices beside a linear layer's own.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[input, r]`
    pub a: Param<Tensor<2>>,
    /// `[r, output]`
    pub b: Param<Tensor<2>>,
    /// s.
    #[module(skip)]
    pub scale: f64,
}

impl Lora {
    /// What is added to the layer's output.
    ///
    /// # Shapes
    /// - `x`: `[B, T, input]` -> `[B, T, output]`
    pub fn forward(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        let narrow = linear(x, self.a.val(), None, context); // [B, T, r]
        linear(narrow, self.b.val(), None, context) * self.scale // [B, T, output]
    }

    /// What is added to the layer's matrix: the same.
    ///
    /// # Shapes
    /// - -> `[input, output]`
    pub fn product(&self) -> Tensor<2> {
        self.a.val().matmul(self.b.val()) * self.scale
    }
}

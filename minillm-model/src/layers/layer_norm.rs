//! LayerNorm (Ba et al. 2016, arXiv:1607.06450): GPT-2's norm, beside which `rms_norm` is to be read.
//!
//! ```text
//! LayerNorm(x) = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
//! ```

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

/// Normalisation to mean zero and variance one over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale of each feature, `[D]`; starts at one.
    pub weight: Param<Tensor<1>>,
    /// Shift of each feature, `[D]`; starts at zero. nanoGPT's models go without.
    pub bias: Option<Param<Tensor<1>>>,
    pub(super) eps: f64,
}

impl LayerNorm {
    /// A norm over vectors of `width` values.
    pub fn new(width: usize, eps: f64, bias: bool, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([width], device),
            bias: bias.then(|| Initializer::Zeros.init([width], device)),
            eps,
        }
    }

    /// # Shapes
    /// - `x`: `[.., D]` -> `[.., D]`
    pub fn forward<const N: usize>(&self, x: Tensor<N>) -> Tensor<N> {
        let centred = x.clone() - x.mean_dim(N - 1); // [.., D]
        let variance = centred.clone().square().mean_dim(N - 1); // [.., 1], divided by D, not D - 1
        let scaled = centred * (variance + self.eps).sqrt().recip() * self.weight.val().unsqueeze();
        match &self.bias {
            Some(bias) => scaled + bias.val().unsqueeze(),
            None => scaled,
        }
    }
}

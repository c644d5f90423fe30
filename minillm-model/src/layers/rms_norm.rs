//! RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467): bring every vector to the same length, keep its direction.
//!
//! ```text
//! RMSNorm(x) = x / sqrt(mean(x^2) + eps) * weight
//! ```
//!
//! It replaces GPT-2's LayerNorm, which also subtracts the mean and adds a bias. Dropping both leaves one reduction
//! instead of two and one parameter vector instead of two. In a pre-norm block it stands before attention and before
//! the MLP, so each sees inputs of a steady size while the residual stream itself is free to grow.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

/// Root-mean-square normalisation over the last dimension.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Scale of each feature, `[D]`; starts at one.
    pub weight: Param<Tensor<1>>,
    pub(super) eps: f64,
}

impl RmsNorm {
    /// A norm over vectors of `width` values.
    pub fn new(width: usize, eps: f64, device: &Device) -> Self {
        Self { weight: Initializer::Ones.init([width], device), eps }
    }

    /// # Shapes
    /// - `x`: `[.., D]` -> `[.., D]`
    pub fn forward<const N: usize>(&self, x: Tensor<N>) -> Tensor<N> {
        let mean_square = x.clone().square().mean_dim(N - 1); // [.., 1]
        let scale = (mean_square + self.eps).sqrt().recip(); // [.., 1]
        x * scale * self.weight.val().unsqueeze()
    }
}

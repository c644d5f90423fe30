//! The fast form of [`RmsNorm`](crate::layers::rms_norm::RmsNorm).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, record};

/// Backends with the fast form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub trait RmsNormOp: Backend {
    /// `x`: `[.., D]`, `weight`: `[D]` -> as `x`
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
}

/// Its backward pass.
pub trait RmsNormBackward: Backend {
    /// Gradients of `x` and of `weight`.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> [FloatTensor<Self>; 2];
}

impl<B: RmsNormOp + RmsNormBackward, C: CheckpointStrategy> RmsNormOp for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        record::<B, C, _, 2>(
            [x, weight],
            |[x, weight]| B::rms_norm(x, weight, eps),
            |[x, weight]| (B::rms_norm(x.clone(), weight.clone(), eps), (x, weight, eps)),
            |(x, weight, eps), grad| B::rms_norm_backward(x, weight, grad, eps),
        )
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight`
///
/// # Shapes
/// - `x`: `[.., D]`, `weight`: `[D]` -> `[.., D]`
pub fn rms_norm<const N: usize>(x: Tensor<N>, weight: Tensor<1>, eps: f64) -> Tensor<N> {
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

//! The fast form of [`LayerNorm`](crate::layers::layer_norm::LayerNorm).

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
pub trait LayerNormOp: Backend {
    /// `x`: `[.., D]`, `weight` and `bias`: `[D]` -> as `x`
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;
}

/// Its backward pass.
pub trait LayerNormBackward: Backend {
    /// Gradients of `x`, of `weight` and of `bias`.
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> [FloatTensor<Self>; 3];
}

impl<B: LayerNormOp + LayerNormBackward, C: CheckpointStrategy> LayerNormOp for Autodiff<B, C> {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        record::<B, C, _, 3>(
            [x, weight, bias],
            |[x, weight, bias]| B::layer_norm_forward(x, weight, bias, eps),
            |[x, weight, bias]| (B::layer_norm_forward(x.clone(), weight.clone(), bias, eps), (x, weight, eps)),
            |(x, weight, eps), grad| B::layer_norm_backward(x, weight, grad, eps),
        )
    }
}

/// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`
///
/// # Shapes
/// - `x`: `[.., D]`, `weight` and `bias`: `[D]` -> `[.., D]`
pub fn layer_norm<const N: usize>(x: Tensor<N>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<N> {
    let [weight, bias] = [weight, bias].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::layer_norm_forward(x.into_dispatch(), weight, bias, eps))
}

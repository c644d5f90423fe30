//! The fast form of the activation in [`GeluMlp`](crate::layers::gelu_mlp::GeluMlp).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, record};

/// The activations that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GELU in its tanh form.
    GeluTanh,
    /// `max(z, 0)^2`
    Relu2,
}

/// Backends with the fast form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub trait ActivationOp: Backend {
    /// The activation of each number.
    fn activation(z: FloatTensor<Self>, kind: Activation) -> FloatTensor<Self>;
}

/// Its backward pass.
pub trait ActivationBackward: Backend {
    /// The gradient of `z`.
    fn activation_backward(z: FloatTensor<Self>, grad: FloatTensor<Self>, kind: Activation) -> FloatTensor<Self>;
}

impl<B: ActivationOp + ActivationBackward, C: CheckpointStrategy> ActivationOp for Autodiff<B, C> {
    fn activation(z: FloatTensor<Self>, kind: Activation) -> FloatTensor<Self> {
        record::<B, C, _, 1>(
            [z],
            |[z]| B::activation(z, kind),
            |[z]| (B::activation(z.clone(), kind), (z, kind)),
            |(z, kind), grad| [B::activation_backward(z, grad, kind)],
        )
    }
}

/// The activation of each number.
///
/// # Shapes
/// - `z`: `[B, T, F]` -> the same
pub fn activation(z: Tensor<3>, kind: Activation) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::activation(z.into_dispatch(), kind))
}

//! The fast form of the gate in [`Swiglu`](crate::layers::swiglu::Swiglu).

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
pub trait SwigluOp: Backend {
    /// `silu(gate) * up`, all of one shape.
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Its backward pass.
pub trait SwigluBackward: Backend {
    /// Gradients of `gate` and of `up`.
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

impl<B: SwigluOp + SwigluBackward, C: CheckpointStrategy> SwigluOp for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 2>(
            [gate, up],
            |[gate, up]| B::swiglu(gate, up),
            |[gate, up]| (B::swiglu(gate.clone(), up.clone()), (gate, up)),
            |(gate, up), grad| B::swiglu_backward(gate, up, grad),
        )
    }
}

/// `silu(gate) * up`
///
/// # Shapes
/// - `gate`, `up`: `[B, T, F]` -> the same
pub fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// Backends with the form of one product for gate and up.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub trait JoinedSwigluOp: Backend {
    /// `silu(gate) * up` of `[B, T, 2 F]`, gate before up -> `[B, T, F]`
    fn joined_swiglu(both: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Its backward pass.
pub trait JoinedSwigluBackward: Backend {
    /// The gradient of gate and up, side by side.
    fn joined_swiglu_backward(both: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: JoinedSwigluOp + JoinedSwigluBackward, C: CheckpointStrategy> JoinedSwigluOp for Autodiff<B, C> {
    fn joined_swiglu(both: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 1>(
            [both],
            |[both]| B::joined_swiglu(both),
            |[both]| (B::joined_swiglu(both.clone()), both),
            |both, grad| [B::joined_swiglu_backward(both, grad)],
        )
    }
}

/// [`swiglu`] where gate and up are side by side.
///
/// # Shapes
/// - `both`: `[B, T, 2 F]` -> `[B, T, F]`
pub fn joined_swiglu(both: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::joined_swiglu(both.into_dispatch()))
}

//! The fast form of [`Rotation::apply`](crate::layers::rope::Rotation::apply).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, record};

/// Which way to turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Rotation by the angles of the tables.
    Forward,
    /// By their negatives: the inverse, and so the backward pass.
    Inverse,
}

/// Backends with the fast form. The backward pass is the same operation in the inverse direction.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub trait RotaryOp: Backend {
    /// `x`: `[B, heads, T, E]`, `cos` and `sin`: `[1, 1, T, E]` -> as `x`
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: Direction,
    ) -> FloatTensor<Self>;
}

impl<B: RotaryOp, C: CheckpointStrategy> RotaryOp for Autodiff<B, C> {
    /// The tables are constants: `direction` is always forward here, and only `x` has a gradient.
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: Direction,
    ) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let saved = (cos.clone(), sin.clone());
        record::<B, C, _, 1>(
            [x],
            |[x]| B::rotate(x, cos.clone(), sin.clone(), direction),
            |[x]| (B::rotate(x, cos.clone(), sin.clone(), direction), saved),
            |(cos, sin), grad| [B::rotate(grad, cos, sin, Direction::Inverse)],
        )
    }
}

/// Turns each pair of values of `x` by the angles of its position.
///
/// # Shapes
/// - `x`: `[B, heads, T, E]`, `cos` and `sin`: `[1, 1, T, E]`, as in [`Rotation`](crate::layers::rope::Rotation)
///   -> as `x`
pub fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let [x, cos, sin] = [x, cos, sin].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::rotate(x, cos, sin, Direction::Forward))
}

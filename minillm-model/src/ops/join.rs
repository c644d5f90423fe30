//! Matrices side by side as one, so that products with the same factor become one: `x [Wq | Wk | Wv]`. On a GPU a launch and a small
//! product are dear; parameters and files keep the parts.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, record};

/// Backends with this operation.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub trait JoinOp: Backend {
    /// `[rows, a]`, `[rows, b]` -> `[rows, a + b]`
    fn join_two(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[rows, a]`, `[rows, b]`, `[rows, c]` -> `[rows, a + b + c]`
    fn join_three(a: FloatTensor<Self>, b: FloatTensor<Self>, c: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Its backward pass.
pub trait JoinBackward: Backend {
    /// `joined` cut into matrices of these widths.
    fn cut<const N: usize>(joined: FloatTensor<Self>, widths: [usize; N]) -> [FloatTensor<Self>; N];
}

/// The widths of matrices.
fn widths<B: Backend, const N: usize>(parts: &[FloatTensor<B>; N]) -> [usize; N] {
    parts.each_ref().map(|part| part.shape()[1])
}

impl<B: JoinOp + JoinBackward, C: CheckpointStrategy> JoinOp for Autodiff<B, C> {
    fn join_two(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 2>(
            [a, b],
            |[a, b]| B::join_two(a, b),
            |parts| {
                let widths = widths::<B, 2>(&parts);
                let [a, b] = parts;
                (B::join_two(a, b), widths)
            },
            |widths, grad| B::cut(grad, widths),
        )
    }

    fn join_three(a: FloatTensor<Self>, b: FloatTensor<Self>, c: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, 3>(
            [a, b, c],
            |[a, b, c]| B::join_three(a, b, c),
            |parts| {
                let widths = widths::<B, 3>(&parts);
                let [a, b, c] = parts;
                (B::join_three(a, b, c), widths)
            },
            |widths, grad| B::cut(grad, widths),
        )
    }
}

/// Two matrices side by side.
///
/// # Shapes
/// - `[rows, a]`, `[rows, b]` -> `[rows, a + b]`
pub fn join_two([a, b]: [Tensor<2>; 2]) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::join_two(a.into_dispatch(), b.into_dispatch()))
}

/// Three matrices side by side.
///
/// # Shapes
/// - `[rows, a]`, `[rows, b]`, `[rows, c]` -> `[rows, a + b + c]`
pub fn join_three(parts: [Tensor<2>; 3]) -> Tensor<2> {
    let [a, b, c] = parts.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::join_three(a, b, c))
}

//! The fast form of the embedding: looking up rows is a copy, but its backward pass adds rows that meet, in a fixed order.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, record};

/// Backends with the fast form.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub trait EmbeddingOp: Backend {
    /// `table`: `[V, D]`, `ids`: `[B, T]` -> `[B, T, D]`
    fn look_up(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self>;
}

/// Its backward pass.
pub trait EmbeddingBackward: Backend {
    /// The gradient of a table of `rows` rows: `[rows, D]`.
    fn look_up_backward(ids: IntTensor<Self>, grad: FloatTensor<Self>, rows: usize) -> FloatTensor<Self>;
}

impl<B: EmbeddingOp + EmbeddingBackward, C: CheckpointStrategy> EmbeddingOp for Autodiff<B, C> {
    fn look_up(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let same = ids.clone();
        record::<B, C, _, 1>(
            [table],
            |[table]| B::look_up(table, ids),
            |[table]| {
                let rows = burn::backend::TensorMetadata::shape(&table)[0];
                (B::look_up(table, same.clone()), (same, rows))
            },
            |(ids, rows), grad| [B::look_up_backward(ids, grad, rows)],
        )
    }
}

/// The rows of `table` that `ids` name.
///
/// # Shapes
/// - `table`: `[V, D]`, `ids`: `[B, T]` -> `[B, T, D]`
pub fn look_up(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::look_up(table.into_dispatch(), ids.into_dispatch()))
}

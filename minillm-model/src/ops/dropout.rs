//! The fast form of dropout: one pass over the values, which hashes and multiplies; and what attention needs to drop weights that are
//! never in memory. The masks are those of [`layers::dropout`](crate::layers::dropout), bit for bit.

// Built without a GPU's backend, the dispatch to one has nothing to do with its arguments.
#![cfg_attr(not(feature = "cube"), allow(unused_variables))]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, record};

/// Which values are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// The first of this place's rows in the table of seeds, which has a row for each sequence at each place.
    pub first_row: usize,
    /// Sequences: B. Their values lie one behind the other.
    pub sequences: usize,
    /// Of 2^31: values whose hash is below are dropped.
    pub threshold: u32,
    /// What the others are multiplied by.
    pub factor: f32,
}

/// Backends with this operation.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub trait DropoutOp: Backend {
    /// `x`: `[..]`, `seeds`: `[rows, 2]` -> the shape of `x`
    fn dropout(x: FloatTensor<Self>, seeds: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;
}

impl<B: DropoutOp, C: CheckpointStrategy> DropoutOp for Autodiff<B, C> {
    /// Linear: the gradient is dropped where the value was. Seeds are constants.
    fn dropout(x: FloatTensor<Self>, seeds: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let (seeds, saved) = (seeds.clone().into_primitive(), seeds.into_primitive());
        record::<B, C, _, 1>(
            [x],
            |[x]| B::dropout(x, seeds.clone(), mask),
            |[x]| (B::dropout(x, seeds.clone(), mask), (saved, mask)),
            |(seeds, mask), grad| [B::dropout(grad, seeds, mask)],
        )
    }
}

/// Zeroes a share of `x` and multiplies the rest.
///
/// # Shapes
/// - `x`: `[..]`, the B sequences one behind the other; `seeds`: `[rows, 2]`, of each seed's 31 bits the upper 15 and the lower 16, as numbers
///   that f32 holds exactly -> the shape of `x`
pub fn dropout<const N: usize>(x: Tensor<N>, seeds: Tensor<2>, mask: Mask) -> Tensor<N> {
    Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), seeds.into_dispatch(), mask))
}

//! The fast form of [`grouped_attention`](crate::layers::attention::grouped_attention): its memory grows with T, not with
//! T squared.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, record};
use super::portable;
pub use super::portable::attention::{Reach, SavedForBackward};

/// Backends with the fast form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(feature = "cube"),
    Autodiff,
)]
pub trait AttentionOp: Backend {
    /// `query`: `[B, H, T, E]`, `key` and `value`: `[B, K, S, E]` -> `[B, H, T, E]`
    fn causal_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        reach: Reach,
    ) -> FloatTensor<Self> {
        portable::attention::forward::<Self>([query, key, value], reach).out
    }
}

/// Forward and backward pass of training.
pub trait AttentionBackward: Backend {
    /// [`AttentionOp::causal_attention`] of query, key and value, with what the backward pass needs.
    fn attention_forward(qkv: [FloatTensor<Self>; 3], reach: Reach) -> SavedForBackward<Self> {
        portable::attention::forward::<Self>(qkv, reach)
    }

    /// Gradients of query, key and value, from that of the output.
    fn attention_backward(saved: SavedForBackward<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        portable::attention::backward::<Self>(saved, &grad)
    }
}

impl<B: AttentionOp + AttentionBackward, C: CheckpointStrategy> AttentionOp for Autodiff<B, C> {
    fn causal_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        reach: Reach,
    ) -> FloatTensor<Self> {
        let in_training = reach.clone();
        record::<B, C, _, 3>(
            [query, key, value],
            |[query, key, value]| B::causal_attention(query, key, value, reach),
            |qkv| {
                let saved = B::attention_forward(qkv, in_training);
                (saved.out.clone(), saved)
            },
            B::attention_backward,
        )
    }
}

/// Causal grouped-query attention. Queries are the last T of S positions; each sees its own and earlier keys, as far back as `reach` lets it.
///
/// # Shapes
/// - `query`: `[B, H, T, E]`, `key` and `value`: `[B, K, S, E]` -> `[B, H, T, E]`
pub fn causal_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, reach: Reach) -> Tensor<4> {
    let [query, key, value] = [query, key, value].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::causal_attention(query, key, value, reach))
}

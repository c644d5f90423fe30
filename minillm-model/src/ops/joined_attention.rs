//! Attention on queries, keys and values that one product left side by side: rotated while they are read, so that nothing but the
//! product and the output goes through memory. The fast form of rotation and attention together, where there is no cache.

// Built without a GPU's backend, the dispatch to one has nothing to do with its arguments.
#![cfg_attr(not(feature = "cube"), allow(unused_variables))]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, record};
use super::dropout::Mask;

/// How the rows of queries, keys and values are laid out: `[B, T, (H + 2 K) E]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Sequences: B. Their rows lie one behind the other.
    pub sequences: usize,
    /// Query heads: H.
    pub queries: usize,
    /// Key and value heads: K.
    pub keys: usize,
    /// Numbers of a head: E.
    pub width: usize,
    /// How many positions back a query may look, its own included; `None` for all.
    pub window: Option<usize>,
    /// Whether queries and keys are rotated first.
    pub rotated: bool,
    /// Which of the weights are dropped; the values of a sequence are its `[H, T, T]`.
    pub dropped: Option<Mask>,
}

/// What the backward pass needs.
#[derive(Clone, Debug)]
pub struct SavedForBackward<B: Backend> {
    /// Queries, keys and values side by side.
    pub qkv: FloatTensor<B>,
    /// Cosines and sines of the positions.
    pub rotation: [FloatTensor<B>; 2],
    /// The output.
    pub out: FloatTensor<B>,
    /// The logarithm of each row's sum of exponentials, and the seeds of what is dropped.
    pub logsumexp: FloatTensor<B>,
}

/// Backends with this form.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Autodiff
)]
pub trait JoinedAttentionOp: Backend {
    /// `qkv`: `[B, T, (H + 2 K) E]`, `cos` and `sin`: `[1, 1, T, E]`, not read unless `heads` are rotated, `seeds`: as of
    /// [`dropout`](super::dropout::dropout), not read unless some are dropped -> `[B, T, H E]`
    fn joined_attention(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        seeds: FloatTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self>;
}

/// Forward and backward pass of training.
pub trait JoinedAttentionBackward: Backend {
    /// [`JoinedAttentionOp::joined_attention`], with what the backward pass needs.
    fn joined_attention_forward(
        qkv: FloatTensor<Self>,
        rotation: [FloatTensor<Self>; 2],
        seeds: FloatTensor<Self>,
        heads: Heads,
    ) -> SavedForBackward<Self>;

    /// The gradient of `qkv`.
    fn joined_attention_backward(
        saved: SavedForBackward<Self>,
        heads: Heads,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl<B: JoinedAttentionOp + JoinedAttentionBackward, C: CheckpointStrategy> JoinedAttentionOp for Autodiff<B, C> {
    /// Tables and seeds are constants: only `qkv` has a gradient.
    fn joined_attention(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        seeds: FloatTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        let [cos, sin, seeds] = [cos, sin, seeds].map(Self::FloatTensorPrimitive::into_primitive);
        let for_training = seeds.clone();
        let rotation = [cos.clone(), sin.clone()];
        record::<B, C, _, 1>(
            [qkv],
            |[qkv]| B::joined_attention(qkv, cos, sin, seeds, heads),
            |[qkv]| {
                let saved = B::joined_attention_forward(qkv, rotation, for_training, heads);
                (saved.out.clone(), (saved, heads))
            },
            |(saved, heads), grad| [B::joined_attention_backward(saved, heads, grad)],
        )
    }
}

/// Causal grouped-query attention of whole sequences.
///
/// # Shapes
/// - `qkv`: `[B, T, (H + 2 K) E]`, `rotation`: cosines and sines, `[1, 1, T, E]` each, `seeds`: as of [`dropout`](super::dropout::dropout)
///   -> `[B, T, H E]`
pub fn joined_attention(
    qkv: Tensor<3>,
    rotation: Option<[Tensor<4>; 2]>,
    seeds: Option<Tensor<2>>,
    heads: Heads,
) -> Tensor<3> {
    let qkv = qkv.into_dispatch();
    let [cos, sin] = match rotation {
        Some(tables) => tables.map(Tensor::into_dispatch),
        None => [qkv.clone(), qkv.clone()], // not read
    };
    let seeds = seeds.map_or_else(|| qkv.clone(), Tensor::into_dispatch); // the same
    Tensor::from_dispatch(Dispatch::joined_attention(qkv, cos, sin, seeds, heads))
}

//! The fast form of [`grouped_attention`](crate::layers::attention::grouped_attention): its memory grows with T, not with
//! T squared.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::prelude::*;
use super::portable::{self, attention::Kept};

/// Backends with the fast form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube"),
    Autodiff,
)]
pub trait AttentionOp: Backend {
    /// `query`: `[B, H, T, E]`, `key` and `value`: `[B, K, S, E]` -> `[B, H, T, E]`
    #[fusion(default)]
    fn causal_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        window: Option<usize>,
    ) -> FloatTensor<Self> {
        Self::attention_forward(query, key, value, window).0
    }

    /// The same, with the logarithm of each row's sum of exponentials, `[B, H, T, 1]`, for the backward pass.
    #[fusion(default)]
    fn attention_forward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        window: Option<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention::forward::<Self>(&query, &key, &value, window)
    }

    /// Gradients of `query`, `key` and `value`.
    #[fusion(default)]
    fn attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        out: FloatTensor<Self>,
        logs: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        window: Option<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention::backward::<Self>(Kept { query, key, value, out, logs, grad }, window)
    }
}

#[cfg(feature = "cube")]
impl AttentionOp for burn::backend::Cube {}

impl<B: AttentionOp, C: CheckpointStrategy> AttentionOp for Autodiff<B, C> {
    fn causal_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        window: Option<usize>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl<B: AttentionOp> Backward<B, 3> for Step {
            /// Query, key, value, output, logarithms.
            type State = ([FloatTensor<B>; 5], Option<usize>);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let ([query, key, value, out, logs], window) = ops.state;
                let (dquery, dkey, dvalue) = B::attention_backward(query, key, value, out, logs, grad, window);
                register::<B, 3>(grads, ops.parents.map(|node| node.map(|node| node.id)), [dquery, dkey, dvalue]);
            }
        }
        let nodes = [query.node(), key.node(), value.node()];
        let [query, key, value] = [query, key, value].map(Self::FloatTensorPrimitive::into_primitive);
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (out, logs) = B::attention_forward(query.clone(), key.clone(), value.clone(), window);
                prep.finish(([query, key, value, out.clone(), logs], window), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::causal_attention(query, key, value, window)),
        }
    }

    fn attention_forward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Option<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{FIRST_ORDER}")
    }

    fn attention_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Option<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{FIRST_ORDER}")
    }
}

/// Causal grouped-query attention. Queries are the last T of S positions; each sees its own and earlier keys, with a
/// window only the nearest `window` of them.
///
/// # Shapes
/// - `query`: `[B, H, T, E]`, `key` and `value`: `[B, K, S, E]` -> `[B, H, T, E]`
pub fn causal_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, window: Option<usize>) -> Tensor<4> {
    let [query, key, value] = [query, key, value].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::causal_attention(query, key, value, window))
}

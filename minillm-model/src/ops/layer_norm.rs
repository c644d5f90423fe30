//! The fast form of [`LayerNorm`](crate::layers::layer_norm::LayerNorm).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::prelude::*;

/// Backends with the fast form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
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

    /// Gradients of `x`, of `weight` and of `bias`.
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl<B: LayerNormOp, C: CheckpointStrategy> LayerNormOp for Autodiff<B, C> {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl<B: LayerNormOp> Backward<B, 3> for Step {
            type State = (FloatTensor<B>, FloatTensor<B>, f64);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let (x, weight, eps) = ops.state;
                let (dx, dweight, dbias) = B::layer_norm_backward(x, weight, grad, eps);
                register::<B, 3>(grads, ops.parents.map(|node| node.map(|node| node.id)), [dx, dweight, dbias]);
            }
        }
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(Self::FloatTensorPrimitive::into_primitive);
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let out = B::layer_norm_forward(x.clone(), weight.clone(), bias, eps);
                prep.finish((x, weight, eps), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::layer_norm_forward(x, weight, bias, eps)),
        }
    }

    fn layer_norm_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{FIRST_ORDER}")
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

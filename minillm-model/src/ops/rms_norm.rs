//! The fast form of [`RmsNorm`](crate::layers::rms_norm::RmsNorm).

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
pub trait RmsNormOp: Backend {
    /// `x`: `[.., D]`, `weight`: `[D]` -> as `x`
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;

    /// Gradients of `x` and of `weight`.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl<B: RmsNormOp, C: CheckpointStrategy> RmsNormOp for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl<B: RmsNormOp> Backward<B, 2> for Step {
            type State = (FloatTensor<B>, FloatTensor<B>, f64);

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let (x, weight, eps) = ops.state;
                let (dx, dweight) = B::rms_norm_backward(x, weight, grad, eps);
                register::<B, 2>(grads, ops.parents.map(|node| node.map(|node| node.id)), [dx, dweight]);
            }
        }
        match Step.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let out = B::rms_norm(x.primitive().clone(), weight.primitive().clone(), eps);
                prep.finish((x.into_primitive(), weight.into_primitive(), eps), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rms_norm(x.into_primitive(), weight.into_primitive(), eps)),
        }
    }

    fn rms_norm_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{FIRST_ORDER}")
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight`
///
/// # Shapes
/// - `x`: `[.., D]`, `weight`: `[D]` -> `[.., D]`
pub fn rms_norm<const N: usize>(x: Tensor<N>, weight: Tensor<1>, eps: f64) -> Tensor<N> {
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

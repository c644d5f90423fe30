//! The fast form of the curve in [`GeluMlp`](crate::layers::gelu_mlp::GeluMlp).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::prelude::*;

/// The curves that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// GELU in its tanh form.
    Gelu,
    /// `max(z, 0)^2`
    Relu2,
}

/// Backends with the fast form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Autodiff
)]
pub trait ActivationOp: Backend {
    /// The curve at each number.
    fn activation(z: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self>;

    /// The gradient of `z`.
    fn activation_backward(z: FloatTensor<Self>, grad: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self>;
}

impl<B: ActivationOp, C: CheckpointStrategy> ActivationOp for Autodiff<B, C> {
    fn activation(z: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl<B: ActivationOp> Backward<B, 1> for Step {
            type State = (FloatTensor<B>, Curve);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let (z, curve) = ops.state;
                let dz = B::activation_backward(z, grad, curve);
                register::<B, 1>(grads, ops.parents.map(|node| node.map(|node| node.id)), [dz]);
            }
        }
        match Step.prepare::<C>([z.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let out = B::activation(z.primitive().clone(), curve);
                prep.finish((z.into_primitive(), curve), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::activation(z.into_primitive(), curve)),
        }
    }

    fn activation_backward(_: FloatTensor<Self>, _: FloatTensor<Self>, _: Curve) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }
}

/// The curve at each number.
///
/// # Shapes
/// - `z`: `[B, T, F]` -> the same
pub fn activation(z: Tensor<3>, curve: Curve) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::activation(z.into_dispatch(), curve))
}

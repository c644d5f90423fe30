//! The fast form of [`Rotation::apply`](crate::layers::rope::Rotation::apply).

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
pub trait RotaryOp: Backend {
    /// `x`: `[B, heads, T, E]`, `cos` and `sin`: `[1, 1, T, E]` -> as `x`; `back` turns by the negative angles.
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>, back: bool) -> FloatTensor<Self>;
}

impl<B: RotaryOp, C: CheckpointStrategy> RotaryOp for Autodiff<B, C> {
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>, back: bool) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl<B: RotaryOp> Backward<B, 1> for Step {
            type State = (FloatTensor<B>, FloatTensor<B>, bool);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let (cos, sin, back) = ops.state;
                register::<B, 1>(
                    grads,
                    ops.parents.map(|node| node.map(|node| node.id)),
                    [B::rotate(grad, cos, sin, !back)],
                );
            }
        }
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        match Step.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let out = B::rotate(x.into_primitive(), cos.clone(), sin.clone(), back);
                prep.finish((cos, sin, back), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rotate(x.into_primitive(), cos, sin, back)),
        }
    }
}

/// Turns each pair of values of `x` by the angles of its position.
///
/// # Shapes
/// - `x`: `[B, heads, T, E]`, `cos` and `sin`: `[1, 1, T, E]`, as in [`Rotation`](crate::layers::rope::Rotation)
///   -> as `x`
pub fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::rotate(x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch(), false))
}

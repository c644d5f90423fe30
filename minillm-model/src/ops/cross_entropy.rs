//! The fast form of [`summed_loss`](crate::decoder::LanguageModel::summed_loss): from hidden states to the loss without
//! B T V logits in memory.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Int, Shape, Tensor};

use super::autodiff::prelude::*;
use super::portable;

/// Backends with the fast form. `output` is the output matrix: `[D, V]`, or if `tied` the embedding's `[V, D]`.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(feature = "cube"),
    Fusion: cfg(feature = "cube"),
    Autodiff,
)]
pub trait CrossEntropyOp: Backend {
    /// `hidden`: `[N, D]`, `targets`: `[N]`, negative where nothing is scored -> `[1]`
    #[fusion(default)]
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        output: FloatTensor<Self>,
        targets: IntTensor<Self>,
        tied: bool,
    ) -> FloatTensor<Self> {
        portable::cross_entropy::loss::<Self>(&hidden, &output, &targets, tied)
    }

    /// The same, with the gradients of `hidden` and `output`.
    #[fusion(default)]
    fn cross_entropy_with_gradients(
        hidden: FloatTensor<Self>,
        output: FloatTensor<Self>,
        targets: IntTensor<Self>,
        tied: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::cross_entropy::loss_and_gradients::<Self>(&hidden, &output, &targets, tied)
    }

    /// `gradient` times the one number in `factor`.
    #[fusion(default)]
    fn scale_gradient(gradient: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        let factor = Self::float_expand(Self::float_reshape(factor, Shape::new([1, 1])), gradient.shape());
        Self::float_mul(gradient, factor)
    }
}

#[cfg(feature = "cube")]
impl CrossEntropyOp for burn::backend::Cube {}

impl<B: CrossEntropyOp, C: CheckpointStrategy> CrossEntropyOp for Autodiff<B, C> {
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        output: FloatTensor<Self>,
        targets: IntTensor<Self>,
        tied: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl<B: CrossEntropyOp> Backward<B, 2> for Step {
            type State = [FloatTensor<B>; 2];

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let factor = grads.consume::<B>(&ops.node);
                let scaled = ops.state.map(|gradient| B::scale_gradient(gradient, factor.clone()));
                register::<B, 2>(grads, ops.parents.map(|node| node.map(|node| node.id)), scaled);
            }
        }
        let nodes = [hidden.node(), output.node()];
        let [hidden, output] = [hidden, output].map(Self::FloatTensorPrimitive::into_primitive);
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, dhidden, doutput) = B::cross_entropy_with_gradients(hidden, output, targets, tied);
                prep.finish([dhidden, doutput], loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::cross_entropy(hidden, output, targets, tied)),
        }
    }

    fn cross_entropy_with_gradients(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: IntTensor<Self>,
        _: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{FIRST_ORDER}")
    }

    fn scale_gradient(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }
}

/// The surprise of all targets that are not negative, summed, in nats.
///
/// # Shapes
/// - `hidden`: `[N, D]`, `targets`: `[N]`, `output`: `[D, V]`, or `[V, D]` if `tied` -> `[1]`
pub fn cross_entropy(hidden: Tensor<2>, output: Tensor<2>, targets: Tensor<1, Int>, tied: bool) -> Tensor<1> {
    let [hidden, output] = [hidden, output].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::cross_entropy(hidden, output, targets.into_dispatch(), tied))
}

//! The fast form of [`summed_loss`](crate::decoder::LanguageModel::summed_loss): from hidden states to the loss without
//! B T V logits in memory.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Int, Shape, Tensor};

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, is_constant, record};
use super::portable;
pub use super::portable::cross_entropy::LARGEST_CHUNK;
use super::portable::cross_entropy::Operations;

/// Backends with the fast form. `output` is the output matrix: `[D, V]`, or if `tied` the embedding's `[V, D]`.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(feature = "cube"),
    Autodiff,
)]
pub trait CrossEntropyOp: Backend {
    /// `hidden`: `[N, D]`, `targets`: `[N]`, negative where nothing is scored -> `[1]`
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        output: FloatTensor<Self>,
        targets: IntTensor<Self>,
        tied: bool,
    ) -> FloatTensor<Self> {
        portable::cross_entropy::loss::<Self, Operations>(&hidden, &output, &targets, tied)
    }
}

/// Forward and backward pass of training. The loss is a sum over rows, so its gradient is known, up to one factor, as soon as
/// the logits are: the forward pass computes it, while they are there, and the backward pass multiplies.
pub trait CrossEntropyBackward: Backend {
    /// [`CrossEntropyOp::cross_entropy`], with the gradients of `hidden` and `output`.
    fn cross_entropy_with_gradients(
        [hidden, output]: [FloatTensor<Self>; 2],
        targets: IntTensor<Self>,
        tied: bool,
    ) -> (FloatTensor<Self>, [FloatTensor<Self>; 2]) {
        portable::cross_entropy::loss_and_gradients::<Self, Operations>(&hidden, &output, &targets, tied)
    }

    /// The loss and the gradient of `hidden` alone.
    fn cross_entropy_with_hidden_gradient(
        hidden: FloatTensor<Self>,
        output: FloatTensor<Self>,
        targets: IntTensor<Self>,
        tied: bool,
    ) -> [FloatTensor<Self>; 2] {
        let (loss, [dhidden, _]) = Self::cross_entropy_with_gradients([hidden, output], targets, tied);
        [loss, dhidden]
    }

    /// `gradient` times the one number in `factor`.
    fn scale_gradient(gradient: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        let factor = Self::float_expand(Self::float_reshape(factor, Shape::new([1, 1])), gradient.shape());
        Self::float_mul(gradient, factor)
    }
}

impl<B: CrossEntropyOp + CrossEntropyBackward, C: CheckpointStrategy> CrossEntropyOp for Autodiff<B, C> {
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        output: FloatTensor<Self>,
        targets: IntTensor<Self>,
        tied: bool,
    ) -> FloatTensor<Self> {
        let ids = targets.clone();
        if is_constant::<B, C>(&output) {
            // An output matrix that is not trained: no gradient is computed for it.
            let output = Self::FloatTensorPrimitive::into_primitive(output);
            let in_training = output.clone();
            return record::<B, C, _, 1>(
                [hidden],
                |[hidden]| B::cross_entropy(hidden, output, targets, tied),
                |[hidden]| {
                    let [loss, dhidden] = B::cross_entropy_with_hidden_gradient(hidden, in_training, ids, tied);
                    (loss, dhidden)
                },
                |dhidden, factor| [B::scale_gradient(dhidden, factor)],
            );
        }
        record::<B, C, _, 2>(
            [hidden, output],
            |[hidden, output]| B::cross_entropy(hidden, output, targets, tied),
            |factors| B::cross_entropy_with_gradients(factors, ids, tied),
            |gradients, factor| gradients.map(|gradient| B::scale_gradient(gradient, factor.clone())),
        )
    }
}

/// The negative log-likelihood of all targets that are not negative, summed, in nats.
///
/// # Shapes
/// - `hidden`: `[N, D]`, `targets`: `[N]`, `output`: `[D, V]`, or `[V, D]` if `tied` -> `[1]`
pub fn cross_entropy(hidden: Tensor<2>, output: Tensor<2>, targets: Tensor<1, Int>, tied: bool) -> Tensor<1> {
    let [hidden, output] = [hidden, output].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::cross_entropy(hidden, output, targets.into_dispatch(), tied))
}

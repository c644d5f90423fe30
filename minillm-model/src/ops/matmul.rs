//! The product with a layer's matrix: of all rows at once, where Burn would multiply each sequence by itself. In generation,
//! where there is one row, the matrix is read once, from front to back.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::{Autodiff, Backend, CheckpointStrategy, is_constant, record};

/// Backends with the fast form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Autodiff
)]
pub trait MatmulOp: Backend {
    /// `x`: `[.., input]`, `weight`: `[input, output]` -> `[.., output]`
    fn matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Its backward pass.
pub trait MatmulBackward: Backend {
    /// Gradients of `x` and of `weight`.
    fn matmul_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];

    /// The gradient of `x` alone.
    fn matmul_backward_x(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: MatmulOp + MatmulBackward, C: CheckpointStrategy> MatmulOp for Autodiff<B, C> {
    fn matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        if is_constant::<B, C>(&weight) {
            // A matrix that is not trained: no gradient is computed for it, and `x` need not be kept.
            let weight = Self::FloatTensorPrimitive::into_primitive(weight);
            let in_training = weight.clone();
            return record::<B, C, _, 1>(
                [x],
                |[x]| B::matmul(x, weight),
                |[x]| (B::matmul(x, in_training.clone()), in_training),
                |weight, grad| [B::matmul_backward_x(weight, grad)],
            );
        }
        record::<B, C, _, 2>(
            [x, weight],
            |[x, weight]| B::matmul(x, weight),
            |[x, weight]| (B::matmul(x.clone(), weight.clone()), (x, weight)),
            |(x, weight), grad| B::matmul_backward(x, weight, grad),
        )
    }
}

/// `x W`, with a backward pass.
///
/// # Shapes
/// - `x`: `[B, T, input]`, `weight`: `[input, output]` -> `[B, T, output]`
pub fn matmul(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::matmul(x.into_dispatch(), weight.into_dispatch()))
}

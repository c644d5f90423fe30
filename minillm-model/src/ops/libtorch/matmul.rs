//! Products with a layer's matrix: one of all rows, where Burn multiplies each sequence by itself.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use tch::Tensor;

use crate::ops::matmul::{MatmulBackward, MatmulOp};

impl MatmulOp for LibTorch {
    fn matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        TchTensor::new(times(&x.tensor, &weight.tensor))
    }
}

impl MatmulBackward for LibTorch {
    fn matmul_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        let dx = times(&grad.tensor, &weight.tensor.tr());
        let dweight = rows(&x.tensor).tr().mm(&rows(&grad.tensor));
        [dx, dweight].map(TchTensor::new)
    }

    fn matmul_backward_x(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        TchTensor::new(times(&grad.tensor, &weight.tensor.tr()))
    }
}

/// `[.., input]` times `[input, output]` -> `[.., output]`.
fn times(x: &Tensor, matrix: &Tensor) -> Tensor {
    let mut size = x.size();
    if let (Some(last), Some(output)) = (size.last_mut(), matrix.size().last()) {
        *last = *output;
    }
    rows(x).mm(matrix).reshape(size)
}

/// All vectors as the rows of one matrix.
fn rows(x: &Tensor) -> Tensor {
    let width = *x.size().last().unwrap_or(&1);
    x.reshape([-1, width])
}

//! Products with a layer's matrix: one of all rows, where Burn multiplies each sequence by itself.

use std::sync::Arc;

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use tch::Tensor;

use crate::ops::linear::{LinearOp, QuantizedMatrix};

impl LinearOp for LibTorch {
    fn by_output(_: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("matrices lie otherwise for generation only where `Kernels::linear` says so")
    }

    fn product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        TchTensor::new(times(&x.tensor, &weight.tensor))
    }

    fn product_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let dx = times(&grad.tensor, &weight.tensor.tr());
        let dweight = rows(&x.tensor).tr().mm(&rows(&grad.tensor));
        (TchTensor::new(dx), TchTensor::new(dweight))
    }

    fn quantized(_: FloatTensor<Self>, _: Arc<QuantizedMatrix>) -> FloatTensor<Self> {
        unreachable!("matrices are put into 8 bits only where `Kernels::linear` says so")
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

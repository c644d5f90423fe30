//! Norms. Both backward passes compute the normalised vectors again rather than keep them.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use tch::{Kind, Tensor};

use crate::ops::layer_norm::{LayerNormBackward, LayerNormOp};
use crate::ops::rms_norm::{RmsNormBackward, RmsNormOp};

impl RmsNormOp for LibTorch {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let scale = inverse_size(&x.tensor, eps); // [.., 1]
        TchTensor::new((x.tensor * scale).g_mul_(&weight.tensor))
    }
}

impl RmsNormBackward for LibTorch {
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> [FloatTensor<Self>; 2] {
        let scale = inverse_size(&x.tensor, eps); // [.., 1]
        let normal = &x.tensor * &scale;
        let (dx, dweight) = backward(&normal, &scale, &weight.tensor, &grad.tensor);
        [dx, dweight].map(TchTensor::new)
    }
}

impl LayerNormOp for LibTorch {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let width = weight.tensor.size();
        TchTensor::new(x.tensor.layer_norm(width, Some(weight.tensor), Some(bias.tensor), eps, false))
    }
}

impl LayerNormBackward for LibTorch {
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> [FloatTensor<Self>; 3] {
        let centred = &x.tensor - mean(&x.tensor);
        let scale = inverse_size(&centred, eps); // [.., 1]
        let normal = centred * &scale;
        let (dx, dweight) = backward(&normal, &scale, &weight.tensor, &grad.tensor);
        // The mean was taken away from every number, so it is taken away from every gradient.
        let dx = &dx - mean(&dx);
        [dx, dweight, over_rows(&grad.tensor)].map(TchTensor::new)
    }
}

/// `1 / sqrt(mean(x^2) + eps)` of each vector: `[.., D]` -> `[.., 1]`.
fn inverse_size(x: &Tensor, eps: f64) -> Tensor {
    let width = *x.size().last().unwrap_or(&1) as f64;
    let squares = x.norm_scalaropt_dim(2, [-1].as_slice(), true).square();
    (squares / width + eps).rsqrt()
}

fn mean(x: &Tensor) -> Tensor {
    x.mean_dim([-1].as_slice(), true, None::<Kind>)
}

/// Gradients of x and of the weight, where `normal` = x times `scale`, its inverse size.
fn backward(normal: &Tensor, scale: &Tensor, weight: &Tensor, grad: &Tensor) -> (Tensor, Tensor) {
    let dweight = over_rows(&(grad * normal));
    let dnormal = grad * weight;
    let along = mean(&(&dnormal * normal)); // [.., 1]
    let dx = (dnormal - normal * along).g_mul_(scale);
    (dx, dweight)
}

/// The sum of all vectors: `[.., D]` -> `[D]`.
fn over_rows(x: &Tensor) -> Tensor {
    let width = *x.size().last().unwrap_or(&1);
    x.reshape([-1, width]).sum_dim_intlist([0].as_slice(), false, None::<Kind>)
}

//! One step of `AdamW`, in place; the formula is in `cpu/adam_w.rs`. LibTorch's fused optimiser is not among the functions that
//! the `tch` crate has.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use tch::{Device, Kind, Tensor};

use crate::ops::AdamWStep;
use crate::ops::adam_w::AdamWOp;

/// On a CPU, numbers that go through the whole formula before the next: what an operation leaves, 1 MiB a tensor, is still in
/// the cache for the one after it.
const PIECE: usize = 256 * 1024;

impl AdamWOp for LibTorch {
    fn adam_w(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let time = step.time as i32;
        let (mean_share, square_share) = (1.0 - step.beta1.powi(time), 1.0 - step.beta2.powi(time));
        // mean / mean_share / (sqrt(square / square_share) + epsilon), with the division by square_share on both sides.
        let epsilon = step.epsilon * square_share.sqrt();
        let factor = -step.learning_rate * square_share.sqrt() / mean_share;
        let [weight, grad, mean, square] = [weight, grad, mean, square].map(owned);
        let count = weight.numel();
        let piece = if weight.device() == Device::Cpu { PIECE } else { count.max(1) };
        for first in (0..count).step_by(piece) {
            let part = |tensor: &Tensor| tensor.narrow(0, first as i64, piece.min(count - first) as i64);
            let [mut weight, mut grad, mut mean, mut square] = [&weight, &grad, &mean, &square].map(part);
            if step.grad_factor < 1.0 {
                let _ = grad.g_mul_scalar_(step.grad_factor);
            }
            let _ = mean.lerp_(&grad, 1.0 - step.beta1);
            let _ = square.lerp_(&grad.square(), 1.0 - step.beta2);
            let divisor = square.sqrt().g_add_scalar_(epsilon).g_div_scalar_(factor);
            if step.weight_decay > 0.0 {
                let _ = weight.g_mul_scalar_(1.0 - step.learning_rate * step.weight_decay);
            }
            let _ = weight.addcdiv_(&mean, &divisor);
        }
        (TchTensor::new(weight), TchTensor::new(mean), TchTensor::new(square))
    }

    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let flat = x.tensor.reshape([-1]);
        TchTensor::new(flat.dot(&flat).to_kind(Kind::Float).reshape([1]))
    }
}

/// The tensor to change in place, or a copy where others hold it, too.
fn owned(tensor: TchTensor) -> Tensor {
    if tensor.can_mut() { tensor.tensor } else { tensor.tensor.copy() }
}

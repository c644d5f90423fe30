//! Rotary embedding and the MLP's curves.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;

use crate::ops::activation::{ActivationOp, Curve};
use crate::ops::rotary::RotaryOp;
use crate::ops::swiglu::SwigluOp;

/// GELU's tanh form, as LibTorch calls it.
const TANH: &str = "tanh";

impl RotaryOp for LibTorch {
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>, back: bool) -> FloatTensor<Self> {
        let (x, cos, sin) = (x.tensor, cos.tensor, sin.tensor);
        let half = x.size()[3] / 2;
        let [of_x, of_sin] = [&x, &sin].map(|tensor| [tensor.narrow(3, 0, half), tensor.narrow(3, half, half)]);
        // The table has - sin in its first half; backward it is the angle that is negative, and so the other half.
        let of_sin = if back { [&of_sin[1], &of_sin[0]] } else { [&of_sin[0], &of_sin[1]] };
        let out = &x * cos;
        let _ = out.narrow(3, 0, half).addcmul_(&of_x[1], of_sin[0]);
        let _ = out.narrow(3, half, half).addcmul_(&of_x[0], of_sin[1]);
        TchTensor::new(out)
    }
}

impl SwigluOp for LibTorch {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        TchTensor::new(gate.tensor.silu().g_mul_(&up.tensor))
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (gate, up, grad) = (gate.tensor, up.tensor, grad.tensor);
        let dup = gate.silu().g_mul_(&grad);
        let dgate = gate.silu_backward(&(grad * up));
        (TchTensor::new(dgate), TchTensor::new(dup))
    }
}

impl ActivationOp for LibTorch {
    fn activation(z: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self> {
        TchTensor::new(match curve {
            Curve::Gelu => z.tensor.gelu(TANH),
            Curve::Relu2 => z.tensor.relu().square(),
        })
    }

    fn activation_backward(z: FloatTensor<Self>, grad: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self> {
        TchTensor::new(match curve {
            Curve::Gelu => z.tensor.gelu_backward(&grad.tensor, TANH),
            Curve::Relu2 => (grad.tensor * z.tensor.relu()).g_mul_scalar_(2.0),
        })
    }
}

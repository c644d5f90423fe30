//! Rotary embedding and the MLP's activations.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;

use crate::ops::activation::{Activation, ActivationBackward, ActivationOp};
use crate::ops::rotary::{Direction, RotaryOp};
use crate::ops::swiglu::{SwigluBackward, SwigluOp};

/// GELU's tanh form, as LibTorch calls it.
const TANH: &str = "tanh";

impl RotaryOp for LibTorch {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        direction: Direction,
    ) -> FloatTensor<Self> {
        let (x, cos, sin) = (x.tensor, cos.tensor, sin.tensor);
        let half = x.size()[3] / 2;
        let [of_x, of_sin] = [&x, &sin].map(|tensor| [tensor.narrow(3, 0, half), tensor.narrow(3, half, half)]);
        // The table has - sin in its first half; backward it is the angle that is negative, and so the other half.
        let of_sin = match direction {
            Direction::Forward => [&of_sin[0], &of_sin[1]],
            Direction::Inverse => [&of_sin[1], &of_sin[0]],
        };
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
}

impl SwigluBackward for LibTorch {
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        let (gate, up, grad) = (gate.tensor, up.tensor, grad.tensor);
        let dup = gate.silu().g_mul_(&grad);
        let dgate = gate.silu_backward(&(grad * up));
        [dgate, dup].map(TchTensor::new)
    }
}

impl ActivationOp for LibTorch {
    fn activation(z: FloatTensor<Self>, kind: Activation) -> FloatTensor<Self> {
        TchTensor::new(match kind {
            Activation::GeluTanh => z.tensor.gelu(TANH),
            Activation::Relu2 => z.tensor.relu().square(),
        })
    }
}

impl ActivationBackward for LibTorch {
    fn activation_backward(z: FloatTensor<Self>, grad: FloatTensor<Self>, kind: Activation) -> FloatTensor<Self> {
        TchTensor::new(match kind {
            Activation::GeluTanh => z.tensor.gelu_backward(&grad.tensor, TANH),
            Activation::Relu2 => (grad.tensor * z.tensor.relu()).g_mul_scalar_(2.0),
        })
    }
}

//! [`ops::activation`](crate::ops::activation) on a GPU: a unit for each number.

use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Lazy, a_unit_each, dense, empty, queue};
use crate::ops::activation::{Activation, ActivationBackward, ActivationOp};

impl ActivationOp for Cube {
    fn activation(z: Lazy, kind: Activation) -> Lazy {
        let shape = z.shape();
        let [out] = queue("activation", [z], [shape], move |[z]| {
            let z = dense(z);
            let out = empty(&z, z.shape());
            let (client, (count, dim)) = (z.client.clone(), a_unit_each(&z, z.shape().num_elements()));
            forward_kernel::launch(&client, count, dim, z.into_buffer_arg(), out.clone().into_buffer_arg(), kind);
            [out]
        });
        out
    }
}

impl ActivationBackward for Cube {
    fn activation_backward(z: Lazy, grad: Lazy, kind: Activation) -> Lazy {
        let shape = z.shape();
        let [out] = queue("activation_backward", [z, grad], [shape], move |inputs| {
            let [z, grad] = inputs.map(dense);
            let out = empty(&z, z.shape());
            let (client, (count, dim)) = (z.client.clone(), a_unit_each(&z, z.shape().num_elements()));
            let [z, grad, dz] = [z, grad, out.clone()].map(CubeTensor::into_buffer_arg);
            backward_kernel::launch(&client, count, dim, z, grad, dz, kind);
            [out]
        });
        out
    }
}

/// sqrt(2 / pi)
const ROOT: f32 = 0.797_884_6;
/// GELU's tanh form has `tanh(ROOT (z + CUBIC z^3))`.
const CUBIC: f32 = 0.044_715;

/// `tanh(y)` without the overflow that some drivers' own has, and then gives no number.
#[cube]
fn tanh(y: f32) -> f32 {
    let e = (-2.0f32 * y.abs()).exp();
    let size = (1.0f32 - e) / (1.0f32 + e);
    select(y < 0.0f32, -size, size)
}

#[cube(launch)]
fn forward_kernel(z: &[f32], out: &mut [f32], #[comptime] kind: Activation) {
    let index = ABSOLUTE_POS;
    if index < out.len() {
        let z = z[index];
        if comptime!(kind == Activation::GeluTanh) {
            out[index] = 0.5f32 * z * (1.0f32 + tanh(ROOT * (z + CUBIC * z * z * z)));
        } else {
            let positive = max(z, 0.0f32);
            out[index] = positive * positive;
        }
    }
}

#[cube(launch)]
fn backward_kernel(z: &[f32], grad: &[f32], dz: &mut [f32], #[comptime] kind: Activation) {
    let index = ABSOLUTE_POS;
    if index < dz.len() {
        let z = z[index];
        if comptime!(kind == Activation::GeluTanh) {
            let t = tanh(ROOT * (z + CUBIC * z * z * z));
            let slope = ROOT * (1.0f32 + 3.0f32 * CUBIC * z * z);
            dz[index] = grad[index] * 0.5f32 * (1.0f32 + t + z * (1.0f32 - t * t) * slope);
        } else {
            dz[index] = grad[index] * 2.0f32 * max(z, 0.0f32);
        }
    }
}

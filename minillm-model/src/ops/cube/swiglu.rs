//! [`ops::swiglu`](crate::ops::swiglu) on a GPU: a unit for each number.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Lazy, a_unit_each, dense, empty, queue};
use crate::ops::swiglu::{JoinedSwigluBackward, JoinedSwigluOp, SwigluBackward, SwigluOp};

impl SwigluOp for Cube {
    fn swiglu(gate: Lazy, up: Lazy) -> Lazy {
        let shape = gate.shape();
        let [out] = queue("swiglu", [gate, up], [shape], |inputs| {
            let [gate, up] = inputs.map(dense);
            let out = empty(&gate, gate.shape());
            let (client, (count, dim)) = (gate.client.clone(), a_unit_each(&gate, gate.shape().num_elements()));
            let [gate, up, result] = [gate, up, out.clone()].map(CubeTensor::into_buffer_arg);
            forward_kernel::launch(&client, count, dim, gate, up, result);
            [out]
        });
        out
    }
}

impl SwigluBackward for Cube {
    fn swiglu_backward(gate: Lazy, up: Lazy, grad: Lazy) -> [Lazy; 2] {
        let shapes = [gate.shape(), gate.shape()];
        queue("swiglu_backward", [gate, up, grad], shapes, |inputs| {
            let [gate, up, grad] = inputs.map(dense);
            let out = [empty(&gate, gate.shape()), empty(&gate, gate.shape())];
            let (client, (count, dim)) = (gate.client.clone(), a_unit_each(&gate, gate.shape().num_elements()));
            let [gate, up, grad] = [gate, up, grad].map(CubeTensor::into_buffer_arg);
            let [dgate, dup] = out.clone().map(CubeTensor::into_buffer_arg);
            backward_kernel::launch(&client, count, dim, gate, up, grad, dgate, dup);
            out
        })
    }
}

impl JoinedSwigluOp for Cube {
    fn joined_swiglu(both: Lazy) -> Lazy {
        let [b, t, width] = both.shape().dims();
        let shape = Shape::new([b, t, width / 2]);
        let [out] = queue("swiglu", [both], [shape.clone()], move |[both]| {
            let both = dense(both);
            let out = empty(&both, shape.clone());
            let (client, (count, dim)) = (both.client.clone(), a_unit_each(&both, shape.num_elements()));
            let [both, result] = [both, out.clone()].map(CubeTensor::into_buffer_arg);
            joined_kernel::launch(&client, count, dim, both, result, width / 2);
            [out]
        });
        out
    }
}

impl JoinedSwigluBackward for Cube {
    fn joined_swiglu_backward(both: Lazy, grad: Lazy) -> Lazy {
        let shape = both.shape();
        let [out] = queue("swiglu_backward", [both, grad], [shape], |inputs| {
            let [both, grad] = inputs.map(dense);
            let out = empty(&both, both.shape());
            let (numbers, width) = (grad.shape().num_elements(), grad.shape()[2]);
            let (client, (count, dim)) = (both.client.clone(), a_unit_each(&both, numbers));
            let [both, grad, result] = [both, grad, out.clone()].map(CubeTensor::into_buffer_arg);
            joined_backward_kernel::launch(&client, count, dim, both, grad, result, width);
            [out]
        });
        out
    }
}

/// `1 / (1 + e^-z)`
#[cube]
fn sigmoid(z: f32) -> f32 {
    1.0f32 / (1.0f32 + (-z).exp())
}

#[cube(launch)]
fn forward_kernel(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index < out.len() {
        let z = gate[index];
        out[index] = z * sigmoid(z) * up[index];
    }
}

/// `d silu(z) = s + z s (1 - s)` with s the sigmoid of z.
#[cube(launch)]
fn backward_kernel(gate: &[f32], up: &[f32], grad: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index < dup.len() {
        let (z, g) = (gate[index], grad[index]);
        let s = sigmoid(z);
        dgate[index] = g * up[index] * (s + z * s * (1.0f32 - s));
        dup[index] = g * z * s;
    }
}

/// [`forward_kernel`] where gate and up are side by side, `width` numbers each.
#[cube(launch)]
fn joined_kernel(both: &[f32], out: &mut [f32], width: usize) {
    let index = ABSOLUTE_POS;
    if index < out.len() {
        let gate = index / width * width + index;
        let z = both[gate];
        out[index] = z * sigmoid(z) * both[gate + width];
    }
}

/// [`backward_kernel`] where gate and up are side by side.
#[cube(launch)]
fn joined_backward_kernel(both: &[f32], grad: &[f32], out: &mut [f32], width: usize) {
    let index = ABSOLUTE_POS;
    if index < grad.len() {
        let gate = index / width * width + index;
        let (z, up, g) = (both[gate], both[gate + width], grad[index]);
        let s = sigmoid(z);
        out[gate] = g * up * (s + z * s * (1.0f32 - s));
        out[gate + width] = g * z * s;
    }
}

//! [`ops::rms_norm`](crate::ops::rms_norm) on a GPU: a cube takes one row after the other, its units the columns.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::reduce::{cube_sum, sum_rows};
use super::{Lazy, UNITS, a_cube_each, dense, empty, queue};
use crate::ops::rms_norm::{RmsNormBackward, RmsNormOp};

/// Rows that share one part of the weight's gradient: as many parts as the device may need cubes to be busy.
const ROWS_IN_A_PART: usize = 16;

impl RmsNormOp for Cube {
    fn rms_norm(x: Lazy, weight: Lazy, eps: f64) -> Lazy {
        let shape = x.shape();
        let [out] = queue("rms_norm", [x, weight], [shape], move |[x, weight]| [forward(x, weight, eps)]);
        out
    }
}

impl RmsNormBackward for Cube {
    fn rms_norm_backward(x: Lazy, weight: Lazy, grad: Lazy, eps: f64) -> [Lazy; 2] {
        let shapes = [x.shape(), weight.shape()];
        queue("rms_norm_backward", [x, weight, grad], shapes, move |[x, weight, grad]| backward(x, weight, grad, eps))
    }
}

fn forward(x: CubeTensor, weight: CubeTensor, eps: f64) -> CubeTensor {
    let (x, weight) = (dense(x), dense(weight));
    let (width, client) = (weight.shape()[0], x.client.clone());
    let out = empty(&x, x.shape());
    let rows = x.shape().num_elements() / width;
    let (count, dim) = a_cube_each(&x, rows);
    let args = (x.into_buffer_arg(), weight.into_buffer_arg(), out.clone().into_buffer_arg());
    forward_kernel::launch(&client, count, dim, args.0, args.1, args.2, eps as f32, rows, width);
    out
}

#[cube(launch)]
fn forward_kernel(x: &[f32], weight: &[f32], out: &mut [f32], eps: f32, rows: usize, #[comptime] width: usize) {
    let row = CUBE_POS as usize;
    if row < rows {
        let first = row * width;
        let mut squares = 0.0f32;
        let mut column = UNIT_POS as usize;
        while column < width {
            let value = x[first + column];
            squares += value * value;
            column += UNITS;
        }
        let scale = 1.0f32 / (cube_sum(squares) / comptime!(width as f32) + eps).sqrt();
        let mut column = UNIT_POS as usize;
        while column < width {
            out[first + column] = x[first + column] * scale * weight[column];
            column += UNITS;
        }
    }
}

/// Gradients of `x` and of `weight`. With s = 1 / sqrt(mean(x^2) + eps): `dx = s g w - x s^3 mean(g w x)` and
/// `dw = sum over rows of g x s`.
fn backward(x: CubeTensor, weight: CubeTensor, grad: CubeTensor, eps: f64) -> [CubeTensor; 2] {
    let [x, weight, grad] = [x, weight, grad].map(dense);
    let (width, client) = (weight.shape()[0], x.client.clone());
    let rows = x.shape().num_elements() / width;
    let parts = rows.div_ceil(ROWS_IN_A_PART);
    let (dx, dweight) = (empty(&x, x.shape()), empty(&x, Shape::new([parts, width])));
    let (count, dim) = a_cube_each(&x, parts);
    backward_kernel::launch(
        &client,
        count,
        dim,
        x.into_buffer_arg(),
        weight.into_buffer_arg(),
        grad.into_buffer_arg(),
        dx.clone().into_buffer_arg(),
        dweight.clone().into_buffer_arg(),
        eps as f32,
        rows,
        width,
    );
    [dx, sum_rows(dweight, width)]
}

#[cube(launch)]
fn backward_kernel(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
    eps: f32,
    rows: usize,
    #[comptime] width: usize,
) {
    let part = CUBE_POS as usize;
    let end = min(part * ROWS_IN_A_PART + ROWS_IN_A_PART, rows);
    // Each unit has its columns' part of the weight's gradient.
    let columns = comptime!(width.div_ceil(UNITS));
    let mut sums = Array::<f32>::new(columns);
    #[unroll]
    for index in 0..columns {
        sums[index] = 0.0f32;
    }
    let mut row = part * ROWS_IN_A_PART;
    while row < end {
        let first = row * width;
        let mut squares = 0.0f32;
        let mut products = 0.0f32;
        let mut column = UNIT_POS as usize;
        while column < width {
            let value = x[first + column];
            squares += value * value;
            products += weight[column] * grad[first + column] * value;
            column += UNITS;
        }
        let scale = 1.0f32 / (cube_sum(squares) / comptime!(width as f32) + eps).sqrt();
        let along = cube_sum(products) / comptime!(width as f32) * scale * scale * scale;
        #[unroll]
        for index in 0..columns {
            let column = UNIT_POS as usize + index * UNITS;
            if column < width {
                let (value, grad) = (x[first + column], grad[first + column]);
                dx[first + column] = scale * (weight[column] * grad) - along * value;
                sums[index] += grad * value * scale;
            }
        }
        row += 1;
    }
    #[unroll]
    for index in 0..columns {
        let column = UNIT_POS as usize + index * UNITS;
        if column < width && part * ROWS_IN_A_PART < rows {
            dweight[part * width + column] = sums[index];
        }
    }
}

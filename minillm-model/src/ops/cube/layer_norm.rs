//! [`ops::layer_norm`](crate::ops::layer_norm) on a GPU, as [`rms_norm`](super::rms_norm) with a mean.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::reduce::{cube_sum, sum_rows};
use super::{Lazy, UNITS, a_cube_each, dense, empty, queue};
use crate::ops::layer_norm::{LayerNormBackward, LayerNormOp};

/// Rows that share one part of the gradients of weight and bias.
const ROWS_IN_A_PART: usize = 16;

impl LayerNormOp for Cube {
    fn layer_norm_forward(x: Lazy, weight: Lazy, bias: Lazy, eps: f64) -> Lazy {
        let shape = x.shape();
        let [out] = queue("layer_norm", [x, weight, bias], [shape], move |inputs| [forward(inputs, eps)]);
        out
    }
}

impl LayerNormBackward for Cube {
    fn layer_norm_backward(x: Lazy, weight: Lazy, grad: Lazy, eps: f64) -> [Lazy; 3] {
        let shapes = [x.shape(), weight.shape(), weight.shape()];
        queue("layer_norm_backward", [x, weight, grad], shapes, move |inputs| backward(inputs, eps))
    }
}

fn forward(inputs: [CubeTensor; 3], eps: f64) -> CubeTensor {
    let [x, weight, bias] = inputs.map(dense);
    let (width, client) = (weight.shape()[0], x.client.clone());
    let out = empty(&x, x.shape());
    let rows = x.shape().num_elements() / width;
    let (count, dim) = a_cube_each(&x, rows);
    forward_kernel::launch(
        &client,
        count,
        dim,
        x.into_buffer_arg(),
        weight.into_buffer_arg(),
        bias.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        eps as f32,
        rows,
        width,
    );
    out
}

#[cube(launch)]
fn forward_kernel(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
    eps: f32,
    rows: usize,
    #[comptime] width: usize,
) {
    let row = CUBE_POS as usize;
    if row < rows {
        let first = row * width;
        let mean = row_mean(x, first, width);
        let scale = row_scale(x, first, mean, eps, width);
        let mut column = UNIT_POS as usize;
        while column < width {
            out[first + column] = (x[first + column] - mean) * scale * weight[column] + bias[column];
            column += UNITS;
        }
    }
}

/// The mean of the row that begins at `first`.
#[cube]
fn row_mean(x: &[f32], first: usize, #[comptime] width: usize) -> f32 {
    let mut sum = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        sum += x[first + column];
        column += UNITS;
    }
    cube_sum(sum) / comptime!(width as f32)
}

/// `1 / sqrt(variance + eps)` of the row that begins at `first`.
#[cube]
fn row_scale(x: &[f32], first: usize, mean: f32, eps: f32, #[comptime] width: usize) -> f32 {
    let mut squares = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let value = x[first + column] - mean;
        squares += value * value;
        column += UNITS;
    }
    1.0f32 / (cube_sum(squares) / comptime!(width as f32) + eps).sqrt()
}

/// Gradients of `x`, `weight` and `bias`. With n = (x - mean) s: `dx = s (g w - mean(g w) - n mean(g w n))`, `dw = sum of g n`
/// and `db = sum of g`, over rows.
fn backward(inputs: [CubeTensor; 3], eps: f64) -> [CubeTensor; 3] {
    let [x, weight, grad] = inputs.map(dense);
    let (width, client) = (weight.shape()[0], x.client.clone());
    let rows = x.shape().num_elements() / width;
    let parts = rows.div_ceil(ROWS_IN_A_PART);
    let part = || empty(&x, Shape::new([parts, width]));
    let (dx, dweight, dbias) = (empty(&x, x.shape()), part(), part());
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
        dbias.clone().into_buffer_arg(),
        eps as f32,
        rows,
        width,
    );
    [dx, sum_rows(dweight, width), sum_rows(dbias, width)]
}

#[cube(launch)]
fn backward_kernel(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
    eps: f32,
    rows: usize,
    #[comptime] width: usize,
) {
    let part = CUBE_POS as usize;
    let end = min(part * ROWS_IN_A_PART + ROWS_IN_A_PART, rows);
    // Each unit has its columns' part of the gradients of weight and bias.
    let columns = comptime!(width.div_ceil(UNITS));
    let mut weight_sums = Array::<f32>::new(columns);
    let mut bias_sums = Array::<f32>::new(columns);
    #[unroll]
    for index in 0..columns {
        weight_sums[index] = 0.0f32;
        bias_sums[index] = 0.0f32;
    }
    let mut row = part * ROWS_IN_A_PART;
    while row < end {
        let first = row * width;
        let mean = row_mean(x, first, width);
        let scale = row_scale(x, first, mean, eps, width);
        let mut sum = 0.0f32;
        let mut products = 0.0f32;
        let mut column = UNIT_POS as usize;
        while column < width {
            let scaled = weight[column] * grad[first + column];
            sum += scaled;
            products += scaled * (x[first + column] - mean);
            column += UNITS;
        }
        let shift = cube_sum(sum) / comptime!(width as f32);
        let along = cube_sum(products) / comptime!(width as f32) * scale * scale;
        #[unroll]
        for index in 0..columns {
            let column = UNIT_POS as usize + index * UNITS;
            if column < width {
                let (value, grad) = (x[first + column] - mean, grad[first + column]);
                dx[first + column] = scale * (grad * weight[column] - shift - value * along);
                weight_sums[index] += grad * value * scale;
                bias_sums[index] += grad;
            }
        }
        row += 1;
    }
    #[unroll]
    for index in 0..columns {
        let column = UNIT_POS as usize + index * UNITS;
        if column < width && part * ROWS_IN_A_PART < rows {
            dweight[part * width + column] = weight_sums[index];
            dbias[part * width + column] = bias_sums[index];
        }
    }
}

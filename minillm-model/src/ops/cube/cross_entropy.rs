//! [`ops::cross_entropy`](crate::ops::cross_entropy) on a GPU: two products of Burn's with one kernel between them, which goes over the
//! logits of a chunk of rows once to find each row's softmax and once more to replace them by their gradient.

use burn::backend::tensor::IntTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::reduce::{cube_sum, sum_rows};
use super::{Lazy, UNITS, a_cube_each, dense, empty, queue};
use crate::ops::cross_entropy::{CrossEntropyBackward, CrossEntropyOp};
use crate::ops::portable::cross_entropy::{self as portable, Rows};

/// The softmax of some rows is one kernel, which leaves either the loss alone or the gradient, too.
struct Fused;

impl Rows<Cube> for Fused {
    fn loss(logits: Lazy, targets: IntTensor<Cube>) -> Lazy {
        let [loss] = queue("cross_entropy", [logits, targets], [Shape::new([1])], |[logits, targets]| {
            let losses = softmax(dense(logits), targets, false);
            [sum_rows(losses, 1)]
        });
        loss
    }

    fn loss_and_gradient(logits: Lazy, targets: IntTensor<Cube>) -> [Lazy; 2] {
        let shapes = [Shape::new([1]), logits.shape()];
        queue("cross_entropy_with_gradient", [logits, targets], shapes, |[logits, targets]| {
            let logits = dense(logits);
            let logits = if logits.can_mut() { logits } else { logits.copy() };
            let losses = softmax(logits.clone(), targets, true);
            [sum_rows(losses, 1), logits]
        })
    }
}

impl CrossEntropyOp for Cube {
    fn cross_entropy(hidden: Lazy, output: Lazy, targets: IntTensor<Self>, tied: bool) -> Lazy {
        portable::loss::<Self, Fused>(&hidden, &output, &targets, tied)
    }
}

impl CrossEntropyBackward for Cube {
    fn cross_entropy_with_gradients(
        [hidden, output]: [Lazy; 2],
        targets: IntTensor<Self>,
        tied: bool,
    ) -> (Lazy, [Lazy; 2]) {
        portable::loss_and_gradients::<Self, Fused>(&hidden, &output, &targets, tied)
    }
}

/// The loss of each row, `[n]`; with `replace` the logits become their gradient.
fn softmax(logits: CubeTensor, targets: CubeTensor, replace: bool) -> CubeTensor {
    let [rows, width] = logits.shape().dims();
    let (client, targets) = (logits.client.clone(), dense(targets));
    let losses = empty(&logits, [rows]);
    let (count, dim) = a_cube_each(&logits, rows);
    softmax_kernel::launch(
        &client,
        count,
        dim,
        logits.into_buffer_arg(),
        targets.into_buffer_arg(),
        losses.clone().into_buffer_arg(),
        rows,
        width,
        replace,
    );
    losses
}

/// Below every logit.
const LOWEST: f32 = f32::MIN;

/// The largest of what each of the cube's units holds.
#[cube]
fn cube_max(value: f32) -> f32 {
    let mut values = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    values[unit] = value;
    sync_cube();
    let steps = comptime!(UNITS.ilog2());
    #[unroll]
    for step in 0..steps {
        let half = comptime!(UNITS >> (step + 1));
        if unit < half {
            let other = values[unit + half];
            values[unit] = max(values[unit], other);
        }
        sync_cube();
    }
    let largest = values[0];
    sync_cube();
    largest
}

/// `ln(sum of exp) - logit of the target`, and `softmax - 1 at the target`; both 0 where the target is negative.
#[cube(launch)]
fn softmax_kernel(
    logits: &mut [f32],
    targets: &[i32],
    losses: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] replace: bool,
) {
    let row = CUBE_POS as usize;
    if row < rows {
        let first = row * width;
        let unit = UNIT_POS as usize;
        // Each unit's largest, and its sum of exponentials relative to that.
        let mut largest = f32::new(LOWEST);
        let mut sum = 0.0f32;
        let mut column = unit;
        while column < width {
            let logit = logits[first + column];
            let top = max(largest, logit);
            sum = sum * (largest - top).exp() + (logit - top).exp();
            largest = top;
            column += UNITS;
        }
        let top = cube_max(largest);
        let sum = cube_sum(sum * (largest - top).exp());
        let target = targets[row];
        let mut scored = 0.0f32;
        if target >= 0 {
            scored = 1.0f32;
        }
        if unit == 0 {
            let mut loss = 0.0f32;
            if target >= 0 {
                loss = top + sum.ln() - logits[first + target as usize];
            }
            losses[row] = loss;
        }
        if replace {
            sync_cube(); // the target's logit was read
            let mut column = unit;
            while column < width {
                let mut gradient = scored * (logits[first + column] - top).exp() / sum;
                if column as i32 == target {
                    gradient -= 1.0f32;
                }
                logits[first + column] = gradient;
                column += UNITS;
            }
        }
    }
}

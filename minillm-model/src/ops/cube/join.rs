//! [`ops::join`](crate::ops::join) on a GPU: one launch copies all parts, one cuts their gradient.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Lazy, a_unit_each, dense, empty, queue};
use crate::ops::join::{JoinBackward, JoinOp};

impl JoinOp for Cube {
    fn join_two(a: Lazy, b: Lazy) -> Lazy {
        join([a, b])
    }

    fn join_three(a: Lazy, b: Lazy, c: Lazy) -> Lazy {
        join([a, b, c])
    }
}

fn join<const N: usize>(parts: [Lazy; N]) -> Lazy {
    let rows = parts[0].shape()[0];
    let width: usize = parts.iter().map(|part| part.shape()[1]).sum();
    let [out] = queue("join", parts, [Shape::new([rows, width])], move |parts| {
        let parts = parts.map(dense);
        let out = empty(&parts[0], [rows, width]);
        let (client, (count, dim)) = (out.client.clone(), a_unit_each(&out, rows * width));
        let widths = parts.iter().map(|part| part.shape()[1]).collect();
        let parts = parts.into_iter().map(CubeTensor::into_buffer_arg).collect();
        join_kernel::launch(&client, count, dim, parts, out.clone().into_buffer_arg(), widths, width);
        [out]
    });
    out
}

#[cube(launch)]
fn join_kernel(parts: &Sequence<Box<[f32]>>, out: &mut [f32], widths: Sequence<usize>, width: usize) {
    let index = ABSOLUTE_POS;
    if index < out.len() {
        let (row, column) = (index / width, index % width);
        let mut from = 0usize;
        #[unroll]
        for part in 0..parts.len() {
            let own = *widths.index(part);
            if column >= from && column < from + own {
                out[index] = parts.index(part)[row * own + column - from];
            }
            from += own;
        }
    }
}

impl JoinBackward for Cube {
    fn cut<const N: usize>(joined: Lazy, widths: [usize; N]) -> [Lazy; N] {
        let rows = joined.shape()[0];
        queue("cut", [joined], widths.map(|width| Shape::new([rows, width])), move |[joined]| {
            let joined = dense(joined);
            let parts = widths.map(|width| empty(&joined, [rows, width]));
            let width: usize = widths.iter().sum();
            let (client, (count, dim)) = (joined.client.clone(), a_unit_each(&joined, rows * width));
            let outputs = parts.iter().map(|part| part.clone().into_buffer_arg()).collect();
            let widths = widths.into_iter().collect();
            cut_kernel::launch(&client, count, dim, joined.into_buffer_arg(), outputs, widths, width);
            parts
        })
    }
}

#[cube(launch)]
fn cut_kernel(joined: &[f32], parts: &mut Sequence<Box<[f32]>>, widths: Sequence<usize>, width: usize) {
    let index = ABSOLUTE_POS;
    if index < joined.len() {
        let (row, column) = (index / width, index % width);
        let mut from = 0usize;
        #[unroll]
        for part in 0..widths.len() {
            let own = *widths.index(part);
            if column >= from && column < from + own {
                parts.index_mut(part)[row * own + column - from] = joined[index];
            }
            from += own;
        }
    }
}

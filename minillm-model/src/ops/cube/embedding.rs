//! [`ops::embedding`](crate::ops::embedding) on a GPU. The gradient of a token's row is the sum over all places where the token stands.
//! Burn's own kernel goes through all places one after the other; here each place first finds the next one with its token, and
//! the first of them goes along that chain, in the order of the text.

use burn::backend::tensor::IntTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Lazy, UNITS, a_cube_each, a_unit_each, dense, empty, queue};
use crate::ops::embedding::{EmbeddingBackward, EmbeddingOp};

impl EmbeddingOp for Cube {
    fn look_up(table: Lazy, ids: IntTensor<Self>) -> Lazy {
        let [b, t] = ids.shape().dims();
        let [_, width] = table.shape().dims();
        let [out] = queue("embedding", [table, ids], [Shape::new([b, t, width])], move |inputs| {
            let [table, ids] = inputs.map(dense);
            let out = empty(&table, [b, t, width]);
            let (client, (count, dim)) = (table.client.clone(), a_unit_each(&table, b * t * width));
            let [table, ids, rows] = [table, ids, out.clone()].map(CubeTensor::into_buffer_arg);
            look_up_kernel::launch(&client, count, dim, table, ids, rows, width);
            [out]
        });
        out
    }
}

#[cube(launch)]
fn look_up_kernel(table: &[f32], ids: &[i32], out: &mut [f32], #[comptime] width: usize) {
    let index = ABSOLUTE_POS;
    if index < out.len() {
        out[index] = table[ids[index / width] as usize * width + index % width];
    }
}

impl EmbeddingBackward for Cube {
    fn look_up_backward(ids: IntTensor<Self>, grad: Lazy, rows: usize) -> Lazy {
        let width = grad.shape()[2];
        let [out] = queue("embedding_backward", [ids, grad], [Shape::new([rows, width])], move |inputs| {
            let [ids, grad] = inputs.map(dense);
            [backward(&ids, grad, rows, width)]
        });
        out
    }
}

fn backward(ids: &CubeTensor, grad: CubeTensor, rows: usize, width: usize) -> CubeTensor {
    let places = ids.shape().num_elements();
    let client = grad.client.clone();
    let next =
        || empty_device_contiguous_dtype(client.clone(), grad.device.clone(), Shape::new([2 * places]), DType::I32);
    let next = next();
    let (count, dim) = a_unit_each(&grad, places);
    chain_kernel::launch(&client, count, dim, ids.clone().into_buffer_arg(), next.clone().into_buffer_arg(), places);
    let out = zeros_client(client.clone(), grad.device.clone(), Shape::new([rows, width]), DType::F32);
    let (count, dim) = a_cube_each(&grad, places);
    sum_kernel::launch(
        &client,
        count,
        dim,
        ids.clone().into_buffer_arg(),
        next.into_buffer_arg(),
        grad.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        places,
        width,
    );
    out
}

/// For each place the next with the same id, or -1; and behind those, whether there is an earlier one.
#[cube(launch)]
fn chain_kernel(ids: &[i32], next: &mut [i32], places: usize) {
    let place = ABSOLUTE_POS;
    if place < places {
        let id = ids[place];
        let mut following = i32::new(-1);
        let mut other = place + 1;
        while other < places {
            if ids[other] == id {
                following = other as i32;
                other = places;
            }
            other += 1;
        }
        let mut earlier = 0i32;
        let mut other = 0usize;
        while other < place {
            if ids[other] == id {
                earlier = 1i32;
                other = place;
            }
            other += 1;
        }
        next[place] = following;
        next[places + place] = earlier;
    }
}

/// A cube for each place; that of a token's first adds up the rows of all.
#[cube(launch)]
fn sum_kernel(ids: &[i32], next: &[i32], grad: &[f32], out: &mut [f32], places: usize, #[comptime] width: usize) {
    let place = CUBE_POS as usize;
    if place < places {
        let first = next[places + place] == 0;
        if first {
            let mut column = UNIT_POS as usize;
            while column < width {
                let mut sum = 0.0f32;
                let mut following = place as i32;
                while following >= 0 {
                    sum += grad[following as usize * width + column];
                    following = next[following as usize];
                }
                out[ids[place] as usize * width + column] = sum;
                column += UNITS;
            }
        }
    }
}

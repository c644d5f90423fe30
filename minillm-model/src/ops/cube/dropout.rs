//! [`ops::dropout`](crate::ops::dropout) on a GPU: a unit for each number. The hash is that of [`layers::dropout`](crate::layers::dropout).

use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Lazy, a_unit_each, dense, empty, queue};
use crate::ops::dropout::{DropoutOp, Mask};

impl DropoutOp for Cube {
    fn dropout(x: Lazy, seeds: Lazy, mask: Mask) -> Lazy {
        let shape = x.shape();
        let [out] = queue("dropout", [x, seeds], [shape], move |inputs| {
            let [x, seeds] = inputs.map(dense);
            let out = empty(&x, x.shape());
            let numbers = x.shape().num_elements();
            let (client, (count, dim)) = (x.client.clone(), a_unit_each(&x, numbers));
            let [x, seeds, dropped] = [x, seeds, out.clone()].map(CubeTensor::into_buffer_arg);
            let Mask { first_row, sequences, threshold, factor } = mask;
            dropout_kernel::launch(
                &client,
                count,
                dim,
                x,
                seeds,
                dropped,
                numbers / sequences,
                first_row,
                threshold,
                factor,
            );
            [out]
        });
        out
    }
}

#[cube(launch)]
fn dropout_kernel(
    x: &[f32],
    seeds: &[f32],
    out: &mut [f32],
    numbers_of_a_sequence: usize,
    first_row: usize,
    threshold: u32,
    factor: f32,
) {
    let index = ABSOLUTE_POS;
    if index < out.len() {
        let place = 2 * (first_row + index / numbers_of_a_sequence);
        let seed = seed_of(seeds[place], seeds[place + 1]);
        let kept = is_kept((index % numbers_of_a_sequence) as u32, seed, threshold);
        out[index] = select(kept, x[index] * factor, 0.0f32);
    }
}

/// A seed from its halves.
#[cube]
pub fn seed_of(upper: f32, lower: f32) -> u32 {
    (u32::cast_from(upper) << 16u32) | u32::cast_from(lower)
}

/// Whether the value at `index` of a sequence is kept.
#[cube]
pub fn is_kept(index: u32, seed: u32, threshold: u32) -> bool {
    hash_31(hash_31(index) ^ seed) >= threshold
}

/// The 32-bit form of the layer's hash: of a product, the low 31 bits are the same.
#[cube]
fn hash_31(x: u32) -> u32 {
    let low = 0x7fff_ffffu32;
    let multiplier = 0x045d_9f3bu32;
    let mut x = x;
    x = ((x ^ (x >> 16u32)) * multiplier) & low;
    x = ((x ^ (x >> 15u32)) * multiplier) & low;
    x ^ (x >> 16u32)
}

//! Sums within a cube and over rows, which several kernels share.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{UNITS, a_unit_each, empty};

/// The sum of what each of the cube's units holds, for all of them. Its shared memory may be used again after it.
#[cube]
pub fn cube_sum(value: f32) -> f32 {
    let mut sums = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    sums[unit] = value;
    sync_cube();
    let steps = comptime!(UNITS.ilog2());
    #[unroll]
    for step in 0..steps {
        let half = comptime!(UNITS >> (step + 1));
        if unit < half {
            let other = sums[unit + half];
            sums[unit] += other;
        }
        sync_cube();
    }
    let sum = sums[0];
    sync_cube();
    sum
}

/// The sum of `rows` rows, each the `width` numbers of a unit: `[rows, width]` -> `[width]`
pub fn sum_rows(parts: CubeTensor, width: usize) -> CubeTensor {
    let out = empty(&parts, [width]);
    let (count, dim) = a_unit_each(&out, width);
    let client = parts.client.clone();
    sum_rows_kernel::launch(&client, count, dim, parts.into_buffer_arg(), out.clone().into_buffer_arg());
    out
}

#[cube(launch)]
fn sum_rows_kernel(parts: &[f32], out: &mut [f32]) {
    let column = ABSOLUTE_POS;
    let width = out.len();
    if column < width {
        let mut sum = 0.0f32;
        let mut index = column;
        while index < parts.len() {
            sum += parts[index];
            index += width;
        }
        out[column] = sum;
    }
}

//! [`ops::quantized`](crate::ops::quantized) on a GPU. The matrix is read as it is stored, and its numbers exist in f32 in registers
//! only.
//!
//! Eight units share an output, and eight groups of them are a cube. The eight read neighbouring pieces of the matrix, 128 bytes at a
//! time, and multiply them with one row or with several; what they add up is added in shared memory at the end. So a word of the
//! matrix is read once for every tile of rows, and turned into f32 once. In generation there is one row, and time is that of reading the matrix.

use burn::backend::tensor::IntTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Lazy, UNITS, a_cube_each, dense, empty, queue};
use crate::encoding::Q8_0_BLOCK;
use crate::ops::quantized::{QUANTS_PER_WORD, QuantizedMatmulOp};

/// Units that share an output.
const LANES: usize = 8;

/// Such groups in a cube.
const GROUPS: usize = UNITS / LANES;

/// Words or numbers that a unit reads in one instruction.
const FOUR: usize = 4;

/// Quants of the words that a unit reads in one instruction, and half a block: they have one scale.
const PIECE: usize = FOUR * QUANTS_PER_WORD;

/// Four neighbours of a row.
type Four = Vector<f32, Const<FOUR>>;

/// Four words.
type Words = Vector<i32, Const<FOUR>>;

/// What a unit computes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    /// Rows of x, each with all of the outputs.
    rows: usize,
    /// Outputs; those of a cube's groups alternate.
    outputs: usize,
}

impl Tile {
    /// From one row on: with more outputs, a small matrix would be work for too few units.
    ///
    /// The last: each number of x that is read counts for four outputs, each of the matrix for eight rows. What a unit adds up and has read, about
    /// 90 numbers, fits into its registers. Software Vulkan (Mesa) takes, for a matrix of 768 by 3,072 and one, four and 64 rows, 2.6, 3.5 and
    /// 54 ms; with tiles of 1 by 1, 8 by 4 and 4 by 2 it takes 3.9, 7.5 and 102, and Burn's product in f32 6.2, 13 and 33. No GPU was there to
    /// measure on.
    const ALL: [Self; 3] = [Self { rows: 1, outputs: 2 }, Self { rows: 4, outputs: 2 }, Self { rows: 8, outputs: 4 }];

    /// The smallest that has so many rows, or the largest.
    fn of(rows: usize) -> Self {
        let [small @ .., largest] = Self::ALL;
        small.into_iter().find(|tile| rows <= tile.rows).unwrap_or(largest)
    }

    const fn sums(self) -> usize {
        self.rows * self.outputs
    }
}

/// WebGPU has 16,384 bytes of shared memory on every device.
const _: () = assert!(Tile::ALL[2].sums() * UNITS * size_of::<f32>() <= 16_384);

impl QuantizedMatmulOp for Cube {
    fn quantized_matmul(x: Lazy, words: IntTensor<Self>, scales: Lazy) -> Lazy {
        let [b, t, input] = x.shape().dims();
        let output = scales.shape().num_elements() * Q8_0_BLOCK / input;
        let shape = Shape::new([b, t, output]);
        let [out] = queue("quantized_matmul", [x, words, scales], [shape], move |inputs| {
            let [x, words, scales] = inputs.map(dense);
            let out = empty(&x, [b, t, output]);
            let rows = b * t;
            let tile = Tile::of(rows);
            let cubes = rows.div_ceil(tile.rows) * output.div_ceil(GROUPS * tile.outputs);
            let (client, (count, dim)) = (x.client.clone(), a_cube_each(&x, cubes));
            let [x, words, scales, result] = [x, words, scales, out.clone()].map(CubeTensor::into_buffer_arg);
            kernel::launch(&client, count, dim, x, words, scales, result, rows, input / PIECE, output, tile);
            [out]
        });
        out
    }
}

/// `pieces`: of a row, or of an output.
#[cube(launch)]
fn kernel(
    x: &[Four],
    words: &[Words],
    scales: &[f32],
    out: &mut [f32],
    rows: usize,
    pieces: usize,
    output: usize,
    #[comptime] tile: Tile,
) {
    let (lane, group) = (UNIT_POS as usize % LANES, UNIT_POS as usize / LANES);
    // Neighbouring cubes read the same part of the matrix.
    let row_tiles = rows.div_ceil(comptime!(tile.rows));
    let first_row = CUBE_POS as usize % row_tiles * comptime!(tile.rows);
    let first_output = CUBE_POS as usize / row_tiles * comptime!(tile.outputs * GROUPS);
    if first_output < output {
        // Rows and outputs beyond the last are computed as the last, and not written.
        let mut sums = Array::<f32>::new(comptime!(tile.sums()));
        #[unroll]
        for index in 0..comptime!(tile.sums()) {
            sums[index] = 0.0f32;
        }
        let mut piece = lane;
        while piece < pieces {
            let mut read = Array::<Words>::new(comptime!(tile.outputs));
            let mut factors = Array::<Four>::new(comptime!(tile.outputs));
            #[unroll]
            for o in 0..comptime!(tile.outputs) {
                let place = min(first_output + o * GROUPS + group, output - 1) * pieces + piece;
                read[o] = words[place];
                factors[o] = Four::new(scales[place / comptime!(Q8_0_BLOCK / PIECE)]);
            }
            #[unroll]
            for word in 0..FOUR {
                let mut numbers = Array::<Four>::new(comptime!(tile.rows));
                #[unroll]
                for r in 0..comptime!(tile.rows) {
                    numbers[r] = x[(min(first_row + r, rows - 1) * pieces + piece) * FOUR + word];
                }
                #[unroll]
                for o in 0..comptime!(tile.outputs) {
                    let weights = quants(read[o].extract(word)) * factors[o];
                    #[unroll]
                    for r in 0..comptime!(tile.rows) {
                        sums[r * comptime!(tile.outputs) + o] += numbers[r].dot(weights);
                    }
                }
            }
            piece += LANES;
        }

        let mut parts = Shared::<[f32]>::new_slice(comptime!(tile.sums() * UNITS));
        #[unroll]
        for index in 0..comptime!(tile.sums()) {
            parts[index * UNITS + UNIT_POS as usize] = sums[index];
        }
        sync_cube();
        let mut place = UNIT_POS as usize;
        while place < comptime!(tile.sums() * GROUPS) {
            let (index, group) = (place / GROUPS, place % GROUPS);
            let row = first_row + index / comptime!(tile.outputs);
            let column = first_output + index % comptime!(tile.outputs) * GROUPS + group;
            if row < rows && column < output {
                let mut sum = 0.0f32;
                #[unroll]
                for lane in 0..LANES {
                    sum += parts[place * LANES + lane];
                }
                out[row * output + column] = sum;
            }
            place += UNITS;
        }
    }
}

/// The four numbers of 8 bits in a word, the lowest byte first. Shifted to the top and back down, a byte keeps its sign.
#[cube]
fn quants(word: i32) -> Four {
    let mut numbers = Four::new(0.0f32);
    #[unroll]
    for byte in 0..QUANTS_PER_WORD {
        let top = word << comptime!(24 - 8 * byte as i32);
        numbers.insert(byte, f32::cast_from(top >> 24i32));
    }
    numbers
}

//! Every query's mix of the values, and the logarithm of its sum of exponentials (Dao 2023, arXiv:2307.08691): a cube has a tile
//! of queries of one head and goes through the keys a tile at a time. A row's largest score so far and its sum of exponentials are
//! kept up to date, so no scores are stored.

use cubecl::prelude::*;

use super::super::dropout::seed_of;
use super::tile::{
    Extent, FOUR, Four, HIDDEN, Place, Plan, SIDE, add_product, dropout_factor, is_visible, products, read_rows,
    zero_rows, zeros,
};

/// # Shapes
/// - `inputs`: queries, keys and values, or one tensor with all; `tables`: cosines and sines, `[T, E]`, or none;
///   `seeds`: of what is dropped, `[rows, 2]`, or none
/// - `out`: `[B, T, H, E]`; `row_sums`: `[2, B, H, T]`, of which the first half is written: the logarithms; behind them, for the backward
///   kernels, the seeds: `[B, 2]`
#[cube(launch)]
pub fn forward(
    inputs: &Sequence<Box<[f32]>>,
    tables: &Sequence<Box<[f32]>>,
    seeds: &Sequence<Box<[f32]>>,
    out: &mut [f32],
    row_sums: &mut [f32],
    query_place: Place,
    key_place: Place,
    value_place: Place,
    extent: Extent,
    cubes: usize,
    #[comptime] plan: Plan,
) {
    if (CUBE_POS as usize) < cubes {
        let tile = comptime!(plan.tile);
        let (y, x) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
        let m = comptime!(plan.rows_of_a_unit());
        let fours = comptime!(plan.fours_of_a_unit());

        // Which head and which queries. The last tiles have the most keys and go first.
        let tiles = (extent.queries + tile - 1) / tile;
        let first = (tiles - 1 - CUBE_POS as usize % tiles) * tile;
        let head = CUBE_POS as usize / tiles % extent.heads;
        let batch = CUBE_POS as usize / tiles / extent.heads;
        let key_head = head / extent.group;
        let earlier = extent.keys - extent.queries;

        let mut queries = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut rows = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut weights = Shared::<[f32]>::new_slice(comptime!(plan.scores()));
        let mut across = Shared::<[f32]>::new_slice(comptime!(plan.tile * SIDE));

        let start = query_place.offset + batch * query_place.batch + head * query_place.head;
        let end = min(first + tile, extent.queries);
        let rotated = comptime!(plan.rotated);
        let query = inputs.index(0);
        let key = inputs.index(comptime!(plan.key()));
        let value = inputs.index(comptime!(plan.value()));
        read_rows(&mut queries, query, start, query_place.token, first, end, extent.scale, tables, rotated, plan);

        let mut seed = 0u32;
        if comptime!(plan.dropped) {
            let place = 2 * (extent.first_seed + batch);
            seed = seed_of(seeds.index(0)[place], seeds.index(0)[place + 1]);
            if head == 0 && first == 0 && UNIT_POS < 2 {
                let half = UNIT_POS as usize;
                row_sums[2 * (extent.rows + batch) + half] = seeds.index(0)[place + half];
            }
        }
        let mut result = zero_rows(plan);
        let mut sums = zeros(m);
        let mut largest = zeros(m);
        #[unroll]
        for i in 0..m {
            largest[i] = f32::new(HIDDEN);
        }

        let key_start = key_place.offset + batch * key_place.batch + key_head * key_place.head;
        let value_start = value_place.offset + batch * value_place.batch + key_head * value_place.head;
        let last_key = earlier + end;
        let mut begin = 0usize;
        if earlier + first + 1 > extent.window {
            begin = (earlier + first + 1 - extent.window) / tile * tile;
        }
        while begin < last_key {
            read_rows(&mut rows, key, key_start, key_place.token, begin, last_key, 1.0f32, tables, rotated, plan);
            sync_cube();

            // Scores of the unit's rows and columns.
            let mut scores = products(&queries, &rows, plan);
            // The largest of each row: of the unit's columns, then of all.
            #[unroll]
            for i in 0..m {
                let position = earlier + first + y + i * SIDE;
                let mut top = f32::new(HIDDEN);
                #[unroll]
                for j in 0..m {
                    if !is_visible(position, begin + x + j * SIDE, extent.window) {
                        scores[i * m + j] = f32::new(HIDDEN);
                    }
                    top = max(top, scores[i * m + j]);
                }
                across[(y + i * SIDE) * SIDE + x] = top;
            }
            sync_cube();
            #[unroll]
            for i in 0..m {
                let row = y + i * SIDE;
                let mut top = largest[i];
                #[unroll]
                for other in 0..SIDE {
                    top = max(top, across[row * SIDE + other]);
                }
                let shrink = (largest[i] - top).exp();
                largest[i] = top;
                sums[i] *= shrink;
                #[unroll]
                for c in 0..fours {
                    result[i * fours + c] *= Four::new(shrink);
                }
                #[unroll]
                for j in 0..m {
                    let weight = (scores[i * m + j] - top).exp();
                    sums[i] += weight;
                    let column = x + j * SIDE;
                    let factor = dropout_factor(seed, head, first + row, begin + column, &extent, plan);
                    weights[row * comptime!(plan.tile + 1) + column] = weight * factor;
                }
            }
            read_rows(&mut rows, value, value_start, value_place.token, begin, last_key, 1.0f32, tables, false, plan);
            sync_cube();
            add_product(&mut result, &weights, &rows, false, plan);
            sync_cube();
            begin += tile;
        }

        #[unroll]
        for i in 0..m {
            across[(y + i * SIDE) * SIDE + x] = sums[i];
        }
        sync_cube();
        #[unroll]
        for i in 0..m {
            let row = y + i * SIDE;
            let token = first + row;
            let mut sum = 0.0f32;
            #[unroll]
            for other in 0..SIDE {
                sum += across[row * SIDE + other];
            }
            if token < end {
                let place = ((batch * extent.queries + token) * extent.heads + head) * comptime!(plan.width);
                #[unroll]
                for c in 0..fours {
                    #[unroll]
                    for lane in 0..FOUR {
                        let column = (x + c * SIDE) * FOUR + lane;
                        if column < comptime!(plan.width) {
                            out[place + column] = result[i * fours + c].extract(lane) / sum;
                        }
                    }
                }
                if x == 0 {
                    let place = (batch * extent.heads + head) * extent.queries + token;
                    row_sums[place] = largest[i] + sum.ln();
                }
            }
        }
    }
}

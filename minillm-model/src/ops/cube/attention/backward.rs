//! The gradients of attention: the scores of a tile are computed again, from the logarithms of the sums that the forward pass kept.
//!
//! ```text
//! p = exp(score - logsumexp)            dv = (f p)^T do
//! ds = p (f do v^T - sum(do out))       dq = scale ds k        dk = scale ds^T q
//! ```
//!
//! `f` is 1, or what dropout multiplies a weight by.
//!
//! One kernel has a tile of queries and goes through the keys (`dq`), the other a tile of keys and goes through the queries of all
//! heads that share it (`dk`, `dv`); no two cubes write the same number, so sums have one order.

use cubecl::prelude::*;

use super::super::dropout::seed_of;
use super::tile::{
    Extent, Four, Place, Plan, SIDE, add_product, dropout_factor, is_visible, products, put_rows, read_rows,
    write_rows, zero_rows, zeros,
};

/// `dq`, and `sum(do out)` of each row for the other kernel.
///
/// # Shapes
/// - `inputs`, `tables`: as in the forward kernel
/// - `out`, `grad`: `[B, T, H, E]`; `row_sums`: `[2, B, H, T]`, of which the second half is written, and seeds
#[cube(launch)]
pub fn queries(
    inputs: &Sequence<Box<[f32]>>,
    tables: &Sequence<Box<[f32]>>,
    out: &[f32],
    row_sums: &mut [f32],
    grad: &[f32],
    gradient: &mut [f32],
    query_place: Place,
    key_place: Place,
    value_place: Place,
    gradient_place: Place,
    extent: Extent,
    cubes: usize,
    #[comptime] plan: Plan,
) {
    if (CUBE_POS as usize) < cubes {
        let (tile, stride) = (comptime!(plan.tile), comptime!(plan.stride()));
        let (y, x) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
        let m = comptime!(plan.rows_of_a_unit());

        let tiles = (extent.queries + tile - 1) / tile;
        let first = (tiles - 1 - CUBE_POS as usize % tiles) * tile;
        let head = CUBE_POS as usize / tiles % extent.heads;
        let batch = CUBE_POS as usize / tiles / extent.heads;
        let key_head = head / extent.group;
        let earlier = extent.keys - extent.queries;
        let end = min(first + tile, extent.queries);
        let rotated = comptime!(plan.rotated);
        let query = inputs.index(0);
        let key = inputs.index(comptime!(plan.key()));
        let value = inputs.index(comptime!(plan.value()));

        let mut q = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut d = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut k = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut v = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut dscores = Shared::<[f32]>::new_slice(comptime!(plan.scores()));

        // Output and gradient lie token after token, heads side by side.
        let out_token = extent.heads * comptime!(plan.width);
        let out_start = batch * extent.queries * out_token + head * comptime!(plan.width);
        let start = query_place.offset + batch * query_place.batch + head * query_place.head;
        read_rows(&mut q, query, start, query_place.token, first, end, extent.scale, tables, rotated, plan);
        read_rows(&mut d, grad, out_start, out_token, first, end, 1.0f32, tables, false, plan);
        read_rows(&mut k, out, out_start, out_token, first, end, 1.0f32, tables, false, plan);
        sync_cube();
        let mut seed = 0u32;
        if comptime!(plan.dropped) {
            let place = 2 * (extent.rows + batch);
            seed = seed_of(row_sums[place], row_sums[place + 1]);
        }

        // sum(do out) of the unit's rows; units side by side compute the same.
        let mut sums = zeros(m);
        let mut logs = zeros(m);
        let row_start = (batch * extent.heads + head) * extent.queries;
        #[unroll]
        for i in 0..m {
            let row = y + i * SIDE;
            for four in 0..comptime!(plan.fours()) {
                sums[i] += d[row * stride + four].dot(k[row * stride + four]);
            }
            if first + row < end {
                logs[i] = row_sums[row_start + first + row];
                if x == 0 {
                    row_sums[extent.rows + row_start + first + row] = sums[i];
                }
            }
        }
        sync_cube();

        let mut result = zero_rows(plan);
        let key_start = key_place.offset + batch * key_place.batch + key_head * key_place.head;
        let value_start = value_place.offset + batch * value_place.batch + key_head * value_place.head;
        let last_key = earlier + end;
        let mut begin = 0usize;
        if earlier + first + 1 > extent.window {
            begin = (earlier + first + 1 - extent.window) / tile * tile;
        }
        while begin < last_key {
            read_rows(&mut k, key, key_start, key_place.token, begin, last_key, 1.0f32, tables, rotated, plan);
            read_rows(&mut v, value, value_start, value_place.token, begin, last_key, 1.0f32, tables, false, plan);
            sync_cube();
            let scores = products(&q, &k, plan);
            let dweights = products(&d, &v, plan);
            #[unroll]
            for i in 0..m {
                let row = y + i * SIDE;
                #[unroll]
                for j in 0..m {
                    let column = x + j * SIDE;
                    let mut dscore = 0.0f32;
                    if is_visible(earlier + first + row, begin + column, extent.window) {
                        let factor = dropout_factor(seed, head, first + row, begin + column, &extent, plan);
                        dscore = (scores[i * m + j] - logs[i]).exp() * (factor * dweights[i * m + j] - sums[i]);
                    }
                    dscores[row * comptime!(plan.tile + 1) + column] = dscore;
                }
            }
            sync_cube();
            add_product(&mut result, &dscores, &k, false, plan);
            sync_cube();
            begin += tile;
        }

        put_rows(&result, &mut q, extent.scale, plan);
        sync_cube();
        let target = gradient_place.offset + batch * gradient_place.batch + head * gradient_place.head;
        write_rows(&q, gradient, target, gradient_place.token, first, end, tables, rotated, plan);
    }
}

/// `dk` and `dv`.
///
/// # Shapes
/// - `inputs`, `tables`: as in the forward kernel; `grad`: `[B, T, H, E]`; `row_sums`: `[2, B, H, T]`
#[cube(launch)]
pub fn keys(
    inputs: &Sequence<Box<[f32]>>,
    tables: &Sequence<Box<[f32]>>,
    row_sums: &[f32],
    grad: &[f32],
    gradient: &mut [f32],
    query_place: Place,
    key_place: Place,
    value_place: Place,
    key_gradient: Place,
    value_gradient: Place,
    extent: Extent,
    cubes: usize,
    #[comptime] plan: Plan,
) {
    if (CUBE_POS as usize) < cubes {
        let tile = comptime!(plan.tile);
        let (y, x) = (UNIT_POS as usize / SIDE, UNIT_POS as usize % SIDE);
        let m = comptime!(plan.rows_of_a_unit());

        // The first keys have the most queries and go first.
        let tiles = (extent.keys + tile - 1) / tile;
        let first = CUBE_POS as usize % tiles * tile;
        let key_heads = extent.heads / extent.group;
        let key_head = CUBE_POS as usize / tiles % key_heads;
        let batch = CUBE_POS as usize / tiles / key_heads;
        let earlier = extent.keys - extent.queries;
        let end = min(first + tile, extent.keys);
        let rotated = comptime!(plan.rotated);
        let query = inputs.index(0);
        let key = inputs.index(comptime!(plan.key()));
        let value = inputs.index(comptime!(plan.value()));

        let mut q = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut d = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut k = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut v = Shared::<[Four]>::new_slice(comptime!(plan.rows()));
        let mut weights = Shared::<[f32]>::new_slice(comptime!(plan.scores()));
        let mut dscores = Shared::<[f32]>::new_slice(comptime!(plan.scores()));

        let key_start = key_place.offset + batch * key_place.batch + key_head * key_place.head;
        let value_start = value_place.offset + batch * value_place.batch + key_head * value_place.head;
        read_rows(&mut k, key, key_start, key_place.token, first, end, 1.0f32, tables, rotated, plan);
        read_rows(&mut v, value, value_start, value_place.token, first, end, 1.0f32, tables, false, plan);

        let mut seed = 0u32;
        if comptime!(plan.dropped) {
            let place = 2 * (extent.rows + batch);
            seed = seed_of(row_sums[place], row_sums[place + 1]);
        }
        let mut dkey = zero_rows(plan);
        let mut dvalue = zero_rows(plan);
        let out_token = extent.heads * comptime!(plan.width);

        // Queries that see one of the keys: from the first key's own on, as far as the last key is seen.
        let mut first_query = 0usize;
        if first > earlier {
            first_query = (first - earlier) / tile * tile;
        }
        let mut last_query = 0usize;
        if end - 1 + extent.window > earlier {
            last_query = min(end - 1 + extent.window - earlier, extent.queries);
        }
        for shared in 0..extent.group {
            let head = key_head * extent.group + shared;
            let start = query_place.offset + batch * query_place.batch + head * query_place.head;
            let out_start = batch * extent.queries * out_token + head * comptime!(plan.width);
            let row_start = (batch * extent.heads + head) * extent.queries;
            let mut begin = first_query;
            while begin < last_query {
                let last = extent.queries;
                read_rows(&mut q, query, start, query_place.token, begin, last, extent.scale, tables, rotated, plan);
                read_rows(&mut d, grad, out_start, out_token, begin, last, 1.0f32, tables, false, plan);
                sync_cube();
                let scores = products(&q, &k, plan);
                let dweights = products(&d, &v, plan);
                #[unroll]
                for i in 0..m {
                    let row = y + i * SIDE;
                    let token = begin + row;
                    let mut log = 0.0f32;
                    let mut sum = 0.0f32;
                    if token < extent.queries {
                        log = row_sums[row_start + token];
                        sum = row_sums[extent.rows + row_start + token];
                    }
                    #[unroll]
                    for j in 0..m {
                        let column = x + j * SIDE;
                        let mut weight = 0.0f32;
                        if token < extent.queries && is_visible(earlier + token, first + column, extent.window) {
                            weight = (scores[i * m + j] - log).exp();
                        }
                        let place = row * comptime!(plan.tile + 1) + column;
                        let factor = dropout_factor(seed, head, token, first + column, &extent, plan);
                        weights[place] = weight * factor;
                        dscores[place] = weight * (factor * dweights[i * m + j] - sum);
                    }
                }
                sync_cube();
                add_product(&mut dvalue, &weights, &d, true, plan);
                add_product(&mut dkey, &dscores, &q, true, plan); // `q` has the scale already
                sync_cube();
                begin += tile;
            }
        }

        put_rows(&dkey, &mut k, 1.0f32, plan);
        put_rows(&dvalue, &mut v, 1.0f32, plan);
        sync_cube();
        let target = key_gradient.offset + batch * key_gradient.batch + key_head * key_gradient.head;
        write_rows(&k, gradient, target, key_gradient.token, first, end, tables, rotated, plan);
        let target = value_gradient.offset + batch * value_gradient.batch + key_head * value_gradient.head;
        write_rows(&v, gradient, target, value_gradient.token, first, end, tables, false, plan);
    }
}

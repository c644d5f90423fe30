//! [`ops::attention`](crate::ops::attention) on a GPU: [`forward`] and [`backward`] are the kernels, here is how they are started.

mod backward;
mod forward;
mod tile;

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::ops::reshape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::SequenceArg;

use self::tile::{ExtentLaunch, FOUR, PlaceLaunch, Plan, SIDE};
use super::{Lazy, a_cube_each, dense, empty, queue};
use crate::ops::attention::{AttentionBackward, AttentionOp, Reach, SavedForBackward};
use crate::ops::dropout::Mask;
use crate::ops::joined_attention::{Heads, JoinedAttentionBackward, JoinedAttentionOp, SavedForBackward as Joined};
use crate::ops::portable;

/// Tiles from the largest on: powers of two of [`SIDE`]. Which is fastest was not measured on a GPU.
const TILES: [usize; 3] = [32, 16, 8];

/// Sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sizes {
    batch: usize,
    heads: usize,
    key_heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
    window: Option<usize>,
    dropped: Option<Mask>,
}

impl Sizes {
    /// Of `query`: `[B, H, T, E]` and `key`: `[B, K, S, E]`.
    fn of(query: &Shape, key: &Shape, window: Option<usize>) -> Self {
        let [batch, heads, queries, width] = query.dims();
        let [_, key_heads, keys, _] = key.dims();
        Self { batch, heads, key_heads, queries, keys, width, window, dropped: None }
    }

    fn extent(self) -> ExtentLaunch {
        let window = self.window.unwrap_or(self.keys).min(self.keys);
        let scale = 1.0 / (self.width as f32).sqrt();
        let (first_seed, threshold, factor) =
            self.dropped.map_or((0, 0, 1.0), |mask| (mask.first_row, mask.threshold, mask.factor));
        ExtentLaunch::new(
            self.heads,
            self.heads / self.key_heads,
            self.queries,
            self.keys,
            window,
            scale,
            self.rows(),
            first_seed,
            threshold,
            factor,
        )
    }

    /// Rows of scores.
    fn rows(self) -> usize {
        self.batch * self.heads * self.queries
    }

    /// Numbers behind the logarithms of the rows' sums: as many of the backward pass, and the seeds of what is dropped.
    fn row_sums(self) -> Shape {
        let seeds = if self.dropped.is_some() { 2 * self.batch } else { 0 };
        Shape::new([2 * self.rows() + seeds])
    }

    /// The largest tile for which `numbers` of shared memory fit on the device.
    fn plan(self, like: &CubeTensor, rotated: bool, joined: bool, numbers: fn(Plan) -> usize) -> Option<Plan> {
        let limit = shared_numbers(&like.client);
        let needed = TILES.into_iter().find(|tile| *tile < 2 * self.queries.max(self.keys).max(SIDE));
        let plans =
            TILES.map(|tile| Plan { width: self.width, tile, rotated, joined, dropped: self.dropped.is_some() });
        plans.into_iter().find(|plan| Some(plan.tile) <= needed && numbers(*plan) <= limit)
    }
}

/// Numbers that a cube's shared memory holds on this device.
fn shared_numbers(client: &Client) -> usize {
    client.properties().hardware.max_shared_memory_size / size_of::<f32>()
}

/// Numbers of shared memory that the forward kernel uses.
fn forward_numbers(plan: Plan) -> usize {
    2 * FOUR * plan.rows() + plan.scores() + plan.tile * SIDE
}

/// And the larger of the backward kernels.
fn backward_numbers(plan: Plan) -> usize {
    4 * FOUR * plan.rows() + 2 * plan.scores()
}

/// Where the heads of queries, keys and values, or of their gradients, lie.
#[derive(Clone, Copy, Debug)]
struct Layout {
    offset: usize,
    batch: usize,
    head: usize,
    token: usize,
}

impl Layout {
    /// Of `[B, heads, T, E]` with rows in one piece.
    fn of(tensor: &CubeTensor) -> Self {
        let strides = tensor.meta.strides();
        Self { offset: 0, batch: strides[0], head: strides[1], token: strides[2] }
    }

    fn launch(self) -> PlaceLaunch {
        PlaceLaunch::new(self.offset, self.batch, self.head, self.token)
    }
}

/// Queries, keys and values with their places.
struct Input {
    /// The three, or one tensor with all.
    tensors: Vec<CubeTensor>,
    places: [Layout; 3],
    /// Cosines and sines, `[T, E]`, where queries and keys are still to be rotated; or nothing.
    tables: Vec<CubeTensor>,
    /// The seeds of all that is dropped, or nothing.
    seeds: Vec<CubeTensor>,
    sizes: Sizes,
}

/// Kernel arguments for any number of tensors.
fn buffers(tensors: &[CubeTensor]) -> SequenceArg<Box<[f32]>> {
    tensors.iter().map(|tensor| tensor.clone().into_buffer_arg()).collect()
}

impl Input {
    fn plan(&self, numbers: fn(Plan) -> usize) -> Plan {
        let (rotated, joined) = (!self.tables.is_empty(), self.tensors.len() == 1);
        self.sizes.plan(&self.tensors[0], rotated, joined, numbers).expect("`fits` was asked before")
    }

    /// The output, `[B, T, H, E]`, and the logarithms of the rows' sums, with room behind them ([`Sizes::row_sums`]).
    fn forward(self) -> [CubeTensor; 2] {
        let Sizes { batch, heads, queries, width, .. } = self.sizes;
        let plan = self.plan(forward_numbers);
        let like = &self.tensors[0];
        let out = empty(like, [batch, queries, heads, width]);
        let row_sums = empty(like, self.sizes.row_sums());
        let cubes = batch * heads * queries.div_ceil(plan.tile);
        let (count, dim) = a_cube_each(like, cubes);
        let [query, key, value] = self.places.map(Layout::launch);
        forward::forward::launch(
            &like.client,
            count,
            dim,
            buffers(&self.tensors),
            buffers(&self.tables),
            buffers(&self.seeds),
            out.clone().into_buffer_arg(),
            row_sums.clone().into_buffer_arg(),
            query,
            key,
            value,
            self.sizes.extent(),
            cubes,
            plan,
        );
        [out, row_sums]
    }

    /// Fills `dquery` and `dkey_and_value`, which may be one tensor, at `places` for query, key and value.
    fn backward(
        self,
        [out, row_sums, grad]: [CubeTensor; 3],
        dquery: &CubeTensor,
        dkey_and_value: &CubeTensor,
        places: [Layout; 3],
    ) {
        let Sizes { batch, heads, key_heads, queries, keys, .. } = self.sizes;
        let plan = self.plan(backward_numbers);
        // The second half of `row_sums` is nobody else's, so it is written even where the tape holds the first: two backward passes write
        // the same numbers.
        let client = out.client.clone();
        let [dquery_place, dkey_place, dvalue_place] = places.map(Layout::launch);

        let cubes = batch * heads * queries.div_ceil(plan.tile);
        let (count, dim) = a_cube_each(&out, cubes);
        let [query, key, value] = self.places.map(Layout::launch);
        backward::queries::launch(
            &client,
            count,
            dim,
            buffers(&self.tensors),
            buffers(&self.tables),
            out.clone().into_buffer_arg(),
            row_sums.clone().into_buffer_arg(),
            grad.clone().into_buffer_arg(),
            dquery.clone().into_buffer_arg(),
            query,
            key,
            value,
            dquery_place,
            self.sizes.extent(),
            cubes,
            plan,
        );

        let cubes = batch * key_heads * keys.div_ceil(plan.tile);
        let (count, dim) = a_cube_each(&out, cubes);
        let [query, key, value] = self.places.map(Layout::launch);
        backward::keys::launch(
            &client,
            count,
            dim,
            buffers(&self.tensors),
            buffers(&self.tables),
            row_sums.into_buffer_arg(),
            grad.into_buffer_arg(),
            dkey_and_value.clone().into_buffer_arg(),
            query,
            key,
            value,
            dkey_place,
            dvalue_place,
            self.sizes.extent(),
            cubes,
            plan,
        );
    }
}

/// A tensor whose rows are in one piece, whatever its other strides.
fn with_whole_rows(tensor: CubeTensor) -> CubeTensor {
    if tensor.meta.strides().last() == Some(&1) { tensor } else { dense(tensor) }
}

/// `[B, T, heads, E]` from `[B, heads, T, E]`, or back.
pub(super) fn swapped(mut tensor: CubeTensor) -> CubeTensor {
    tensor.meta.swap(1, 2);
    tensor
}

fn split(tensors: [CubeTensor; 3], sizes: Sizes) -> Input {
    let tensors = tensors.map(with_whole_rows);
    let places = tensors.each_ref().map(Layout::of);
    Input { tensors: tensors.to_vec(), places, tables: Vec::new(), seeds: Vec::new(), sizes }
}

impl AttentionOp for Cube {
    fn causal_attention(query: Lazy, key: Lazy, value: Lazy, reach: Reach) -> Lazy {
        Self::attention_forward([query, key, value], reach).out
    }
}

impl AttentionBackward for Cube {
    fn attention_forward(qkv: [Lazy; 3], reach: Reach) -> SavedForBackward<Self> {
        let sizes = Sizes::of(&qkv[0].shape(), &qkv[1].shape(), reach.window);
        if reach.starts.is_some() || !fits(&qkv[0].device(), sizes.width) {
            return portable::attention::forward::<Self>(qkv, reach);
        }
        let shapes = [qkv[0].shape(), sizes.row_sums()];
        let [out, logsumexp] = queue("attention", qkv.clone(), shapes, move |tensors| {
            let [out, logsumexp] = split(tensors, sizes).forward();
            [swapped(out), logsumexp]
        });
        SavedForBackward { qkv, out, logsumexp, reach }
    }

    fn attention_backward(saved: SavedForBackward<Self>, grad: Lazy) -> [Lazy; 3] {
        let sizes = Sizes::of(&saved.qkv[0].shape(), &saved.qkv[1].shape(), saved.reach.window);
        if saved.reach.starts.is_some() || !fits(&grad.device(), sizes.width) {
            return portable::attention::backward::<Self>(saved, &grad);
        }
        let SavedForBackward { qkv: [query, key, value], out, logsumexp, .. } = saved;
        let shapes = [query.shape(), key.shape(), value.shape()];
        let inputs = [query, key, value, out, logsumexp, grad];
        queue("attention_backward", inputs, shapes, move |[query, key, value, out, logsumexp, grad]| {
            let Sizes { batch, heads, key_heads, queries, keys, width, .. } = sizes;
            let input = split([query, key, value], sizes);
            let [out, grad] = [out, grad].map(|tensor| dense(swapped(tensor)));
            let dquery = empty(&out, [batch, queries, heads, width]);
            // Keys' and values' gradients in one buffer, each at an offset that a device can bind: a multiple of 256 bytes.
            let numbers = batch * keys * key_heads * width;
            let half = numbers.next_multiple_of(64);
            let both = empty(&out, [2 * half]);
            let place = |heads: usize, tokens: usize, offset: usize| Layout {
                offset,
                batch: tokens * heads * width,
                head: width,
                token: heads * width,
            };
            let places = [place(heads, queries, 0), place(key_heads, keys, 0), place(key_heads, keys, half)];
            input.backward([out, logsumexp, grad], &dquery, &both, places);
            let part = |from: usize| {
                let size = size_of::<f32>() as u64;
                let (start, end) = ((from * size_of::<f32>()) as u64, (2 * half - from - numbers) as u64 * size);
                let handle = both.handle.clone().offset_start(start).offset_end(end);
                let shape = Shape::new([batch, keys, key_heads, width]);
                CubeTensor::new_contiguous(both.client.clone(), both.device.clone(), shape, handle, both.dtype)
            };
            [swapped(dquery), swapped(part(0)), swapped(part(half))]
        })
    }
}

/// Sizes and places of queries, keys and values side by side, `[B, T, (H + 2 K) E]`.
fn joined(rows: usize, heads: Heads) -> (Sizes, [Layout; 3]) {
    let Heads { sequences, queries, keys, width, window, dropped, .. } = heads;
    let tokens = rows / sequences;
    let token = (queries + 2 * keys) * width;
    let place = |before: usize| Layout { offset: before * width, batch: tokens * token, head: width, token };
    let (batch, heads, key_heads) = (sequences, queries, keys);
    let sizes = Sizes { batch, heads, key_heads, queries: tokens, keys: tokens, width, window, dropped };
    (sizes, [place(0), place(queries), place(queries + keys)])
}

fn rows_of(qkv: &CubeTensor) -> usize {
    let shape = qkv.shape();
    shape[0] * shape[1]
}

fn joined_input(qkv: CubeTensor, rotation: [CubeTensor; 2], seeds: Option<CubeTensor>, heads: Heads) -> Input {
    let qkv = dense(qkv);
    let (sizes, places) = joined(rows_of(&qkv), heads);
    let tables = if heads.rotated { rotation.map(dense).to_vec() } else { Vec::new() };
    let seeds = seeds.filter(|_| heads.dropped.is_some()).map(dense).into_iter().collect();
    Input { tensors: vec![qkv], places, tables, seeds, sizes }
}

impl JoinedAttentionOp for Cube {
    fn joined_attention(qkv: Lazy, cos: Lazy, sin: Lazy, seeds: Lazy, heads: Heads) -> Lazy {
        Self::joined_attention_forward(qkv, [cos, sin], seeds, heads).out
    }
}

impl JoinedAttentionBackward for Cube {
    fn joined_attention_forward(qkv: Lazy, rotation: [Lazy; 2], seeds: Lazy, heads: Heads) -> Joined<Self> {
        let [b, t, _] = qkv.shape().dims();
        let shape = Shape::new([b, t, heads.queries * heads.width]);
        let shapes = [shape.clone(), joined(b * t, heads).0.row_sums()];
        let [cos, sin] = rotation.clone();
        let [out, logsumexp] =
            queue("attention", [qkv.clone(), cos, sin, seeds], shapes, move |[qkv, cos, sin, seeds]| {
                let [mut out, logsumexp] = joined_input(qkv, [cos, sin], Some(seeds), heads).forward();
                out = reshape(out, shape.clone());
                [out, logsumexp]
            });
        Joined { qkv, rotation, out, logsumexp }
    }

    fn joined_attention_backward(saved: Joined<Self>, heads: Heads, grad: Lazy) -> Lazy {
        let Joined { qkv, rotation: [cos, sin], out, logsumexp } = saved;
        let shape = qkv.shape();
        let inputs = [qkv, cos, sin, out, logsumexp, grad];
        let [dqkv] = queue("attention_backward", inputs, [shape], move |[qkv, cos, sin, out, logsumexp, grad]| {
            let dqkv = empty(&qkv, qkv.shape());
            let (_, places) = joined(rows_of(&qkv), heads);
            let input = joined_input(qkv, [cos, sin], None, heads); // the seeds are behind the sums
            input.backward([dense(out), logsumexp, dense(grad)], &dqkv, &dqkv, places);
            [dqkv]
        });
        dqkv
    }
}

/// Whether the device's shared memory holds what attention of heads this wide needs.
pub fn fits(device: &burn_cubecl::CubeDevice, width: usize) -> bool {
    let limit = shared_numbers(&device.client());
    let smallest = Plan { width, tile: SIDE, rotated: false, joined: false, dropped: false };
    forward_numbers(smallest).max(backward_numbers(smallest)) <= limit
}

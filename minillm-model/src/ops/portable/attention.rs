//! Attention a block of queries at a time. The scores of a block are computed twice, forward and backward, and dropped
//! both times; between the two only the logarithms of the rows' sums are kept. `cpu/attention.rs` has the formulas.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{FloatDType, Shape, TensorData};

use super::{add_to, narrow, product};

/// Queries in a block: large matrix products for a GPU, and B H 256 S scores at a time.
const BLOCK: usize = 256;

/// How far back the queries of a pass may look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Positions, a query's own included; `None` for all.
    pub window: Option<usize>,
    /// Where rows hold several documents: the place in its row where each query's document begins, `[B, T]` row by row. Queries then are all
    /// positions of the row, not the last of more.
    pub starts: Option<Arc<[u32]>>,
}

impl Reach {
    /// The first position that a query at `position` of row `row` of T queries may look at.
    pub(in crate::ops) fn first(&self, row: usize, position: usize, t: usize) -> usize {
        let in_window = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        self.starts.as_ref().map_or(in_window, |starts| in_window.max(starts[row * t + position] as usize))
    }
}

/// Sizes and reach of one attention.
#[derive(Clone, Copy, Debug)]
struct Extent<'a> {
    b: usize,
    h: usize,
    k: usize,
    t: usize,
    s: usize,
    e: usize,
    reach: &'a Reach,
}

impl<'a> Extent<'a> {
    fn new<B: Backend>(query: &FloatTensor<B>, key: &FloatTensor<B>, reach: &'a Reach) -> Self {
        let [b, h, t, e] = query.shape().dims();
        let [_, k, s, _] = key.shape().dims();
        Self { b, h, k, t, s, e, reach }
    }

    /// Blocks of queries with the keys that any of them may look at.
    fn blocks(self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + 'a {
        let position = self.s - self.t;
        (0..self.t).step_by(BLOCK).map(move |start| {
            let end = self.t.min(start + BLOCK);
            let first = (0..self.b).map(|b| self.reach.first(b, position + start, self.t)).min().unwrap_or(0);
            (start..end, first..position + end)
        })
    }

    /// The query heads of a group stacked as rows over their keys: `[B, H, n, E]` -> `[B, K, G n, E]`.
    fn stacked<B: Backend>(self, heads: FloatTensor<B>) -> FloatTensor<B> {
        let [_, _, n, width] = heads.shape().dims();
        B::float_reshape(heads, Shape::new([self.b, self.k, self.h / self.k * n, width]))
    }

    /// And back.
    fn unstacked<B: Backend>(self, stacked: FloatTensor<B>) -> FloatTensor<B> {
        let [_, _, rows, width] = stacked.shape().dims();
        B::float_reshape(stacked, Shape::new([self.b, self.h, rows * self.k / self.h, width]))
    }

    /// `q k^T / sqrt(E)` of a block, minus infinity where a query may not look: `[B, H, n, keys]`.
    fn scores<B: Backend>(
        self,
        query: FloatTensor<B>,
        key: FloatTensor<B>,
        (queries, keys): &(Range<usize>, Range<usize>),
    ) -> FloatTensor<B> {
        let like = key.dtype().into();
        let products = product::<B>(self.stacked::<B>(query), B::float_swap_dims(key, 2, 3), like);
        let scores = B::float_mul_scalar(self.unstacked::<B>(products), self.factor().into());
        let hidden = self.hidden::<B>(&scores.device(), queries, keys);
        let hidden = B::bool_expand(hidden, scores.shape());
        B::float_mask_fill(scores, hidden, f32::NEG_INFINITY.into())
    }

    fn factor(self) -> f32 {
        1.0 / (self.e as f32).sqrt()
    }

    /// True where a query may not look: `[1 or B, 1, n, keys]`.
    fn hidden<B: Backend>(self, device: &B::Device, queries: &Range<usize>, keys: &Range<usize>) -> BoolTensor<B> {
        let settings = get_or_init_device_settings::<B>(device);
        let line =
            |range: Range<usize>| B::int_arange(range.start as i64..range.end as i64, device, settings.int_dtype);
        let position = self.s - self.t;
        let shape = Shape::new([1, 1, queries.len(), keys.len()]);
        let rows = line(position + queries.start..position + queries.end);
        let rows = B::int_expand(B::int_reshape(rows, Shape::new([1, 1, queries.len(), 1])), shape.clone());
        let columns = B::int_reshape(line(keys.clone()), Shape::new([1, 1, 1, keys.len()]));
        let back = B::int_sub(rows, B::int_expand(columns, shape));
        let later = B::int_lower_elem(back.clone(), 0.into(), settings.bool_dtype);
        let hidden = match self.reach.window {
            Some(window) => {
                let too_far = B::int_greater_equal_elem(back, (window as i64).into(), settings.bool_dtype);
                B::bool_or(later, too_far)
            }
            None => later,
        };
        let Some(starts) = &self.reach.starts else { return hidden };
        let shape = Shape::new([self.b, 1, queries.len(), keys.len()]);
        let starts = starts.chunks(self.t).flat_map(|row| &row[queries.clone()]).map(|&start| start as i32);
        let starts = TensorData::new(starts.collect::<Vec<_>>(), [self.b, 1, queries.len(), 1]);
        let starts = B::int_cast(B::int_from_data(starts, device), settings.int_dtype);
        let columns =
            B::int_expand(B::int_reshape(line(keys.clone()), Shape::new([1, 1, 1, keys.len()])), shape.clone());
        let earlier = B::int_lower(columns, B::int_expand(starts, shape.clone()), settings.bool_dtype);
        B::bool_or(B::bool_expand(hidden, shape), earlier)
    }
}

/// # Shapes
/// - query: `[B, H, T, E]`, key and value: `[B, K, S, E]`
pub fn forward<B: Backend>(qkv: [FloatTensor<B>; 3], reach: Reach) -> SavedForBackward<B> {
    let [query, key, value] = &qkv;
    let extent = Extent::new::<B>(query, key, &reach);
    let (mut outs, mut logsumexp) = (Vec::new(), Vec::new());
    for block in extent.blocks() {
        let (queries, keys) = &block;
        let scores = extent.scores::<B>(narrow::<B>(query, 2, queries), narrow::<B>(key, 2, keys), &block);
        let largest = B::float_max_dim(scores.clone(), 3); // [B, H, n, 1]
        let weights = B::float_exp(B::float_sub(scores, largest.clone()));
        let sums = B::float_sum_dim(weights.clone(), 3); // [B, H, n, 1]
        let mixed = product::<B>(extent.stacked::<B>(weights), narrow::<B>(value, 2, keys), value.dtype().into());
        outs.push(B::float_div(extent.unstacked::<B>(mixed), sums.clone()));
        logsumexp.push(B::float_add(largest, B::float_log(sums)));
    }
    let (out, logsumexp) = (joined::<B>(outs), joined::<B>(logsumexp));
    SavedForBackward { qkv, out, logsumexp, reach }
}

/// Blocks of queries side by side.
fn joined<B: Backend>(mut blocks: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    if blocks.len() == 1 { blocks.remove(0) } else { B::float_cat(blocks, 2) }
}

/// What the forward pass was given and what it gave: all that its backward pass needs.
#[derive(Clone, Debug)]
pub struct SavedForBackward<B: Backend> {
    /// Query, `[B, H, T, E]`, key and value, `[B, K, S, E]`.
    pub qkv: [FloatTensor<B>; 3],
    /// The output, `[B, H, T, E]`.
    pub out: FloatTensor<B>,
    /// The logarithm of each row's sum of exponentials, `[B, H, T, 1]`.
    pub logsumexp: FloatTensor<B>,
    /// How far back queries may look.
    pub reach: Reach,
}

/// Gradients of query, key and value, from that of the output.
pub fn backward<B: Backend>(saved: SavedForBackward<B>, grad: &FloatTensor<B>) -> [FloatTensor<B>; 3] {
    let SavedForBackward { qkv: [query, key, value], out, logsumexp, reach } = saved;
    let extent = Extent::new::<B>(&query, &key, &reach);
    let along = B::float_sum_dim(B::float_mul(out, grad.clone()), 3); // [B, H, T, 1]
    let like = key.dtype().into();
    let zeros = || B::float_zeros(key.shape(), &key.device(), FloatDType::F32);
    let (mut dquery, mut dkey, mut dvalue) = (Vec::new(), zeros(), zeros());
    for block in extent.blocks() {
        let (queries, keys) = &block;
        let [q, grad, logsumexp, along] =
            [&query, grad, &logsumexp, &along].map(|tensor| narrow::<B>(tensor, 2, queries));
        let [k, v] = [&key, &value].map(|tensor| narrow::<B>(tensor, 2, keys));
        let weights = B::float_exp(B::float_sub(extent.scores::<B>(q.clone(), k.clone(), &block), logsumexp));
        let grad = extent.stacked::<B>(grad); // [B, K, G n, E]
        let transposed = |tensor| B::float_swap_dims(tensor, 2, 3);
        let dweights = extent.unstacked::<B>(product::<B>(grad.clone(), transposed(v), like));
        let dscores = B::float_mul(weights.clone(), B::float_sub(dweights, along));
        let dscores = extent.stacked::<B>(B::float_mul_scalar(dscores, extent.factor().into())); // [B, K, G n, keys]
        let part = product::<B>(transposed(extent.stacked::<B>(weights)), grad, like); // [B, K, keys, E]
        dvalue = add_to::<B>(dvalue, 2, keys, part);
        let part = product::<B>(transposed(dscores.clone()), extent.stacked::<B>(q), like); // [B, K, keys, E]
        dkey = add_to::<B>(dkey, 2, keys, part);
        dquery.push(extent.unstacked::<B>(product::<B>(dscores, k, like)));
    }
    [joined::<B>(dquery), dkey, dvalue]
}

//! [`grouped_attention`](crate::layers::attention::grouped_attention) without its T S scores in memory (after Dao et al.
//! 2022, arXiv:2205.14135).
//!
//! A block of queries looks at all its keys at once, so the scores of a block are whole rows and their softmax needs one
//! pass. They never leave the cache: the forward pass keeps one number a row, the logarithm of the softmax's
//! denominator, from which the backward pass computes the weights again. Keys after a block's last query are not touched.
//!
//! ```text
//! P = exp(q k^T / sqrt(E) - l)     l = log of the row sums      out = P v
//! dv = P^T do     dP = do v^T     dS = P (dP - rowsum(do out)) / sqrt(E)     dq = dS k     dk = dS^T q
//! ```

use std::ops::Range;

use super::math::{dot, exp, exponentials, largest, vectorised};
use super::parallel;
use super::product::{Matrix, Store, product};
use super::view::{Heads, by_group};
use crate::ops::attention::Reach;

/// Queries in a block: enough rows for an efficient matrix product, few enough that a block's scores stay in the cache.
const BLOCK: usize = 64;

/// Sizes and reach of one attention.
#[derive(Clone, Copy, Debug)]
struct Extent<'a> {
    t: usize,
    s: usize,
    /// Query heads per key/value head.
    g: usize,
    reach: &'a Reach,
}

impl<'a> Extent<'a> {
    fn new(query: &Heads, key: &Heads, reach: &'a Reach) -> Self {
        let ([_, h, t, _], [_, k, s, _]) = (query.shape, key.shape);
        Self { t, s, g: h / k, reach }
    }

    /// The keys that query t of row b, standing at position S - T + t, may look at.
    fn keys(&self, b: usize, t: usize) -> Range<usize> {
        let position = self.s - self.t + t;
        self.reach.first(b, position, self.t)..position + 1
    }

    /// Blocks of row b's queries with the keys that any of them may look at.
    fn blocks(self, b: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + 'a {
        (0..self.t).step_by(BLOCK).map(move |start| {
            let end = self.t.min(start + BLOCK);
            (start..end, self.keys(b, start).start..self.keys(b, end - 1).end)
        })
    }
}

/// Rows of one head, as a matrix.
fn rows<'a>(heads: &Heads<'a>, b: usize, head: usize, range: &Range<usize>) -> Matrix<'a> {
    let (e, stride) = (heads.shape[3], heads.strides[2]);
    Matrix::new(&heads.head(b, head)[range.start * stride..], range.len(), e, stride)
}

/// # Shapes
/// - `query`: `[B, H, T, E]`, `key` and `value`: `[B, K, S, E]` -> the output as `[B, T, H, E]`, and the logarithms of
///   the rows' sums of exponentials, `[B, H, T, 1]`
pub fn forward(query: Heads, key: Heads, value: Heads, reach: &Reach) -> (Vec<f32>, Vec<f32>) {
    /// Products of a number of a query and one of a key that are worth another thread.
    const WORTH_SHARING: usize = 16 * 1024;

    let [b, h, t, e] = query.shape;
    let extent = Extent::new(&query, &key, reach);
    let (mut out, mut logsumexp) = (vec![0.0; b * t * h * e], vec![0.0; b * h * t]);
    // A query head is a share of the work, whether it has keys of its own or not.
    let shares = if h * t * extent.s * e >= WORTH_SHARING { h } else { 1 };
    let heads_per_share = h / shares;
    let tasks = by_group(&mut out, [b, h, t, e], shares).into_iter().zip(logsumexp.chunks_mut(heads_per_share * t));
    parallel::for_each(tasks.enumerate().collect(), |(task, (mut out, logsumexp))| {
        let (b, first) = (task / shares, task % shares * heads_per_share);
        for (head, (out, logsumexp)) in (first..).zip(out.chunks_mut(t).zip(logsumexp.chunks_mut(t))) {
            let kv = head / extent.g;
            if t == 1 {
                logsumexp[0] = one_query(query.vector(b, head, 0), &key, &value, (b, kv), extent.keys(b, 0), out[0]);
            } else {
                one_head(&query, &key, &value, (b, head, kv), extent, out, logsumexp);
            }
        }
    });
    (out, logsumexp)
}

/// A single query: two passes over the keys and values, no matrices.
fn one_query(
    query: &[f32],
    key: &Heads,
    value: &Heads,
    (b, kv): (usize, usize),
    keys: Range<usize>,
    out: &mut [f32],
) -> f32 {
    let factor = 1.0 / (query.len() as f32).sqrt();
    let mut weights = vec![0.0; keys.len()];
    vectorised!({
        for (weight, s) in weights.iter_mut().zip(keys.clone()) {
            *weight = dot(query, key.vector(b, kv, s)) * factor;
        }
        let shift = largest(&weights);
        let sum = exponentials(&mut weights, shift);
        for (weight, s) in weights.iter().zip(keys) {
            let weight = weight / sum;
            for (out, value) in out.iter_mut().zip(value.vector(b, kv, s)) {
                *out += weight * value;
            }
        }
        shift + sum.ln()
    })
}

fn one_head(
    query: &Heads,
    key: &Heads,
    value: &Heads,
    (b, head, kv): (usize, usize, usize),
    extent: Extent,
    out: &mut [&mut [f32]],
    logsumexp: &mut [f32],
) {
    let e = query.shape[3];
    let factor = 1.0 / (e as f32).sqrt();
    let (mut scores, mut mixed) = (Vec::new(), vec![0.0; BLOCK * e]);
    for (queries, keys) in extent.blocks(b) {
        let width = keys.len();
        scores.resize(queries.len() * width, 0.0);
        let q = rows(query, b, head, &queries);
        product(&mut scores, width, Store::Replace, factor, q, rows(key, b, kv, &keys).transposed());
        vectorised!({
            for (t, scores) in queries.clone().zip(scores.chunks_exact_mut(width)) {
                let seen = relative(extent.keys(b, t), keys.start);
                scores[..seen.start].fill(0.0);
                scores[seen.end..].fill(0.0);
                let scores = &mut scores[seen];
                let shift = largest(scores);
                let sum = exponentials(scores, shift);
                logsumexp[t] = shift + sum.ln();
            }
        });
        let weights = Matrix::new(&scores, queries.len(), width, width);
        product(&mut mixed, e, Store::Replace, 1.0, weights, rows(value, b, kv, &keys));
        vectorised!({
            for ((t, scores), mixed) in queries.clone().zip(scores.chunks_exact(width)).zip(mixed.chunks_exact(e)) {
                // The weights were left unscaled; their sum is cheaper to divide out of E numbers than of S.
                let sum: f32 = super::math::sum_of(scores, scores, |weight, _| weight);
                for (out, mixed) in out[t].iter_mut().zip(mixed) {
                    *out = mixed / sum;
                }
            }
        });
    }
}

/// What the forward pass was given and what it gave, and the gradient of its output.
#[derive(Clone, Copy, Debug)]
pub struct SavedForBackward<'a> {
    /// `[B, H, T, E]`
    pub query: Heads<'a>,
    /// `[B, K, S, E]`
    pub key: Heads<'a>,
    /// `[B, K, S, E]`
    pub value: Heads<'a>,
    /// `[B, H, T, E]`
    pub out: Heads<'a>,
    /// `[B, H, T, 1]`
    pub logsumexp: &'a [f32],
    /// `[B, H, T, E]`
    pub grad: Heads<'a>,
}

/// # Shapes
/// - -> gradients of `query` as `[B, T, H, E]`, of `key` and `value` as `[B, S, K, E]`
pub fn backward(saved: SavedForBackward, reach: &Reach) -> [Vec<f32>; 3] {
    let [b, h, t, e] = saved.query.shape;
    let [_, k, s, _] = saved.key.shape;
    let extent = Extent::new(&saved.query, &saved.key, reach);
    let mut dquery = vec![0.0; b * t * h * e];
    let (mut dkey, mut dvalue) = (vec![0.0; b * s * k * e], vec![0.0; b * s * k * e]);
    let dqueries = by_group(&mut dquery, [b, h, t, e], k);
    let dkeys = by_group(&mut dkey, [b, k, s, e], k);
    let dvalues = by_group(&mut dvalue, [b, k, s, e], k);
    let tasks = dqueries.into_iter().zip(dkeys.into_iter().zip(dvalues)).enumerate().collect();
    parallel::for_each(tasks, |(task, (mut dquery, (dkey, dvalue)))| {
        let at = (task / k, task % k);
        let mut sums = KeyValueGradients { key: vec![0.0; s * e], value: vec![0.0; s * e] };
        for (g, dquery) in dquery.chunks_mut(t).enumerate() {
            one_head_backward(&saved, at, g, extent, dquery, &mut sums);
        }
        let copy = |from: &[f32], to: Vec<&mut [f32]>| {
            to.into_iter().zip(from.chunks_exact(e)).for_each(|(to, from)| to.copy_from_slice(from));
        };
        copy(&sums.key, dkey);
        copy(&sums.value, dvalue);
    });
    [dquery, dkey, dvalue]
}

/// Gradients of one key/value head, `[S, E]`, to which each of its query heads adds.
struct KeyValueGradients {
    key: Vec<f32>,
    value: Vec<f32>,
}

fn one_head_backward(
    saved: &SavedForBackward,
    (b, kv): (usize, usize),
    g: usize,
    extent: Extent,
    dquery: &mut [&mut [f32]],
    sums: &mut KeyValueGradients,
) {
    let (e, k) = (saved.query.shape[3], saved.key.shape[1]);
    let head = kv * extent.g + g;
    let logsumexp = &saved.logsumexp[((b * k + kv) * extent.g + g) * extent.t..][..extent.t];
    let factor = 1.0 / (e as f32).sqrt();
    let (mut weights, mut dscores, mut dblock) = (Vec::new(), Vec::new(), vec![0.0; BLOCK * e]);
    for (queries, keys) in extent.blocks(b) {
        let (count, width) = (queries.len(), keys.len());
        weights.resize(count * width, 0.0);
        dscores.resize(count * width, 0.0);
        let (q, grad) = (rows(&saved.query, b, head, &queries), rows(&saved.grad, b, head, &queries));
        let (k, v) = (rows(&saved.key, b, kv, &keys), rows(&saved.value, b, kv, &keys));
        product(&mut weights, width, Store::Replace, factor, q, k.transposed());
        product(&mut dscores, width, Store::Replace, 1.0, grad, v.transposed());
        vectorised!({
            let lines = weights.chunks_exact_mut(width).zip(dscores.chunks_exact_mut(width));
            for (t, (weights, dscores)) in queries.clone().zip(lines) {
                let seen = relative(extent.keys(b, t), keys.start);
                for line in [&mut *weights, &mut *dscores] {
                    line[..seen.start].fill(0.0);
                    line[seen.end..].fill(0.0);
                }
                let along = dot(saved.out.vector(b, head, t), saved.grad.vector(b, head, t));
                for (weight, dscore) in weights[seen.clone()].iter_mut().zip(&mut dscores[seen]) {
                    *weight = exp(*weight - logsumexp[t]);
                    *dscore = *weight * (*dscore - along) * factor;
                }
            }
        });
        let (weights, dscores) =
            (Matrix::new(&weights, count, width, width), Matrix::new(&dscores, count, width, width));
        product(&mut sums.value[keys.start * e..], e, Store::Add, 1.0, weights.transposed(), grad);
        product(&mut sums.key[keys.start * e..], e, Store::Add, 1.0, dscores.transposed(), q);
        product(&mut dblock, e, Store::Replace, 1.0, dscores, k);
        for (t, from) in queries.zip(dblock.chunks_exact(e)) {
            dquery[t].copy_from_slice(from);
        }
    }
}

fn relative(range: Range<usize>, start: usize) -> Range<usize> {
    range.start - start..range.end - start
}

//! The fast forms of whole sub-layers for GPUs: all sequences as one, and one product where the layers' own lines have several, of queries,
//! keys and values, and of the two first matrices of the MLP. What a GPU is asked for costs time whatever its size, and small
//! products leave most of it idle.

use burn::module::Param;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::attention::Attention;
use super::context::ForwardContext;
use super::dropout::{Dropout, PLACES_OF_A_BLOCK, dropout, seed_31, threshold};
use super::product::linear;
use super::swiglu::Swiglu;
use crate::kv_cache::Cache;
use crate::ops;
use crate::ops::dropout::Mask;
use crate::ops::embedding::look_up;
use crate::ops::fits_joined_attention;
use crate::ops::join::{join_three, join_two};
use crate::ops::joined_attention::{Heads, joined_attention};
use crate::ops::swiglu::joined_swiglu;

/// The rows of `embedding` that `ids` name, in the form that `context` asks for.
///
/// # Shapes
/// - `ids`: `[B, T]` -> `[B, T, D]`
pub fn embedding_forward(embedding: &Embedding, ids: Tensor<2, Int>, context: &ForwardContext) -> Tensor<3> {
    if context.compute.embedding { look_up(embedding.weight.val(), ids) } else { embedding.forward(ids) }
}

/// Notes that the layers of a pass are given its B sequences one behind the other, `[1, B T, D]`, so that every product is one, and what follows
/// it runs with it. Not with a cache, or where an attention has not the form for it.
pub fn put_in_one_piece<'a>(
    context: &mut ForwardContext,
    b: usize,
    has_cache: bool,
    mut attentions: impl Iterator<Item = &'a Attention>,
) {
    let fits = context.compute.joined && !has_cache && context.documents.is_none() && can_drop(&context.dropout);
    context.sequences = (fits && attentions.all(can_join)).then_some(b);
}

/// The sequences in the shape that layers are given.
///
/// # Shapes
/// - `x`: `[B, T, D]` -> the same, or `[1, B T, D]`
pub fn as_layers_take_it(x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
    let [b, t, d] = x.dims();
    if context.sequences.is_some() { x.reshape([1, b * t, d]) } else { x }
}

impl Dropout {
    /// With the seeds of all places of a model of so many blocks on `device`, for the fast form. One transfer for the whole pass: each makes
    /// a GPU end what it was given so far.
    #[must_use]
    pub fn on_device(self, blocks: usize, device: &Device) -> Self {
        if self.is_off() {
            return self;
        }
        let in_block = |block| (0..PLACES_OF_A_BLOCK).map(move |place| (block, place));
        let in_blocks = (0..blocks).flat_map(in_block).map(|(block, place)| self.in_block(block, place));
        let places = [self.clone(), self.at_embedding()].into_iter().chain(in_blocks);
        let seeds = places.flat_map(|place| place.seeds).map(seed_31);
        let halves: Vec<f32> = seeds.flat_map(|seed| [(seed >> 16) as f32, (seed & 0xffff) as f32]).collect();
        let rows = halves.len() / 2;
        let table = Tensor::from_data(TensorData::new(halves, [rows, 2]), device);
        Self { on_device: Some((table, 0)), ..self }
    }

    /// The seeds on the device and what is dropped by them, if they are there.
    fn mask(&self) -> Option<(Tensor<2>, Mask)> {
        let (table, place) = self.on_device.as_ref()?;
        let sequences = self.seeds.len();
        let (threshold, factor) = (threshold(self.rate) as u32, (1.0 / (1.0 - self.rate)) as f32);
        Some((table.clone(), Mask { first_row: place * sequences, sequences, threshold, factor }))
    }
}

/// [`dropout`], by the device where it has the seeds.
///
/// # Shapes
/// - `x`: `[B, T, D]`, or `[1, B T, D]` -> the same
pub fn dropout_forward(x: Tensor<3>, drop: &Dropout) -> Tensor<3> {
    match drop.mask() {
        Some((seeds, mask)) => ops::dropout::dropout(x, seeds, mask),
        None => dropout(x, drop),
    }
}

/// Whether what is dropped, if anything, is dropped by the device.
fn can_drop(drop: &Dropout) -> bool {
    drop.is_off() || drop.mask().is_some()
}

/// Whether [`attention_forward`] has this form for it: not if queries and keys pass a norm before they are rotated, or heads are too wide for
/// the device.
fn can_join(attention: &Attention) -> bool {
    let Attention { q_norm, q_proj, k_proj, v_proj, num_attention_heads, .. } = attention;
    q_norm.is_none()
        && [q_proj, k_proj, v_proj].iter().all(|linear| linear.is_plain())
        && fits_joined_attention(&q_proj.weight.lazy_device(), q_proj.weight.lazy_shape()[1] / num_attention_heads)
}

/// [`Attention`], with one product for queries, keys and values where `context` asks for it and there is no cache.
///
/// # Shapes
/// - `x`: `[B, T, D]` -> the same
pub fn attention_forward(
    attention: &Attention,
    x: Tensor<3>,
    cache: Cache,
    drop: &Dropout,
    context: &ForwardContext,
) -> Tensor<3> {
    if !(context.compute.joined
        && cache.is_none()
        && context.documents.is_none()
        && can_drop(drop)
        && can_join(attention))
    {
        return attention.forward(x, cache, drop, context);
    }
    let Attention { q_proj, k_proj, v_proj, o_proj, num_attention_heads, num_key_value_heads, window, .. } = attention;
    let [_, width] = q_proj.weight.dims();
    let [b, _, _] = x.dims();
    let (seeds, dropped) = drop.mask().unzip();
    let heads = Heads {
        sequences: context.sequences.unwrap_or(b),
        queries: *num_attention_heads,
        keys: *num_key_value_heads,
        width: width / num_attention_heads,
        window: *window,
        rotated: context.rotation.is_some(),
        dropped,
    };
    let weight = join_three([q_proj, k_proj, v_proj].map(|linear| linear.weight.val())); // [D, (H + 2 K) E]
    let bias = match (&q_proj.bias, &k_proj.bias, &v_proj.bias) {
        (Some(q), Some(k), Some(v)) => Some(join_three([q, k, v].map(row)).flatten(0, 1)), // [(H + 2 K) E]
        _ => None,
    };
    let qkv = linear(x, weight, bias, context); // [B, T, (H + 2 K) E]
    let rotation = context.rotation.as_ref().map(|rotation| [rotation.cos.clone(), rotation.sin.clone()]);
    o_proj.forward(joined_attention(qkv, rotation, seeds, heads), context) // [B, T, H E] -> [B, T, D]
}

/// [`Swiglu`] with one product for gate and up.
///
/// # Shapes
/// - `x`: `[B, T, D]` -> the same
pub fn swiglu(mlp: &Swiglu, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
    let Swiglu { gate_proj, up_proj, down_proj } = mlp;
    let weight = join_two([gate_proj, up_proj].map(|linear| linear.weight.val())); // [D, 2 F]
    let bias = match (&gate_proj.bias, &up_proj.bias) {
        (Some(gate), Some(up)) => Some(join_two([gate, up].map(row)).flatten(0, 1)), // [2 F]
        _ => None,
    };
    let both = linear(x, weight, bias, context); // [B, T, 2 F]
    down_proj.forward(joined_swiglu(both), context) // [B, T, F] -> [B, T, D]
}

/// A bias as a matrix of one row.
fn row(bias: &Param<Tensor<1>>) -> Tensor<2> {
    bias.val().unsqueeze()
}

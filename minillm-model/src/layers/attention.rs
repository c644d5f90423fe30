//! Causal self-attention, with any number of key/value heads.
//!
//! ```text
//! attention(q, k, v) = softmax(q k^T / sqrt(E) + causal mask) v
//! ```
//!
//! Every query head looks through the keys of earlier tokens and brings back a mix of their values (Vaswani et al.
//! 2017, arXiv:1706.03762). Grouped-query attention (GQA; Ainslie et al. 2023, arXiv:2305.13245) lets G = H / K query
//! heads share one key/value head. What it saves is the KV cache, 2 L K E numbers a token, and the bandwidth of reading it:
//!
//! ```text
//! MHA, K = H       GQA, 1 < K < H      MQA, K = 1 (Shazeer 2019, arXiv:1911.02150)
//! q0 q1 q2 q3      q0 q1 q2 q3         q0 q1 q2 q3
//!  |  |  |  |       \ /   \ /           \_ \ / _/
//! k0 k1 k2 k3       k0    k1               k0
//! ```

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor};

use super::context::ForwardContext;
use super::dropout::{Dropout, dropout};
use super::linear::Linear;
use super::rms_norm::RmsNorm;
use super::{attend, rms_norm_forward, rotate};
use crate::config::ModelConfig;
use crate::kv_cache::Cache;

/// Multi-head, grouped-query or multi-query attention: one field decides.
#[derive(Module, Debug)]
pub struct Attention {
    /// D -> H E.
    pub q_proj: Linear,
    /// D -> K E.
    pub k_proj: Linear,
    /// D -> K E.
    pub v_proj: Linear,
    /// H E -> D.
    pub o_proj: Linear,
    /// Norm of each head's query, so that no score can grow without bound (Qwen3; Henry et al. 2020, arXiv:2010.04245).
    pub q_norm: Option<RmsNorm>,
    /// Norm of each head's key.
    pub k_norm: Option<RmsNorm>,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    /// How many tokens back a query may look, its own included; `None` for all.
    #[module(skip)]
    pub(crate) window: Option<usize>,
}

impl Attention {
    /// The attention of block `index`.
    pub fn new(config: &ModelConfig, index: usize, device: &Device) -> Self {
        let (d, h, k, e) =
            (config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let (qkv_bias, output_bias) = config.attention_bias.of_projections();
        let head_norm = || config.qk_norm.then(|| RmsNorm::new(e, config.norm_eps, device));
        Self {
            q_proj: Linear::new(d, h * e, qkv_bias, device),
            k_proj: Linear::new(d, k * e, qkv_bias, device),
            v_proj: Linear::new(d, k * e, qkv_bias, device),
            o_proj: Linear::new(h * e, d, output_bias, device),
            q_norm: head_norm(),
            k_norm: head_norm(),
            num_attention_heads: h,
            num_key_value_heads: k,
            window: config.window(index),
        }
    }

    /// What is compared: the query and the key of every token.
    ///
    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, H, T, E]` and `[B, K, T, E]`
    pub fn query_and_key(&self, x: Tensor<3>, context: &ForwardContext) -> (Tensor<4>, Tensor<4>) {
        // 1. Project, then bring the heads forward.
        let query = heads(self.q_proj.forward(x.clone(), context), self.num_attention_heads); // [B, H, T, E]
        let key = heads(self.k_proj.forward(x, context), self.num_key_value_heads); // [B, K, T, E]

        // 2. Bring queries and keys to one length, if the model does that.
        let (query, key) = match (&self.q_norm, &self.k_norm) {
            (Some(q), Some(k)) => (rms_norm_forward(q, query, context), rms_norm_forward(k, key, context)),
            _ => (query, key),
        };

        // 3. Rotate by absolute position; in q k^T only the difference of positions survives.
        match &context.rotation {
            Some(rotation) => (rotate(rotation, query, context), rotate(rotation, key, context)),
            None => (query, key),
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, T, D]`; the cache, if given, grows from S - T to S positions
    pub fn forward(&self, x: Tensor<3>, cache: Cache, drop: &Dropout, context: &ForwardContext) -> Tensor<3> {
        // 1. to 3. above.
        let (query, key) = self.query_and_key(x.clone(), context); // [B, H, T, E], [B, K, T, E]
        let value = heads(self.v_proj.forward(x, context), self.num_key_value_heads); // [B, K, T, E]

        // 4. Remember, if there is a cache: then keys and values of earlier tokens are in front.
        let (key, value) = match cache {
            Some(cache) => cache.append(key, value), // [B, K, S, E]
            None => (key, value),
        };

        // 5. Attend: `grouped_attention` below, or its fast form.
        let out = attend(query, key, value, self.window, drop, context); // [B, H, T, E]

        // 6. Put the heads side by side again, and mix them.
        self.o_proj.forward(out.swap_dims(1, 2).flatten(2, 3), context) // [B, T, H E] -> [B, T, D]
    }
}

/// `[B, T, n E]` -> `[B, n, T, E]`
fn heads(x: Tensor<3>, n: usize) -> Tensor<4> {
    let [b, t, width] = x.dims();
    x.reshape([b, t, n, width / n]).swap_dims(1, 2)
}

/// Attention proper: every query's mix of the values. Keys and values are never repeated in memory.
///
/// # Shapes
/// - `query`: `[B, H, T, E]`, `key` and `value`: `[B, K, S, E]`, `mask`: `[1 or B, 1, T, S]` -> `[B, H, T, E]`
pub fn grouped_attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
    drop: &Dropout,
) -> Tensor<4> {
    let [b, h, t, e] = query.dims();
    let [_, k, s, _] = key.dims();
    let weights = dropout(attention_weights(query, key, mask), drop); // [B, H, T, S]
    weights.reshape([b, k, h / k * t, s]).matmul(value).reshape([b, h, t, e]) // [B, H, T, E]
}

/// Where every query looks; each row sums to 1. The G query heads of a group are stacked as rows of one matrix over their
/// shared keys.
///
/// # Shapes
/// - `query`: `[B, H, T, E]`, `key`: `[B, K, S, E]`, `mask`: `[1 or B, 1, T, S]` -> `[B, H, T, S]`
pub fn attention_weights(query: Tensor<4>, key: Tensor<4>, mask: Option<&Tensor<4, Bool>>) -> Tensor<4> {
    let [b, h, t, e] = query.dims();
    let [_, k, s, _] = key.dims();
    let query = (query / (e as f64).sqrt()).reshape([b, k, h / k * t, e]); // [B, K, G T, E]
    let mut scores = query.matmul(key.swap_dims(2, 3)).reshape([b, h, t, s]); // [B, H, T, S]
    if let Some(mask) = mask {
        scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
    }
    softmax(scores, 3)
}

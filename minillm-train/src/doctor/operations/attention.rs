//! Attention proper, with as many key/value heads as query heads, with fewer, and with a window.

use minillm_model::layers::attention::grouped_attention;
use minillm_model::layers::causal_mask::CausalMask;
use minillm_model::layers::dropout::Dropout;
use minillm_model::ops::attention::causal_attention;

use crate::doctor::check::{Computed, Setting};
use crate::doctor::inputs::{both_ways, leaf, to};

/// Of one attention, in the project's letters.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Sequences.
    pub b: usize,
    /// Query heads.
    pub h: usize,
    /// Key/value heads.
    pub k: usize,
    /// Tokens.
    pub t: usize,
    /// Width of a head.
    pub e: usize,
    /// How many tokens back a query may look.
    pub window: Option<usize>,
}

impl Sizes {
    /// Every query head has keys of its own.
    pub const MHA: Self = Self { b: 2, h: 2, k: 2, t: 7, e: 8, window: None };
    /// Two query heads share a key/value head.
    pub const GQA: Self = Self { b: 2, h: 4, k: 2, t: 7, e: 8, window: None };
    /// More tokens than a block of the CPU's fast form has (64), each looking 20 back.
    pub const WINDOW: Self = Self { b: 1, h: 2, k: 1, t: 70, e: 5, window: Some(20) };

    /// Forward and backward, heads brought forward as the layer does it.
    pub fn attention(self, Setting { device, kernels, .. }: &Setting) -> Computed {
        let Self { b, h, k, t, e, window } = self;
        let query = leaf([b, t, h, e], "query", device);
        let [key, value] = ["key", "value"].map(|name| leaf([b, t, k, e], name, device));
        let [q, keys, values] = [&query, &key, &value].map(|x| x.clone().swap_dims(1, 2)); // [B, heads, T, E]
        let out = if kernels.attention {
            causal_attention(q, keys, values, window)
        } else {
            let mask = CausalMask::new(t, t, window, device);
            grouped_attention(q, keys, values, mask.tensor(), &Dropout::off())
        };
        both_ways(out, &[to("query", &query), to("key", &key), to("value", &value)])
    }
}

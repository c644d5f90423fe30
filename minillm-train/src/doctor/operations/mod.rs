//! Every operation that has a fast form, and plain parts of a model that have none, forward and backward.
//!
//! Sizes are odd where that is where kernels go wrong: widths around those of vector registers, more rows than one
//! block, queries and keys in groups.

mod attention;
mod layers;
mod linear;
mod output;

use minillm_model::config::Mlp;
use minillm_model::ops::Kernels;

use super::check::{Check, Computed, Group, Setting};
use attention::Sizes;

/// The table. Names are those of the stored values.
pub fn checks() -> Vec<Check> {
    vec![
        check("RMSNorm", |kernels| kernels.norm, layers::rms_norm),
        check("LayerNorm", |kernels| kernels.norm, layers::layer_norm),
        check("RoPE", |kernels| kernels.rotary, layers::rotary),
        check("SwiGLU", |kernels| kernels.activation, layers::swiglu),
        check("GELU", |kernels| kernels.activation, |setting| layers::mlp(Mlp::Gelu, setting)),
        check("squared ReLU", |kernels| kernels.activation, |setting| layers::mlp(Mlp::Relu2, setting)),
        check("attention (MHA)", |kernels| kernels.attention, |setting| Sizes::MHA.attention(setting)),
        check("attention (GQA)", |kernels| kernels.attention, |setting| Sizes::GQA.attention(setting)),
        check("attention (window)", |kernels| kernels.attention, |setting| Sizes::WINDOW.attention(setting)),
        check("cross-entropy", |kernels| kernels.cross_entropy, |setting| output::cross_entropy(false, setting)),
        check("cross-entropy (tied)", |kernels| kernels.cross_entropy, |setting| output::cross_entropy(true, setting)),
        check("AdamW", |kernels| kernels.adam_w, output::adam_w),
        check("linear", |kernels| kernels.product, linear::linear),
        check("linear (few rows)", |kernels| kernels.product, linear::few_rows).for_generation(),
        check("linear (8 bits)", |kernels| kernels.linear, linear::in_8_bits).for_generation(),
        check("embedding", |_| false, layers::embedding),
        check("dropout", |_| false, layers::dropped),
    ]
}

fn check(name: &'static str, has_fast: fn(&Kernels) -> bool, compute: fn(&Setting) -> Computed) -> Check {
    Check::new(Group::Operations, name, has_fast, compute)
}

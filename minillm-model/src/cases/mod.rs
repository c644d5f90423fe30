//! Every operation that has two forms, as one table: what it is called, what it is given, and how to compute it.
//!
//! `minillm-train doctor` computes each row on a device and compares it with stored values, the tests compare the readable
//! form with the fast one at many sizes, and the benches time both. All of them call the layers' own choice
//! ([`layers`](crate::layers)), so a wrong choice is found, too. A new operation needs one row here.
//!
//! Sizes are odd where that is where kernels go wrong: widths around those of vector registers, more rows than one
//! block, queries and keys in groups.

mod attention;
pub mod inputs;
mod layers;
mod linear;
mod output;
mod prepared;

use std::fmt::Debug;

use burn::tensor::Device;

pub use self::prepared::{Computed, Leaf, Part, Prepared, to};
use crate::config::MlpKind;
use crate::ops::ComputeOptions;
use attention::Sizes;

/// What two forms of one operation may differ by, as a share of the largest value: f32 sums in another order are off by a
/// few 1e-7 each, and the longest here have about a thousand terms.
pub const TOLERANCE: f64 = 1e-5;

/// The device and the options with which a case computes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The device, with autodiff.
    pub device: Device,
    /// The same without, for the optimiser's rule and for generation.
    pub plain: Device,
    /// Which forms the layers choose.
    pub compute: ComputeOptions,
}

impl Place {
    /// On `device`, which has no autodiff.
    pub fn new(device: &Device, compute: ComputeOptions) -> Self {
        Self { device: device.clone().autodiff(), plain: device.clone(), compute }
    }
}

/// Makes inputs and parameters of one size.
pub type Prepare = Box<dyn Fn(&Place) -> Prepared>;

/// One operation: a row of the table.
pub struct Case {
    /// What it is called, also in doctor's file of stored values.
    pub name: &'static str,
    /// Whether these options have a fast form of it.
    pub has_fast: fn(&ComputeOptions) -> bool,
    /// Whether only generation uses it.
    pub for_generation: bool,
    /// The size whose values are stored.
    pub stored: Prepare,
    /// Other sizes, with what they are, for the tests.
    pub sizes: Vec<(String, Prepare)>,
    /// The size to time.
    pub bench: Option<Prepare>,
}

impl Case {
    fn new<S: Copy + Debug + 'static>(
        name: &'static str,
        has_fast: fn(&ComputeOptions) -> bool,
        prepare: fn(S, &Place) -> Prepared,
        stored: S,
        sizes: &[S],
    ) -> Self {
        let at = |size: S| -> Prepare { Box::new(move |place| prepare(size, place)) };
        let sizes = sizes.iter().map(|&size| (format!("{size:?}"), at(size))).collect();
        Self { name, has_fast, for_generation: false, stored: at(stored), sizes, bench: None }
    }

    fn timed<S: Copy + 'static>(self, prepare: fn(S, &Place) -> Prepared, size: S) -> Self {
        Self { bench: Some(Box::new(move |place| prepare(size, place))), ..self }
    }

    fn for_generation(self) -> Self {
        Self { for_generation: true, ..self }
    }
}

/// The table.
pub fn all() -> Vec<Case> {
    let norms = [[3, 1], [2, 15], [5, 16], [7, 33], [600, 64]];
    let norms_and_bias = norms.map(|[rows, d]| [(rows, d, true), (rows, d, false)]);
    let mlps = [(1, 1), (3, 17), (70, 300)];
    vec![
        Case::new("RMSNorm", |compute| compute.norm, layers::rms_norm, [5, 33], &norms)
            .timed(layers::rms_norm, [1024, 384]),
        Case::new(
            "LayerNorm",
            |compute| compute.norm,
            layers::layer_norm,
            (5, 33, true),
            norms_and_bias.as_flattened(),
        )
        .timed(layers::layer_norm, (1024, 384, true)),
        Case::new(
            "RoPE",
            |compute| compute.rotary,
            layers::rotary,
            (3, 5, 8, 2),
            &[(1, 1, 2, 0), (3, 5, 6, 2), (4, 130, 32, 0)],
        )
        .timed(layers::rotary, (12, 256, 64, 0)),
        Case::new("SwiGLU", |compute| compute.activation, layers::swiglu, (5, 17), &mlps)
            .timed(layers::swiglu, (1024, 1024)),
        Case::new(
            "GELU",
            |compute| compute.activation,
            |size, place| layers::mlp(MlpKind::Gelu, size, place),
            (5, 17),
            &mlps,
        ),
        Case::new(
            "squared ReLU",
            |compute| compute.activation,
            |size, place| layers::mlp(MlpKind::Relu2, size, place),
            (5, 17),
            &mlps,
        ),
        Case::new("attention (MHA)", |compute| compute.attention, attention::attention, Sizes::MHA, &attention::FULL)
            .timed(attention::attention, Sizes::BENCH),
        Case::new(
            "attention (GQA)",
            |compute| compute.attention,
            attention::attention,
            Sizes::GQA,
            &attention::GROUPED,
        ),
        Case::new(
            "attention (window)",
            |compute| compute.attention,
            attention::attention,
            Sizes::WINDOW,
            &attention::WINDOWED,
        ),
        Case::new(
            "attention (documents)",
            |compute| compute.attention,
            attention::in_documents,
            (Sizes::DOCUMENTS, 7),
            &attention::IN_DOCUMENTS,
        ),
        Case::new("cross-entropy", |compute| compute.cross_entropy, output::cross_entropy, (false, 5, 16, 37), &[])
            .timed(output::cross_entropy, (false, 512, 384, 8192)),
        Case::new(
            "cross-entropy (tied)",
            |compute| compute.cross_entropy,
            output::cross_entropy,
            (true, 5, 16, 37),
            &[],
        ),
        // The longer one is more than one piece of shared work on each backend.
        Case::new("AdamW", |compute| compute.adam_w, output::adam_w, 300, &[300_000]).timed(output::adam_w, 1 << 20),
        Case::new("linear", |compute| compute.matmul, linear::linear, (40, 96, 72), &linear::SIZES)
            .timed(linear::linear, (512, 384, 1024)),
        Case::new("linear (few rows)", |compute| compute.matmul, linear::few_rows, (3, 33, 65), &linear::SIZES)
            .timed(linear::few_rows, (1, 768, 2048))
            .for_generation(),
        Case::new("linear (8 bits)", |compute| compute.quantized, linear::in_8_bits, (3, 64, 37), &linear::IN_8_BITS)
            .timed(linear::in_8_bits, (1, 768, 2048))
            .for_generation(),
        Case::new(
            "attention layer",
            |compute| compute.joined,
            layers::attention_layer,
            (4, 2, 7, 8, None, true, 0.0),
            &[
                (1, 1, 1, 8, None, true, 0.0),
                (2, 2, 17, 10, None, false, 0.0),
                (3, 1, 40, 32, Some(9), true, 0.0),
                (2, 2, 64, 64, None, true, 0.0),
                (1, 1, 33, 128, None, false, 0.0),
                (4, 2, 40, 16, Some(19), true, 0.2),
                (2, 2, 70, 64, None, false, 0.4),
                (1, 1, 9, 600, None, true, 0.0), // wider than a cube's memory holds
            ],
        ),
        Case::new("embedding", |compute| compute.embedding, layers::embedding, (1, 8), &[(100, 70)]),
        Case::new("step of many parameters", |compute| compute.multi_tensor, output::many_parameters, false, &[true]),
        Case::new("Muon", |compute| compute.multi_tensor, output::muon, [3, 5], &[[16, 16], [40, 100]]),
        Case::new("dropout", |compute| compute.dropout, layers::dropped, (5, 8), &[(33, 70)]),
    ]
}

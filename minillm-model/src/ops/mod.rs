//! Fast forms of what the layers spell out.
//!
//! The layers are written as their formulas read, one tensor operation after the other; each operation goes through memory
//! once, and attention and the loss hold all their scores there. Here the same results come in one pass, with the
//! backward pass written by hand. [`layers`](crate::layers) asks [`ComputeOptions`] which of the two runs; a
//! test holds both together, in value and in gradient (`minillm-infer/tests/kernels.rs`).
//!
//! One file an operation: a trait with its forward function, which Burn dispatches to the tensor's backend, a trait with its
//! backward function, which [`autodiff`] calls on the backend inside, and a function on tensors. The arithmetic is in [`cpu`]
//! for Burn's Rust backends, in `libtorch` for LibTorch, in `cube` for GPUs, and in [`portable`] for what those have not.

// Burn is about to drop its ndarray and LibTorch backends; until then they are ours, too.
#![cfg_attr(any(feature = "ndarray", feature = "tch"), allow(deprecated))]
// Built without a CPU's backend, the dispatch to one has nothing to do with its arguments, and nobody asks for its form.
#![cfg_attr(not(any(feature = "cpu-kernels", feature = "tch")), allow(unused_variables, dead_code))]

pub mod activation;
pub mod adam_w;
pub mod attention;
pub mod autodiff;
mod compute;
#[cfg(feature = "cpu-kernels")]
pub mod cpu;
pub mod cross_entropy;
#[cfg(feature = "cube")]
pub mod cube;
pub mod dropout;
pub mod embedding;
pub mod generation;
pub mod join;
pub mod joined_attention;
pub mod layer_norm;
#[cfg(feature = "tch")]
mod libtorch;
pub mod matmul;
pub mod multi_tensor;
pub mod portable;
mod precision;
pub mod quantized;
pub mod rms_norm;
pub mod rotary;
pub mod swiglu;
pub mod update;

pub use self::adam_w::AdamWStep;
pub use self::compute::{ComputeOptions, fits_joined_attention};
pub use self::precision::Precision;

//! The fast forms on slices of f32, for Burn's Rust backends, flex and ndarray.
//!
//! A file an operation, plus [`math`] (vector instructions), [`product`] and [`dot_products`] (matrix products), [`parallel`] (threads),
//! [`view`] (where numbers are), `host` (what a backend's tensors must offer) and `backends` (from tensors to slices).

// A loop that is not inlined into `vectorised` is compiled for the oldest processor.
#![allow(clippy::inline_always)]

pub mod activation;
pub mod adam_w;
pub mod attention;
mod backends;
pub mod cross_entropy;
pub mod dot_products;
mod host;
pub mod layer_norm;
pub mod linear;
pub mod math;
pub mod parallel;
pub mod product;
pub mod rms_norm;
pub mod rotary;
pub mod swiglu;
pub mod view;

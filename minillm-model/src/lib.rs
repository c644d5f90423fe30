//! What a GPT- or LLaMA-style language model is: configuration, layers, tokenizer, weights on disk.
//!
//! Read in this order; together the files are the whole model:
//!
//! 1. [`config`]: the switches in which GPT-2 and LLaMA differ.
//! 2. [`layers::rms_norm`], [`layers::rope`], [`layers::attention`], [`layers::swiglu`]: the four mechanisms of a
//!    modern model; [`layers::layer_norm`] and [`layers::gelu_mlp`] are what they replaced.
//! 3. [`block`] and [`decoder`]: how they are stacked, from token ids to logits.
//! 4. [`loss`] and [`kv_cache`]: what training minimises, and what makes generation fast.
//!
//! No backend is chosen here. A tensor's backend is its `Device`, so every layer runs on every backend that a program
//! was built with. This crate reads no environment variable, prints nothing and downloads nothing.
//!
//! # Shape letters
//!
//! Every comment on a shape, here and in the other crates, uses these letters:
//!
//! | letter | meaning | field of [`config::ModelConfig`] |
//! |---|---|---|
//! | B | sequences in a batch | |
//! | T | query length: tokens given now | |
//! | S | key length: tokens seen so far, T included | |
//! | D | width of the residual stream | `hidden_size` |
//! | F | width of the MLP | `intermediate_size` |
//! | L | blocks | `num_hidden_layers` |
//! | H | query heads | `num_attention_heads` |
//! | K | key/value heads | `num_key_value_heads` |
//! | G | query heads per key/value head, H / K | |
//! | E | width of one head | `head_dim` |
//! | C | longest sequence | `max_position_embeddings` |
//! | V | vocabulary | `vocab_size` |

// With several backends compiled in, Burn's tensor types nest deeper than rustc's default of 128.
#![recursion_limit = "256"]

pub mod adapter;
pub mod block;
mod burn_compat;
pub mod cases;
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod encoding;
pub mod error;
mod generation_weights;
pub mod init;
mod json;
pub mod kv_cache;
pub mod layers;
pub mod loss;
mod matrices;
pub mod ops;
pub mod parameters;
pub mod random;
pub mod stats;
pub mod tokenizer;
mod with_config;

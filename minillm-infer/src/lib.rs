//! Logits to text: generation, scoring, and the one place that knows which backends a program has.
//!
//! Read [`generate`] first: a loop of "one token in, one token out". [`sampling`] chooses each token, [`decode_stream`]
//! turns them into text as they come, [`score`] measures how well a model predicts a given text, which [`text_files`] reads
//! as training does, [`verify`] compares two models, [`inspect`] shows one from the inside, [`export`] writes one for other
//! programs, and [`device`] opens what it all runs on.

#![recursion_limit = "256"]

mod burn_compat;
pub mod decode_stream;
pub mod describe;
pub mod device;
pub mod error;
pub mod export;
pub mod failures;
pub mod generate;
pub mod html;
pub mod inspect;
pub mod launches;
pub mod logging;
pub mod memory;
pub mod number;
pub mod output;
pub mod sampling;
pub mod score;
pub mod target_tokenizer;
pub mod text_files;
pub mod verify;

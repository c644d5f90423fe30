//! Logits to text: generation, scoring, and the one place that knows which backends a program has.
//!
//! Read [`generate`] first: a loop of "one token in, one token out". [`sampling`] chooses each token, [`decode_stream`]
//! turns them into text as they come, [`score`] measures how well a model predicts a given text, [`verify`] compares
//! two models, [`inspect`] shows one from the inside, [`export`] writes one for other programs, and [`device`] opens what it all runs on.

#![recursion_limit = "256"]

pub mod card;
pub mod cli;
pub mod decode_stream;
pub mod device;
pub mod error;
pub mod export;
pub mod failures;
pub mod generate;
pub mod html;
pub mod inspect;
pub mod memory;
pub mod sampling;
pub mod score;
pub mod target_tokenizer;
pub mod verify;

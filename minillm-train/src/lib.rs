//! Text to weights: trains the models of `minillm-model`.
//!
//! Read [`trainer`] first: the loop, top to bottom. What it calls, in the order in which it calls it: [`objective`] (what is
//! learned), [`data`] (text to batches; [`tales`] is the built-in corpus), [`conversations`], [`schedule`] (how far to move), [`step`] (forward, backward, clip,
//! [`optimizer`]), [`evaluate`], [`metrics`] (where the numbers go), [`checkpoint`] and [`run_dir`] (what is saved, and
//! how it survives a crash), [`report`] (the run on one page). [`config`] is the file in which all of it is chosen, and
//! [`doctor`] says whether a device computes it rightly.

#![recursion_limit = "256"]

mod burn_compat;
pub mod checkpoint;
pub mod config;
pub mod conversations;
pub mod data;
pub mod doctor;
pub mod error;
pub mod evaluate;
pub mod file_lock;
pub mod gradients;
pub mod interrupt;
pub mod later;
pub mod metrics;
pub mod objective;
pub mod optimizer;
pub mod plan;
pub mod publish;
pub mod recompute;
pub mod report;
pub mod run_dir;
pub mod schedule;
pub mod session;
pub mod spikes;
pub mod start;
pub mod step;
pub mod study;
pub mod tales;
pub mod trainable;
pub mod trainer;
pub mod workers;

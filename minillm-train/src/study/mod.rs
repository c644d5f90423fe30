//! Controlled experiments: the same training with one thing changed, over several seeds, and how sure the answer is.
//!
//! ```text
//! STUDY.toml ── file ── design ──> variants x seeds ── runner ──> DIR/runs/VARIANT/seed-N ── summary ── tables, page
//!                        solves for what is held equal    each a process of its own (`run`)     `statistics`
//! ```
//!
//! - [`mod@file`]: what can be written in a study. - [`design`]: its variants as complete configurations, with the MLP's width
//!   or the number of steps solved for. - [`runner`]: one run after the other, skipping what is done. - [`run`]: a single
//!   run and what is measured of it; [`mod@result`]: its files. - [`record`]: `study.json`, by which a later start knows what may
//!   be kept. - [`statistics`]: intervals over seeds. - [`summary`]: a line per variant. - [`tables`]: for the terminal and for
//!   files. - [`page`]: with figures.
//!
//! Every run is a directory as `minillm-train train` leaves it, and `study` only ever adds to it. What counts is the
//! validation loss after the last step, not the best on the way: choosing the best would reward variants that are noisier.

mod date;
pub mod design;
pub mod file;
mod json;
pub mod page;
pub mod record;
pub mod result;
pub mod run;
mod run_metrics;
pub mod runner;
pub mod statistics;
pub mod summary;
pub mod tables;
mod trained;

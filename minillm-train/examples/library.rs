//! The crates as a library: train a model, load it from its checkpoint, generate text.
//!
//! ```sh
//! cargo run --release -p minillm-train --example library
//! ```

#![allow(clippy::print_stdout)] // it prints a story and ends

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use minillm_infer::device;
use minillm_infer::generate::{Tokens, text};
use minillm_infer::sampling::Sampling;
use minillm_model::checkpoint::{self, durable::System};
use minillm_train::config::RunConfig;
use minillm_train::data::Silent;
use minillm_train::interrupt::Interrupt;
use minillm_train::run_dir::OpenMode;
use minillm_train::session::Session;

fn main() -> Result<(), Box<dyn Error>> {
    // Train: the quick start, cut to 20 steps. `changes` are what `--set` takes on the command line.
    let changes = ["train.max_steps=20", "schedule.warmup_steps=5"].map(str::to_owned);
    let config = RunConfig::load(Path::new("configs/quickstart.toml"), &changes)?;
    let (found, out) = (device::open("auto")?, Path::new("runs/library"));
    let (mode, disk) = (OpenMode::Overwrite, Arc::new(System));
    let session = Session { config: &config, out, mode, found: &found, label: None, disk };
    let outcome = session.open(Path::new("runs/cache"), &Silent)?.run(&Interrupt::never())?;

    // Load: the checkpoint is a Hugging Face directory; any other that the README lists is loaded in the same way.
    let checkpoint = checkpoint::load(&outcome.checkpoint, &found.device)?;
    let tokenizer = checkpoint.tokenizer.ok_or("the checkpoint has no tokenizer")?;

    // Generate: up to 40 tokens, handed over piece by piece as they are decoded.
    let prompt = tokenizer.encode_prompt("Once upon a time")?;
    let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
    let tokens = Tokens::new(&checkpoint.model, &prompt, 40, &sampling)?;
    let generated = text(tokens.end_at(&checkpoint.end_ids), &tokenizer, &[], |_piece| Ok(()))?;
    println!("Once upon a time{}", generated.text);
    Ok(())
}

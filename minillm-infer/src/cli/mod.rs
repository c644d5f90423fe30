//! The program's verbs, one file each. stdout carries data, stderr everything else.

pub mod bench;
pub mod export;
pub mod generate;
pub mod inspect;
pub mod logits;
pub mod output;
pub mod score;
pub mod verify;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use burn::tensor::Device;
use clap::{Parser, Subcommand};
use minillm_model::checkpoint::{self, Checkpoint};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::device;
use crate::error::{Error, Result};
use crate::failures::Watch;
use output::note;

/// Generates text with small GPT- and LLaMA-style language models, measures them, and hands them to other programs
#[derive(Debug, Parser)]
#[command(name = "minillm-infer", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Generate(generate::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Score(score::Args),
    Logits(logits::Args),
    Export(export::Args),
    Verify(verify::Args),
}

/// Parses the command line and runs it; returns the program's exit code.
pub fn main() -> ExitCode {
    start_logging();
    let done = match Cli::parse().verb {
        Verb::Generate(args) => generate::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Score(args) => score::run(&args),
        Verb::Logits(args) => logits::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Verify(args) => verify::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, error.hint());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Warnings go to stderr; `RUST_LOG` asks for more or less. Whatever it says, failures of the device are noticed.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,minillm_model=info,minillm_infer=info,minillm_train=info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let messages = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .without_time()
        .with_target(false)
        .with_filter(filter);
    tracing_subscriber::registry().with(messages).with(Watch.with_filter(LevelFilter::WARN)).init();
}

/// Prints an error the way both programs do: what, why, and the way out.
pub fn report(error: &dyn std::error::Error, hint: Option<&str>) {
    note(format_args!("error: {error}"));
    let mut source = error.source();
    while let Some(cause) = source {
        note(format_args!("  caused by: {cause}"));
        source = cause.source();
    }
    if let Some(hint) = hint {
        note(format_args!("  hint: {hint}"));
    }
}

/// How a model's matrices are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Weights {
    /// As they are computed with.
    F32,
    /// In llama.cpp's blocks of 8-bit numbers: a quarter of the memory, faster to read
    #[value(name = "q8_0")]
    Q8_0,
}

/// [`load`], with the matrices kept as `weights` says.
fn load_with(path: &Path, device: &str, weights: Weights) -> Result<(Checkpoint, Device)> {
    let (mut checkpoint, device) = load(path, device)?;
    if weights == Weights::Q8_0 {
        checkpoint.model = checkpoint.model.quantized()?;
    }
    Ok((checkpoint, device))
}

/// Opens `device` and loads the model that `path` means: a model directory, a .gguf file, a checkpoint, or a run.
pub fn load(path: &Path, device: &str) -> Result<(Checkpoint, Device)> {
    let device = device::open(device)?.device;
    let directory = locate(path)?;
    let checkpoint = checkpoint::load(&directory, &device)?;
    for warning in checkpoint.tokenizer.iter().flat_map(|tokenizer| tokenizer.warnings()) {
        tracing::warn!("{warning}");
    }
    Ok((checkpoint, device))
}

fn locate(path: &Path) -> Result<std::path::PathBuf> {
    let (directory, warnings) = checkpoint::locate::model_dir(path)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(directory)
}

/// Turns the system's error into ours, which says what was tried.
fn io_error(action: &'static str, what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, what, source }
}

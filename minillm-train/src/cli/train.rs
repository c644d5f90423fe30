//! `minillm-train train`: run a configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use fs_err as fs;
use minillm_infer::device;
use minillm_model::config::{ModelConfig, ModelOptions};
use minillm_model::stats;

use super::cache_dir;
use super::progress::Bars;
use crate::checkpoint::load_state;
use crate::config::{RunConfig, check_resume};
use crate::data::{self, Shape};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::run_dir::{CONFIG_FILE, OpenMode, RunDir};
use crate::trainer::{Outcome, Trainer};

/// Train a model from a configuration file
///
///   minillm-train train configs/quickstart.toml
///   minillm-train train configs/shakespeare-llama-cpu.toml --set seed=7 --out runs/seed-7
///   minillm-train train configs/quickstart.toml --resume
///
/// Ctrl-C finishes the step, saves and exits with 130; --resume continues as if nothing had happened.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A configuration file, as in configs/
    config: PathBuf,
    /// Change a key of the file, `--set train.max_steps=500`; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The run's directory [default: runs/NAME after the configuration file's name]
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// What to compute on: auto, or a name from `minillm-train devices`
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Continue the run in --out from its newest checkpoint
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Replace the run in --out
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let config = RunConfig::load(&args.config, &args.set)?;
    // Before any work: an architecture that cannot be built, a device that is not there, a directory that is in use.
    config.model.resolve(config.model.vocab_size.unwrap_or(1), config.train.context).validate()?;
    let found = device::open(&args.device)?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.config));
    let mode = match (args.resume, args.overwrite) {
        (true, _) => OpenMode::Resume,
        (_, true) => OpenMode::Overwrite,
        _ => OpenMode::New,
    };
    let interrupt = Interrupt::install()?;
    let run = RunDir::open(&out, mode)?;
    let resume_from = if args.resume { Some(resume_point(&run, &config)?) } else { None };

    let shape = Shape { context: config.train.context, batch_size: config.train.batch_size, seed: config.seed };
    let corpus = data::prepare(&config.data, &config.tokenizer, &shape, &cache_dir()?, &Bars::default())?;
    let config_file = run.path().join(CONFIG_FILE);
    let trainer = Trainer::new(&config, corpus, run, &found, resume_from.as_deref())?;
    let resolved = resolved(&config, trainer.model_config());
    fs::write(&config_file, resolved.to_toml()?).map_err(|source| Error::Io {
        action: "write",
        what: "the run's configuration",
        source,
    })?;

    let parameters = stats::parameters(trainer.model_config()).total();
    eprintln!("{parameters} parameters on {} ({}), run in {}", found.name, found.description, out.display());
    let outcome = trainer.run(&interrupt)?;
    summarise(&outcome, &out, args, start);
    Ok(outcome.interrupted.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code())))
}

fn default_out(config: &Path) -> PathBuf {
    Path::new("runs").join(config.file_stem().unwrap_or_default())
}

/// The checkpoint to continue from, after seeing that `config` may continue it.
fn resume_point(run: &RunDir, config: &RunConfig) -> Result<PathBuf> {
    let Some((_, checkpoint)) = run.newest_sound()? else {
        return Err(Error::Run {
            path: run.path().to_owned(),
            problem: "has no checkpoint to resume from".to_owned(),
            hint: "start again with --overwrite".to_owned(),
        });
    };
    let before = RunConfig::load(&run.path().join(CONFIG_FILE), &[])?;
    check_resume(&before, config, load_state(&checkpoint)?.step)?;
    Ok(checkpoint)
}

/// `config` with every field of the model written out, so that the file says what was built.
fn resolved(config: &RunConfig, model: &ModelConfig) -> RunConfig {
    let mut resolved = config.resolved();
    // The vocabulary stays open: it is the tokenizer's.
    resolved.model = ModelOptions { vocab_size: config.model.vocab_size, ..model.to_options(config.model.preset) };
    resolved
}

fn summarise(outcome: &Outcome, out: &Path, args: &Args, start: Instant) {
    let seconds = start.elapsed().as_secs();
    eprintln!();
    if outcome.interrupted.is_some() {
        eprintln!("stopped after step {} and saved {}", outcome.steps, outcome.checkpoint.display());
        eprintln!("continue with the same command and --resume");
        return;
    }
    eprintln!(
        "{} steps in {}m{:02}s, saved {}",
        outcome.steps,
        seconds / 60,
        seconds % 60,
        outcome.checkpoint.display()
    );
    if let Some(evaluation) = &outcome.evaluation {
        let score = evaluation.score;
        eprintln!(
            "validation: {:.4} nats per token, perplexity {:.2}, {:.4} bits per byte",
            score.nats_per_token(),
            score.perplexity(),
            score.bits_per_byte()
        );
        if let (Some(floor), Some(gap)) = (evaluation.floor, evaluation.gap()) {
            eprintln!("no model can be below {floor:.4} nats per token here; the gap is {gap:.4}");
        }
    }
    let prompt = if args.config.to_string_lossy().contains("shakespeare") { "ROMEO:" } else { "One day" };
    eprintln!("next: cargo run --release -p minillm-infer -- generate {} --prompt \"{prompt}\"", out.display());
}

//! `minillm-train train`: run a configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use minillm_infer::export::blocking_switches;
use minillm_infer::output::note;
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::family::Family;
use minillm_model::config::ModelConfig;
use minillm_model::stats;
use minillm_model::tokenizer::Tokenizer;
use minillm_train::config::ObjectiveKind;
use minillm_train::doctor;
use minillm_train::error::Result;
use minillm_train::interrupt::Interrupt;
use minillm_train::run_dir::OpenMode;
use minillm_train::session::Session;
use minillm_train::trainable::Trainable;
use minillm_train::trainer::Outcome;

use super::arguments::{ConfigArgs, DeviceArgs};
use super::cache_dir;
use super::progress::Bars;

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
    #[command(flatten)]
    config: ConfigArgs,
    /// The run's directory [default: runs/NAME after the configuration file's name]
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Continue the run in --out from its newest checkpoint
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Replace the run in --out
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let config = args.config.load()?;
    // Before any work: a device that is not there, a directory that is in use.
    let found = args.device.open()?;
    // Of kernels and drivers there are many, and not all of them compute what they should. (A driver that computes on the
    // CPU takes minutes to tune its kernels, and nobody trains on it for long.)
    if found.is_gpu && !found.is_software && config.train.check_device {
        doctor::quick(&found, config.train.kernels)?;
    }
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.config.path));
    let mode = match (args.resume, args.overwrite) {
        (true, _) => OpenMode::Resume,
        (_, true) => OpenMode::Overwrite,
        _ => OpenMode::New,
    };
    let session = Session { config: &config, out: &out, mode, found: &found, label: None, disk: Arc::new(System) };
    let trainer = session.open(&cache_dir()?, &Bars::default())?;
    // From here on there is something to save. Before, Ctrl-C just ends the program.
    let interrupt = Interrupt::install()?;

    if let Some(warning) = only_read_here(trainer.model_config()) {
        tracing::warn!("{warning}");
    }
    let parameters = stats::parameters(trainer.model_config()).total();
    // A model that learned to talk is not given a beginning but a conversation.
    let prompt = (config.objective.kind == ObjectiveKind::Text).then(|| suggested_prompt(trainer.tokenizer()));
    let shapes = Trainable::of(&config).parameters(trainer.model_config());
    let adapted: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let adapted = if adapted == parameters { String::new() } else { format!(", {adapted} of an adapter trained,") };
    note(format_args!(
        "{parameters} parameters{adapted} on {} ({}), run in {}",
        found.name,
        found.description,
        out.display()
    ));
    if let Some(summary) = trainer.summary() {
        note(summary);
    }
    let outcome = trainer.run(&interrupt)?;
    summarise(&outcome, &out, prompt, start);
    Ok(outcome.interrupted.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code())))
}

/// What to say before the first step of a model that no other program would read.
fn only_read_here(config: &ModelConfig) -> Option<String> {
    if Family::of(config) != Family::MiniLlm {
        return None;
    }
    let (nearest, fields) = Family::nearest(config);
    let (_, class) = nearest.names();
    let fields: Vec<_> = fields.iter().map(|field| format!("`model.{field}`")).collect();
    let way = if blocking_switches(config).is_empty() {
        format!("; `minillm-infer export --to hf` makes it a {class}")
    } else {
        String::new()
    };
    let fields = fields.join(", ");
    Some(format!(
        "only MiniLLM will read the checkpoints: {class}, the nearest class of transformers, has another {fields}{way}"
    ))
}

fn default_out(config: &Path) -> PathBuf {
    Path::new("runs").join(config.file_stem().unwrap_or_default())
}

fn summarise(outcome: &Outcome, out: &Path, prompt: Option<&str>, start: Instant) {
    note("");
    if outcome.interrupted.is_some() {
        note(format_args!("stopped after step {} and saved {}", outcome.steps, outcome.checkpoint.display()));
        note("continue with the same command and --resume");
        return;
    }
    let Some(evaluation) = &outcome.evaluation else {
        note(format_args!("all {} steps were done before: {}", outcome.steps, outcome.checkpoint.display()));
        let (more, done) = (2 * outcome.steps, outcome.steps);
        note(format_args!("to go on: --resume --set train.max_steps={more} --set schedule.decay_steps={done}"));
        return;
    };
    let (seconds, steps) = (start.elapsed().as_secs(), outcome.steps);
    let checkpoint = outcome.checkpoint.display();
    note(format_args!("{steps} steps in {}m{:02}s, saved {checkpoint}", seconds / 60, seconds % 60));
    let score = evaluation.score;
    let loss = score.nats_per_token();
    let scored = if score.bytes == 0 { "pair" } else { "token" }; // two answers stand for no bytes
    if score.bytes == 0 {
        note(format_args!("validation: {loss:.4} nats per pair"));
    } else {
        let (perplexity, bits) = (score.perplexity(), score.bits_per_byte());
        note(format_args!("validation: {loss:.4} nats per token, perplexity {perplexity:.2}, {bits:.4} bits per byte"));
    }
    if let (Some(floor), Some(gap)) = (evaluation.floor, evaluation.gap()) {
        note(format_args!("no model can be below {floor:.4} nats per {scored} here; the gap is {gap:.4}"));
    }
    for grade in &evaluation.grades {
        if let (Some(share), Some([low, high])) = (grade.share(), grade.interval()) {
            let name = grade.tag.trim_start_matches("val/").replace('_', " ");
            note(format_args!(
                "{name:<16}{share:.3}  ({low:.3} to {high:.3}) of {} trials; the best is {:.3}",
                grade.count, grade.best
            ));
        }
    }
    let run = out.display();
    match prompt {
        Some(prompt) => {
            note(format_args!("next: cargo run --release -p minillm-infer -- generate {run} --prompt \"{prompt}\""));
        }
        None => {
            note(format_args!("next: cargo run --release -p minillm-infer -- export {run} --to hf --out exports/chat"));
        }
    }
}

/// A beginning that the model has letters for.
fn suggested_prompt(tokenizer: &Tokenizer) -> &'static str {
    ["Once upon a time", "The ", "a"].into_iter().find(|prompt| tokenizer.encode(prompt).is_ok()).unwrap_or("...")
}

#[cfg(test)]
mod tests {
    use minillm_model::config::{ModelOptions, Preset};

    use super::*;

    fn warning(options: &ModelOptions) -> Option<String> {
        only_read_here(&options.resolve(64, 32))
    }

    #[test]
    fn a_model_that_no_other_program_reads_is_named_with_its_field() {
        for preset in [Preset::Llama, Preset::Qwen3, Preset::Gpt2] {
            assert_eq!(warning(&ModelOptions { preset, ..ModelOptions::default() }), None);
        }
        let llama = ModelOptions { preset: Preset::Llama, ..ModelOptions::default() };
        let text =
            warning(&ModelOptions { mlp: Some(minillm_model::config::MlpKind::Relu2), ..llama.clone() }).unwrap();
        assert!(text.contains("LlamaForCausalLM") && text.ends_with("has another `model.mlp`"), "{text}");
        // nanoGPT's bias = False: an export adds zeros.
        let bare = ModelOptions { preset: Preset::Gpt2, mlp_bias: Some(false), ..ModelOptions::default() };
        let text = warning(&bare).unwrap();
        assert!(text.contains("`model.mlp_bias`; `minillm-infer export --to hf` makes it a GPT2LMHeadModel"), "{text}");
    }
}

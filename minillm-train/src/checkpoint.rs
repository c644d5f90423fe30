//! What a checkpoint holds beside the model: everything that the next step depends on.
//!
//! | file | content |
//! |---|---|
//! | `config.json`, `model.safetensors`, tokenizer | the model, as any Hugging Face directory |
//! | `trainer/optimizer.safetensors` | what the optimiser remembers of every parameter |
//! | `trainer/state.json` | [`State`] |
//! | `trainer/config.toml` | the run's configuration, with which `--resume` compares the one it is given |
//! | `trainer/manifest.json` | size and SHA-256 of every file, written by [`run_dir`](crate::run_dir) |
//!
//! There is no generator's state and no data position to save: batches, dropout and samples are pure functions of the
//! seed and the step.

use std::path::Path;

use burn::tensor::Device;
use fs_err as fs;
use minillm_model::adapter::{self, LoraOptions};
use minillm_model::chat::ChatFormat;
use minillm_model::checkpoint::durable::{self, Disk};
use minillm_model::checkpoint::{self as model_files, weights};
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::optimizer::ModelOptimizer;
use crate::spikes::Spikes;

const FOLDER: &str = "trainer";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
const CONFIG_FILE: &str = "config.toml";
/// Raised when the files' meaning changes.
const FORMAT: u32 = 1;

/// The progress of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of the checkpoint's format.
    pub format: u32,
    /// Optimiser steps taken. The next batch is that of this step, counted from 0.
    pub step: usize,
    /// Tokens trained on, padding excluded.
    pub tokens: u64,
    /// The run's seed.
    pub seed: u64,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Of text, tokenizer and split: another text cannot continue this run.
    pub data_fingerprint: String,
    /// The device of the last step.
    pub device: String,
    /// The CPU threads among which its batch was split: their sums, and so the last bits, depend on it.
    pub threads: usize,
    /// Of an adapter, and of preferences: SHA-256 of the weights that the run began with, which it still needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_sha256: Option<String>,
    /// With `train.skip_spikes`, what is usual, and how many steps were not taken.
    #[serde(default, skip_serializing_if = "Spikes::is_empty")]
    pub spikes: Spikes,
}

/// The best evaluation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// After how many steps.
    pub step: usize,
    /// Validation loss in nats per token.
    pub value: f64,
}

impl State {
    /// Before the first step.
    pub fn new(seed: u64, data_fingerprint: String, device: String, threads: usize) -> Self {
        let spikes = Spikes::default();
        Self {
            format: FORMAT,
            step: 0,
            tokens: 0,
            seed,
            best: None,
            data_fingerprint,
            device,
            threads,
            base_sha256: None,
            spikes,
        }
    }
}

/// What a checkpoint is made of.
#[derive(Clone, Copy)]
pub struct CheckpointParts<'a> {
    /// The run's configuration, resolved.
    pub run_config: &'a RunConfig,
    /// The weights and the architecture.
    pub model: &'a LanguageModel,
    /// The adapter that is trained, with the path of the model that it is for: then nothing else of the model is written.
    pub adapter: Option<(&'a LoraOptions, &'a Path)>,
    /// Text to ids and back.
    pub tokenizer: &'a Tokenizer,
    /// How conversations are written, if the model learns to talk.
    pub chat: Option<&'a ChatFormat>,
    /// What the optimiser remembers.
    pub optimizer: &'a ModelOptimizer,
    /// The progress of the run.
    pub state: &'a State,
}

/// Writes everything into `directory`, which exists; [`run_dir`](crate::run_dir) publishes it. Weights that are not finite
/// are an error.
pub fn save(disk: &dyn Disk, directory: &Path, parts: CheckpointParts) -> Result<()> {
    let CheckpointParts { run_config, model, adapter, tokenizer, chat, optimizer, state } = parts;
    match adapter {
        Some((options, base)) => {
            adapter::save(disk, directory, model, options, &base.to_string_lossy())?;
            let end: Vec<u32> = tokenizer.end_of_text().into_iter().collect();
            let contents = model_files::made_here(model.config(), tokenizer, chat, &end);
            model_files::save_side_files(disk, directory, &contents)?;
        }
        None => model_files::save_with_chat(disk, directory, model, tokenizer, chat)?,
    }
    let folder = directory.join(FOLDER);
    disk.create_dir(&folder).map_err(write_error)?;
    optimizer.save(disk, &folder.join(OPTIMIZER_FILE))?;
    let text = serde_json::to_string_pretty(state).map_err(std::io::Error::other).map_err(write_error)?;
    for (name, text) in [(STATE_FILE, text + "\n"), (CONFIG_FILE, run_config.to_toml()?)] {
        durable::write_file(disk, &folder.join(name), text.as_bytes()).map_err(write_error)?;
    }
    Ok(())
}

/// Reads the configuration of the run that wrote the checkpoint.
pub fn load_config(directory: &Path) -> Result<RunConfig> {
    RunConfig::load(&directory.join(FOLDER).join(CONFIG_FILE), &[])
}

/// Reads [`State`] alone.
pub fn load_state(directory: &Path) -> Result<State> {
    let path = directory.join(FOLDER).join(STATE_FILE);
    let text = fs::read_to_string(&path).map_err(|source| Error::Io {
        action: "read",
        what: "the trainer's state",
        source,
    })?;
    let damaged = |problem: String, hint: &str| Error::Run { path: path.clone(), problem, hint: hint.to_owned() };
    let state: State = serde_json::from_str(&text)
        .map_err(|error| damaged(format!("is not a trainer's state: {error}"), "resume from another checkpoint"))?;
    if !state.spikes.are_of(state.step) {
        let problem = "counts more skipped steps than there were".to_owned();
        return Err(damaged(problem, "resume from another checkpoint"));
    }
    if state.format != FORMAT {
        let problem = format!("`format` is {}, this program reads {FORMAT}", state.format);
        return Err(damaged(problem, "continue with the program that began the run"));
    }
    Ok(state)
}

/// Reads [`State`] to go on from on the data, device and threads of now. Other data is an error; on another device or with
/// another number of threads the last bits may differ, which is a warning.
pub fn resume_state(directory: &Path, data_fingerprint: &str, device: &str, threads: usize) -> Result<State> {
    let mut state = load_state(directory)?;
    if state.data_fingerprint != data_fingerprint {
        return Err(Error::Run {
            path: directory.to_owned(),
            problem: "was trained on another text or with another tokenizer".to_owned(),
            hint: "restore the text, or start a new run with another --out".to_owned(),
        });
    }
    if (state.device.as_str(), state.threads) != (device, threads) {
        let before = format!("{} with {} threads", state.device, state.threads);
        tracing::warn!("the run was on {before}, and goes on with {threads} on {device}: not bit for bit");
        (state.device, state.threads) = (device.to_owned(), threads);
    }
    Ok(state)
}

/// Reads model and optimiser state onto `device`.
pub fn load(
    directory: &Path,
    config: &ModelConfig,
    state: &State,
    device: &Device,
    optimizer: &mut ModelOptimizer,
) -> Result<LanguageModel> {
    let model = weights::load(directory, config, device)?;
    load_optimizer(directory, &model, state, optimizer)?;
    Ok(model)
}

/// Reads the optimiser's state alone.
pub fn load_optimizer(
    directory: &Path,
    model: &LanguageModel,
    state: &State,
    optimizer: &mut ModelOptimizer,
) -> Result<()> {
    let moments = directory.join(FOLDER).join(OPTIMIZER_FILE);
    optimizer.load(&moments, model, state.step - state.spikes.skipped())
}

fn write_error(source: std::io::Error) -> Error {
    Error::Io { action: "write", what: "the checkpoint", source }
}

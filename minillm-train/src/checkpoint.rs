//! What a checkpoint holds beside the model: everything that the next step depends on.
//!
//! | file | content |
//! |---|---|
//! | `config.json`, `model.safetensors`, tokenizer | the model, as any Hugging Face directory |
//! | `trainer/optimizer.safetensors` | `AdamW`'s moments |
//! | `trainer/state.json` | [`State`] |
//! | `trainer/manifest.json` | size and SHA-256 of every file, written by [`run_dir`](crate::run_dir) |
//!
//! There is no generator's state and no data position to save: batches, dropout and samples are pure functions of the
//! seed and the step.

use std::path::Path;

use burn::tensor::Device;
use fs_err as fs;
use minillm_model::checkpoint::{self as model_files, weights};
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::optimizer::ModelOptimizer;

const FOLDER: &str = "trainer";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
/// Raised when the files' meaning changes.
const FORMAT: u32 = 1;

/// Where a run stands.
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
    pub fn new(seed: u64, data_fingerprint: String) -> Self {
        Self { format: FORMAT, step: 0, tokens: 0, seed, best: None, data_fingerprint }
    }
}

/// Writes everything into `directory`, which exists; [`run_dir`](crate::run_dir) publishes it.
pub fn save(
    directory: &Path,
    config: &ModelConfig,
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    optimizer: &ModelOptimizer,
    state: &State,
) -> Result<()> {
    model_files::save(directory, config, model, tokenizer)?;
    let folder = directory.join(FOLDER);
    fs::create_dir_all(&folder).map_err(write_error)?;
    optimizer.save(&folder.join(OPTIMIZER_FILE))?;
    let text = serde_json::to_string_pretty(state).map_err(std::io::Error::other).map_err(write_error)?;
    fs::write(folder.join(STATE_FILE), text + "\n").map_err(write_error)
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
    if state.format != FORMAT {
        let problem = format!("`format` is {}, this program reads {FORMAT}", state.format);
        return Err(damaged(problem, "continue with the program that began the run"));
    }
    Ok(state)
}

/// Reads model and moments onto `device`.
pub fn load(
    directory: &Path,
    config: &ModelConfig,
    state: &State,
    device: &Device,
    optimizer: &mut ModelOptimizer,
) -> Result<LanguageModel> {
    let model = weights::load(&directory.join(model_files::WEIGHTS_FILE), config, device)?;
    let moments = directory.join(FOLDER).join(OPTIMIZER_FILE);
    optimizer.load(&moments, &model, &device.clone().without_autodiff(), state.step)?;
    Ok(model)
}

fn write_error(source: std::io::Error) -> Error {
    Error::Io { action: "write", what: "the checkpoint", source }
}

//! Weights on disk: a Hugging Face model directory, read and written.
//!
//! | file | module |
//! |---|---|
//! | `config.json`, `generation_config.json` | [`hf_config`] |
//! | `model.safetensors` | [`weights`]; [`gpt2`] for GPT-2's names and layouts |
//! | `tokenizer.json`, `tokenizer_config.json` | [`tokenizer`](crate::tokenizer) |
//! | `trainer/manifest.json` | [`manifest`]; [`durable`] for what survives a crash |
//!
//! [`locate`] finds the directory that a run means.

pub mod durable;
pub mod gpt2;
pub mod hf_config;
pub mod locate;
pub mod manifest;
pub mod weights;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fs_err as fs;

use crate::config::ModelConfig;
use crate::decoder::LanguageModel;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use hf_config::HfConfig;

/// The architecture.
pub const CONFIG_FILE: &str = "config.json";
/// How to generate: the tokens that end a text.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";
/// The weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The tokenizer, in the `tokenizers` library's format.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// What transformers wants to know about the tokenizer.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// A model read from a directory.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its architecture.
    pub config: ModelConfig,
    /// Its weights.
    pub model: LanguageModel,
    /// Its tokenizer, if the directory has one.
    pub tokenizer: Option<Tokenizer>,
    /// Tokens that end a text.
    pub end_ids: Vec<u32>,
}

/// Reads the model in `directory` onto `device`.
pub fn load(directory: &Path, device: &Device) -> Result<Checkpoint> {
    let HfConfig { config, end_ids } = read_config(directory)?;
    let model = weights::load(&directory.join(WEIGHTS_FILE), &config, device)?;
    let tokenizer_file = directory.join(TOKENIZER_FILE);
    let tokenizer = if tokenizer_file.exists() { Some(Tokenizer::from_file(&tokenizer_file)?) } else { None };
    if let Some(tokenizer) = &tokenizer
        && tokenizer.vocab_size() > config.vocab_size
    {
        return Err(Error::InvalidFile {
            path: tokenizer_file,
            problem: format!(
                "has {} tokens, but `vocab_size` in {CONFIG_FILE} is {}",
                tokenizer.vocab_size(),
                config.vocab_size
            ),
            hint: "the tokenizer must be the one that the model was trained with".to_owned(),
        });
    }
    Ok(Checkpoint { path: directory.to_owned(), config, model, tokenizer, end_ids })
}

/// Reads `config.json` alone.
pub fn read_config(directory: &Path) -> Result<HfConfig> {
    let path = directory.join(CONFIG_FILE);
    let text =
        fs::read_to_string(&path).map_err(|source| Error::Io { action: "read", what: "the model's config", source })?;
    hf_config::from_json(&path, &text)
}

/// Writes the model's files into `directory`, which exists. Not atomic by itself: whoever publishes a checkpoint
/// writes into a temporary directory and renames that.
pub fn save(directory: &Path, config: &ModelConfig, model: &LanguageModel, tokenizer: &Tokenizer) -> Result<()> {
    let end_of_text = tokenizer.end_of_text();
    write(&directory.join(CONFIG_FILE), &hf_config::to_json(config, end_of_text))?;
    write(&directory.join(GENERATION_CONFIG_FILE), &hf_config::generation_json(end_of_text))?;
    write(&directory.join(TOKENIZER_FILE), &tokenizer.to_json())?;
    write(&directory.join(TOKENIZER_CONFIG_FILE), &tokenizer.config_json(config.max_position_embeddings))?;
    weights::save(&directory.join(WEIGHTS_FILE), config, model)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| Error::Io { action: "write", what: "the checkpoint", source })
}

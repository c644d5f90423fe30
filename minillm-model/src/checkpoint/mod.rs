//! Weights on disk: a Hugging Face model directory, read and written.
//!
//! | file | module |
//! |---|---|
//! | `config.json`, `generation_config.json` | [`hf_config`] |
//! | `model.safetensors`, or shards with an index | [`safetensors`]; [`weights`] into a model and out of it |
//! | `tokenizer.json`, `tokenizer_config.json` | [`tokenizer`](crate::tokenizer) |
//! | `trainer/manifest.json` | [`manifest`]; [`durable`] for what survives a crash |
//!
//! [`locate`] finds the directory that a run means. [`tensor_files`] reads tensors whatever the format, [`encoding`](crate::encoding) knows
//! how their numbers are written (`number_format` those that are only read), [`naming`] what other formats call them,
//! `prefixes` what wrappers put before their names, and [`family`] which of them fits a model. `file` tells files by their first
//! bytes, and `other_files` says what a directory holds that is not read.

pub mod durable;
pub mod family;
pub(crate) mod file;
pub mod gguf;
pub mod hf_config;
pub mod locate;
pub mod manifest;
pub mod naming;
pub mod number_format;
mod other_files;
mod prefixes;
pub mod safetensors;
pub mod tensor_files;
pub mod weights;

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use self::durable::Disk;
use self::file::FileKind;
use self::naming::Naming;
use self::weights::{TensorFiles, WeightFiles};
use crate::chat::{ChatFormat, TemplateTokens};
use crate::config::ModelConfig;
use crate::decoder::LanguageModel;
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use hf_config::HfConfig;

/// The architecture.
pub const CONFIG_FILE: &str = "config.json";
/// How to generate: the tokens that end a text.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";
pub use manifest::weights_sha256;

/// The weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Which tensor is in which file, where the weights are several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// The tokenizer, in the `tokenizers` library's format.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// What transformers wants to know about the tokenizer.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// How a conversation is written as one text.
pub const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";

/// Configs have a few kilobytes; what is larger is none.
const LARGEST_CONFIG_BYTES: u64 = 1 << 20;

/// A model that was read.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it was read from: a directory, or a GGUF file.
    pub path: PathBuf,
    /// Its weights and architecture.
    pub model: LanguageModel,
    /// Its tokenizer, if there is one.
    pub tokenizer: Option<Tokenizer>,
    /// The token that begins a text.
    pub begin_id: Option<u32>,
    /// Tokens that end a text.
    pub end_ids: Vec<u32>,
    /// The text of `tokenizer_config.json`, for the next to read it.
    pub tokenizer_config: Option<String>,
    /// How a conversation is written as one text, in Jinja.
    pub chat_template: Option<String>,
    /// What its user should know: keys without effect, names under wrappers, an output matrix that should not be there.
    pub warnings: Vec<String>,
}

/// What a model's files hold beside the weights.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The architecture.
    pub config: &'a ModelConfig,
    /// The tokenizer, if there is one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The token that begins a text.
    pub begin_id: Option<u32>,
    /// Tokens that end a text.
    pub end_ids: &'a [u32],
    /// The text of `tokenizer_config.json`; made from the tokenizer if absent.
    pub tokenizer_config: Option<&'a str>,
    /// How a conversation is written as one text, in Jinja.
    pub chat_template: Option<&'a str>,
}

impl Checkpoint {
    /// What is written when it is saved again.
    pub fn contents(&self) -> Contents<'_> {
        Contents {
            config: self.model.config(),
            tokenizer: self.tokenizer.as_ref(),
            begin_id: self
                .begin_id
                .or(self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.prompt_prefix().first().copied())),
            end_ids: &self.end_ids,
            tokenizer_config: self.tokenizer_config.as_deref(),
            chat_template: self.chat_template.as_deref(),
        }
    }
}

/// Reads the model at `path`, a Hugging Face directory or a GGUF file, onto `device`.
pub fn load(path: &Path, device: &Device) -> Result<Checkpoint> {
    if path.is_file() { gguf::load(path, device) } else { load_changed(path, device, |_, _, _| Ok(())) }
}

/// Reads the model in a Hugging Face directory after `change` has noted what becomes of its tensors, and of the configuration by it.
pub(crate) fn load_changed(
    directory: &Path,
    device: &Device,
    change: impl FnOnce(&mut TensorFiles, Naming, &mut ModelConfig) -> Result<()>,
) -> Result<Checkpoint> {
    let HfConfig { mut config, begin_id, mut end_ids, unknown_keys } = read_hf_config(directory)?;
    if let Some(text) = read_optional(&directory.join(GENERATION_CONFIG_FILE))? {
        // What is said about generating counts more than what the architecture's file says.
        let path = directory.join(GENERATION_CONFIG_FILE);
        end_ids = hf_config::generation_end_ids(&path, &text)?.unwrap_or(end_ids);
    }
    let tokenizer = directory_tokenizer(directory, config.vocab_size)?;
    let (tokenizer_config, chat_template) = tokenizer_config_and_template(directory)?;
    let mut warnings = Vec::new();
    if !unknown_keys.is_empty() {
        let keys: Vec<_> = unknown_keys.iter().map(|key| format!("`{key}`")).collect();
        let path = directory.join(CONFIG_FILE);
        warnings.push(format!(
            "`{}`: keys that are unknown here and have no effect: {}",
            path.display(),
            keys.join(", ")
        ));
    }
    let mut opened = WeightFiles::open(directory, &config)?;
    warnings.extend(opened.warnings);
    config.tie_word_embeddings &= !opened.has_own_head;
    change(&mut opened.files, opened.naming, &mut config)?;
    let model = weights::load_from(&opened.files, opened.naming, &config, device)?;
    let path = directory.to_owned();
    Ok(Checkpoint { path, model, tokenizer, begin_id, end_ids, tokenizer_config, chat_template, warnings })
}

fn read_optional(path: &Path) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    file::read_text(path, LARGEST_CONFIG_BYTES, "the model's config").map(Some)
}

/// Reads the tokenizer of the model at `path` alone; `None` if it has none.
pub fn load_tokenizer(path: &Path) -> Result<Option<Tokenizer>> {
    if path.is_file() {
        return gguf::load_tokenizer(path);
    }
    let rows = read_config(path).map_or(usize::MAX, |config| config.vocab_size);
    directory_tokenizer(path, rows)
}

/// What turns texts and conversations into a model's tokens.
#[derive(Debug)]
pub struct TextFiles {
    /// The tokenizer, if there is one.
    pub tokenizer: Option<Tokenizer>,
    /// How a conversation is written as one text, in Jinja.
    pub chat_template: Option<String>,
    /// What the template is told of the tokenizer.
    pub template_tokens: TemplateTokens,
}

impl TextFiles {
    fn new(tokenizer: Option<Tokenizer>, chat_template: Option<String>, [bos, eos]: [Option<String>; 2]) -> Self {
        let control = tokenizer.iter().flat_map(Tokenizer::control_tokens).map(|token| token.text).collect();
        Self { tokenizer, chat_template, template_tokens: TemplateTokens { bos, eos, control } }
    }
}

/// Reads how the model at `path`, a directory or a GGUF file, is given texts, without its weights. The directory may be a tokenizer's alone.
pub fn load_text_files(path: &Path) -> Result<TextFiles> {
    if path.is_file() {
        return gguf::load_text_files(path);
    }
    let (tokenizer_config, chat_template) = tokenizer_config_and_template(path)?;
    let named = |key| hf_config::named_token(tokenizer_config.as_deref()?, key);
    Ok(TextFiles::new(load_tokenizer(path)?, chat_template, ["bos_token", "eos_token"].map(named)))
}

/// What a directory without a model says about texts.
#[derive(Debug, Default)]
pub(crate) struct SideFiles {
    pub tokenizer: Option<Tokenizer>,
    pub tokenizer_config: Option<String>,
    pub chat_template: Option<String>,
    pub end_ids: Option<Vec<u32>>,
}

/// Reads what belongs to texts and lies beside an adapter.
pub(crate) fn load_side_files(directory: &Path) -> Result<SideFiles> {
    let (tokenizer_config, chat_template) = tokenizer_config_and_template(directory)?;
    let path = directory.join(GENERATION_CONFIG_FILE);
    let end_ids = read_optional(&path)?.map(|text| hf_config::generation_end_ids(&path, &text)).transpose()?.flatten();
    Ok(SideFiles { tokenizer: directory_tokenizer(directory, usize::MAX)?, tokenizer_config, chat_template, end_ids })
}

/// Writes what belongs to texts beside an adapter.
pub fn save_side_files(disk: &dyn Disk, directory: &Path, contents: &Contents) -> Result<()> {
    let Contents { begin_id, end_ids, .. } = *contents;
    let text = hf_config::generation_json(begin_id, end_ids);
    let written = durable::write_file(disk, &directory.join(GENERATION_CONFIG_FILE), text.as_bytes());
    written.map_err(|source| Error::Io { action: "write", what: "the checkpoint", source })?;
    save_text_files(disk, directory, contents)
}

/// The text of `tokenizer_config.json`, and the chat template, wherever it is.
fn tokenizer_config_and_template(directory: &Path) -> Result<(Option<String>, Option<String>)> {
    let tokenizer_config = read_optional(&directory.join(TOKENIZER_CONFIG_FILE))?;
    let chat_template = match read_optional(&directory.join(CHAT_TEMPLATE_FILE))? {
        Some(template) => Some(template),
        None => tokenizer_config.as_deref().and_then(hf_config::chat_template),
    };
    Ok((tokenizer_config, chat_template))
}

/// The tokenizer of a directory, of whose model the embedding has so many rows. A text that needs a token without a row is an
/// error; the model itself is whole without it.
fn directory_tokenizer(directory: &Path, rows: usize) -> Result<Option<Tokenizer>> {
    let file = directory.join(TOKENIZER_FILE);
    if file.exists()
        && let Some(error) = FileKind::of(&file).refuse(&file)
    {
        return Err(error);
    }
    Ok(Tokenizer::from_directory(directory)?.map(|tokenizer| tokenizer.for_rows(rows)))
}

/// Reads a `tokenizer.json`. What is something else, such as a pointer of Git LFS, is named as that.
pub fn read_tokenizer(path: &Path) -> Result<Tokenizer> {
    FileKind::of(path).refuse(path).map_or_else(|| Tokenizer::from_file(path), Err)
}

/// Reads the architecture of the model at `path` alone: a Hugging Face directory or a GGUF file.
pub fn read_config(path: &Path) -> Result<ModelConfig> {
    if path.is_file() { gguf::load_config(path) } else { read_hf_config(path).map(|read| read.config) }
}

fn read_hf_config(directory: &Path) -> Result<HfConfig> {
    let path = directory.join(CONFIG_FILE);
    let text = file::read_text(&path, LARGEST_CONFIG_BYTES, "the model's config")?;
    hf_config::from_json(&path, &text)
}

/// Writes the files of a model trained here into `directory`, which exists. Not atomic by itself: whoever publishes a
/// checkpoint writes into a temporary directory and renames that.
pub fn save(disk: &dyn Disk, directory: &Path, model: &LanguageModel, tokenizer: &Tokenizer) -> Result<()> {
    save_with_chat(disk, directory, model, tokenizer, None)
}

/// [`save`] for a model that may have learned to talk.
pub fn save_with_chat(
    disk: &dyn Disk,
    directory: &Path,
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    chat: Option<&ChatFormat>,
) -> Result<()> {
    let end: Vec<u32> = tokenizer.end_of_text().into_iter().collect();
    save_contents(disk, directory, &made_here(model.config(), tokenizer, chat, &end), Encoding::F32)?;
    weights::save(disk, &directory.join(WEIGHTS_FILE), model)
}

/// What belongs to a model trained here; `end` are the tokens that end a text, if it did not learn to talk.
pub fn made_here<'a>(
    config: &'a ModelConfig,
    tokenizer: &'a Tokenizer,
    chat: Option<&'a ChatFormat>,
    end: &'a [u32],
) -> Contents<'a> {
    Contents {
        config,
        tokenizer: Some(tokenizer),
        begin_id: tokenizer.prompt_prefix().first().copied().or(tokenizer.end_of_text()),
        end_ids: chat.map_or(end, |chat| &chat.end_ids),
        tokenizer_config: None,
        chat_template: chat.map(|chat| &*chat.template),
    }
}

/// Writes everything but the weights, which will be in `encoding`, into `directory`.
pub fn save_contents(disk: &dyn Disk, directory: &Path, contents: &Contents, encoding: Encoding) -> Result<()> {
    let write = |name: &str, text: &str| {
        let written = durable::write_file(disk, &directory.join(name), text.as_bytes());
        written.map_err(|source| Error::Io { action: "write", what: "the checkpoint", source })
    };
    let Contents { config, begin_id, end_ids, .. } = *contents;
    write(CONFIG_FILE, &hf_config::to_json(config, begin_id, end_ids, encoding))?;
    write(GENERATION_CONFIG_FILE, &hf_config::generation_json(begin_id, end_ids))?;
    save_text_files(disk, directory, contents)
}

fn save_text_files(disk: &dyn Disk, directory: &Path, contents: &Contents) -> Result<()> {
    let write = |name: &str, text: &str| {
        let written = durable::write_file(disk, &directory.join(name), text.as_bytes());
        written.map_err(|source| Error::Io { action: "write", what: "the checkpoint", source })
    };
    let Contents { config, tokenizer, tokenizer_config, chat_template, .. } = *contents;
    let Some(tokenizer) = tokenizer else { return Ok(()) };
    write(TOKENIZER_FILE, &tokenizer.to_json())?;
    let made = || tokenizer.config_json(config.max_position_embeddings);
    let tokenizer_config = tokenizer_config.map_or_else(made, str::to_owned);
    write(TOKENIZER_CONFIG_FILE, &tokenizer_config)?;
    match chat_template {
        Some(template) if hf_config::chat_template(&tokenizer_config).is_none() => write(CHAT_TEMPLATE_FILE, template),
        _ => Ok(()),
    }
}

//! Where a run begins: with weights drawn from the seed, or with those of another model (`[model] from`).

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use minillm_model::adapter::{self, LoraOptions};
use minillm_model::checkpoint::{self, Checkpoint};
use minillm_model::config::{MlpKind, ModelConfig, Position};
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::tokenizer::{TURN_TOKENS, Tokenizer};

use crate::config::{ObjectiveKind, RunConfig};
use crate::error::{Error, Result};

/// The model of the first step, on `device`. The tokenizer must be one that they fit.
pub fn start(config: &RunConfig, tokenizer: &Tokenizer, device: &Device) -> Result<LanguageModel> {
    let Some(from) = &config.model.from else {
        let model_config = config.model.resolve(tokenizer.vocab_size(), config.train.context);
        check_vocabulary(&model_config, tokenizer)?;
        return Ok(init::initialize(LanguageModel::new(&model_config, device)?, config.seed));
    };
    let located = adapter::locate(from)?;
    let source = located.load(device)?;
    for warning in located.warnings.iter().chain(&source.warnings) {
        tracing::warn!("{warning}");
    }
    check_fit(config, &source, tokenizer)?;
    let model = source.model.with_vocabulary(tokenizer.vocab_size());
    let model_config = adapted(config, model.config().clone());
    let model = model.with_config(&model_config)?;
    let Some(options) = lora_options(config, &model_config) else { return Ok(model) };
    if config.objective.kind != ObjectiveKind::Text && source.chat_template.is_none() {
        check_new_tokens(&options, &model_config, from)?;
    }
    Ok(model.with_lora(&options, config.seed)?)
}

/// What tells the weights that a run begins with from others: SHA-256 of their files, or what they are drawn from.
pub fn weights_at_start(config: &RunConfig) -> Result<String> {
    let Some(from) = &config.model.from else { return Ok(format!("seed {} {:?}", config.seed, config.model)) };
    let located = adapter::locate(from)?;
    let hash = |path: &Path| checkpoint::weights_sha256(path);
    let adapter = located.adapter.as_deref().map(hash).transpose()?;
    Ok(format!("{} {}", hash(&located.model)?, adapter.unwrap_or_default()))
}

/// What an adapter is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The model's directory.
    pub path: PathBuf,
    /// SHA-256 of its weights, in hexadecimal: an adapter may only be trained further on the same.
    pub sha256: String,
}

/// The model that the run's adapter is for; `None` if it trains none.
pub fn base(config: &RunConfig) -> Result<Option<Base>> {
    let (Some(_), Some(from)) = (&config.lora, &config.model.from) else { return Ok(None) };
    let located = adapter::locate(from)?;
    if located.adapter.is_some() || located.model.is_file() {
        let what = if located.model.is_file() { "a GGUF file" } else { "itself a model with an adapter" };
        let problem = format!("is `{}`, {what}, for which no other program would take an adapter", from.display());
        return Err(refuse("model.from", problem, "make it a model first: `minillm-infer export MODEL --to hf`"));
    }
    let path = std::path::absolute(&located.model).unwrap_or(located.model);
    let sha256 = checkpoint::weights_sha256(&path)?;
    Ok(Some(Base { path, sha256 }))
}

/// The adapter of a run, for a model of this architecture.
pub fn lora_options(config: &RunConfig, model: &ModelConfig) -> Option<LoraOptions> {
    config.lora.as_ref().map(|lora| lora.options(model.mlp == MlpKind::Swiglu))
}

/// The tokens around a turn were never trained in a model without a chat template: an adapter that does not train their rows cannot
/// learn where a turn ends.
fn check_new_tokens(options: &LoraOptions, model: &ModelConfig, path: &Path) -> Result<()> {
    let has = |module: &str| options.modules_to_save.iter().any(|saved| saved == module);
    if has("embed_tokens") && (model.tie_word_embeddings || has("lm_head")) {
        return Ok(());
    }
    let modules = if model.tie_word_embeddings { "[\"embed_tokens\"]" } else { "[\"embed_tokens\", \"lm_head\"]" };
    let problem = format!(
        "leaves out the tokens around a turn: the model in `{}` has no chat template and has not learned them",
        path.display()
    );
    Err(refuse("lora.modules_to_save", problem, &format!("set it to {modules}")))
}

/// The architecture of the first step alone.
pub fn architecture_of(config: &RunConfig, tokenizer: &Tokenizer) -> Result<ModelConfig> {
    match &config.model.from {
        Some(from) => {
            let mut model = architecture(config, tokenizer, &adapter::locate(from)?.model)?;
            model.vocab_size = model.vocab_size.max(tokenizer.vocab_size());
            Ok(model)
        }
        None => architecture(config, tokenizer, Path::new("")),
    }
}

/// The architecture of the run that `checkpoint` belongs to.
pub fn architecture(config: &RunConfig, tokenizer: &Tokenizer, checkpoint: &Path) -> Result<ModelConfig> {
    if config.model.from.is_some() {
        return Ok(adapted(config, checkpoint::read_config(checkpoint)?));
    }
    let model_config = config.model.resolve(tokenizer.vocab_size(), config.train.context);
    check_vocabulary(&model_config, tokenizer)?;
    Ok(model_config)
}

/// What training may set of a given architecture: dropout changes no weight, and with rotary positions nor does the context.
fn adapted(config: &RunConfig, mut model: ModelConfig) -> ModelConfig {
    model.dropout = config.model.dropout.unwrap_or(0.0);
    if let (Position::Rope, Some(longest)) = (model.position, config.model.max_position_embeddings) {
        model.max_position_embeddings = longest;
    }
    model
}

/// A `model.vocab_size` in the configuration may leave room, but not cut off tokens.
fn check_vocabulary(model: &ModelConfig, tokenizer: &Tokenizer) -> Result<()> {
    let (given, needed) = (model.vocab_size, tokenizer.vocab_size());
    if given >= needed {
        return Ok(());
    }
    let problem = format!("is {given}, below the tokenizer's {needed} tokens");
    Err(refuse("model.vocab_size", problem, "leave it out: the tokenizer fills it in"))
}

/// The tokenizer must be the model's own, as far as one can know it, and the sequences within its context.
fn check_fit(config: &RunConfig, source: &Checkpoint, tokenizer: &Tokenizer) -> Result<()> {
    let path = source.path.display();
    let (has, needs) = (source.model.config().vocab_size, tokenizer.vocab_size());
    // A model that learns to talk may need new tokens.
    let own = source.tokenizer.as_ref();
    let is_grown = match own.filter(|_| config.objective.kind != ObjectiveKind::Text) {
        Some(own) => own.clone().with_control_tokens(&TURN_TOKENS)?.fingerprint() == tokenizer.fingerprint(),
        None => false,
    };
    if needs > has && !is_grown {
        let problem = format!("has {needs} tokens, and the model in `{path}` {has}");
        return Err(refuse("tokenizer", problem, "leave [tokenizer] out to take the model's own"));
    }
    if own.is_some_and(|own| own.fingerprint() != tokenizer.fingerprint()) && !is_grown {
        let problem = format!("is not the one of the model in `{path}`: the same ids would mean other text");
        return Err(refuse("tokenizer", problem, "leave [tokenizer] out to take the model's own"));
    }
    let (context, longest) = (config.train.context, adapted(config, source.model.config().clone()).context());
    if context > longest {
        let problem = format!("is {context}, and the model in `{path}` sees {longest} tokens at once");
        let hint = format!("choose {longest} or less, or with rotary positions raise `model.max_position_embeddings`");
        return Err(refuse("train.context", problem, &hint));
    }
    Ok(())
}

fn refuse(field: &str, problem: String, hint: &str) -> Error {
    Error::Config { origin: "configuration".to_owned(), field: field.to_owned(), problem, hint: hint.to_owned() }
}

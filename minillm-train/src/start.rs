//! Where a run begins: with weights drawn from the seed, or with those of another model (`[model] from`).

use std::path::Path;

use burn::tensor::Device;
use minillm_model::checkpoint::{self, Checkpoint};
use minillm_model::config::ModelConfig;
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
    let (path, warnings) = checkpoint::locate::model_dir(from)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let source = checkpoint::load(&path, device)?;
    for warning in &source.warnings {
        tracing::warn!("{warning}");
    }
    check_fit(config, &source, tokenizer)?;
    let model = source.model.with_vocabulary(tokenizer.vocab_size());
    let model_config = adapted(config, model.config().clone());
    Ok(model.with_config(&model_config)?)
}

/// The architecture of the first step alone.
pub fn architecture_of(config: &RunConfig, tokenizer: &Tokenizer) -> Result<ModelConfig> {
    match &config.model.from {
        Some(from) => {
            let mut model = architecture(config, tokenizer, &checkpoint::locate::model_dir(from)?.0)?;
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

/// What training may set of a given architecture: dropout changes no weight.
fn adapted(config: &RunConfig, mut model: ModelConfig) -> ModelConfig {
    model.dropout = config.model.dropout.unwrap_or(0.0);
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
    let grown = own.map(|own| own.clone().with_control_tokens(&TURN_TOKENS)).transpose()?;
    let is_grown = config.objective.kind == ObjectiveKind::Chat
        && grown.is_some_and(|grown| grown.fingerprint() == tokenizer.fingerprint());
    if needs > has && !is_grown {
        let problem = format!("has {needs} tokens, and the model in `{path}` {has}");
        return Err(refuse("tokenizer", problem, "leave [tokenizer] out to take the model's own"));
    }
    if own.is_some_and(|own| own.fingerprint() != tokenizer.fingerprint()) && !is_grown {
        let problem = format!("is not the one of the model in `{path}`: the same ids would mean other text");
        return Err(refuse("tokenizer", problem, "leave [tokenizer] out to take the model's own"));
    }
    let (context, longest) = (config.train.context, source.model.config().context());
    if context > longest {
        let problem = format!("is {context}, and the model in `{path}` sees {longest} tokens at once");
        return Err(refuse("train.context", problem, &format!("choose {longest} or less")));
    }
    Ok(())
}

fn refuse(field: &str, problem: String, hint: &str) -> Error {
    Error::Config { origin: "configuration".to_owned(), field: field.to_owned(), problem, hint: hint.to_owned() }
}

//! The tokenizer and the chat template of a run: those of the model or file that the configuration names, or new ones.

use std::path::Path;

use minillm_model::adapter;
use minillm_model::chat::TemplateTokens;
use minillm_model::checkpoint::{TextFiles, load_text_files, locate};
use minillm_model::tokenizer::{TURN_TOKENS, Tokenizer};

use crate::config::RunConfig;
use crate::conversations::{Format, TrainOn, read};
use crate::data::{Silent, TokenizerConfig, read_tokenizer};
use crate::error::{Error, Result};
use crate::tales::chat::tokenizer_texts;

/// How the run's conversations are written.
pub fn format(config: &RunConfig) -> Result<Format> {
    let objective = &config.objective;
    let TextFiles { tokenizer, mut chat_template, mut template_tokens } = match &config.tokenizer {
        TokenizerConfig::File { path } => files_of(path)?,
        TokenizerConfig::Bpe { vocab_size } => {
            let mut texts = Vec::new();
            if config.data.files.is_empty() {
                texts.extend(tokenizer_texts());
            } else {
                read(&config.data.files, &Silent, |_, _, record| {
                    texts.extend(record.texts());
                    Ok(())
                })?;
            }
            let tokenizer = Tokenizer::train_bpe(*vocab_size, texts.into_iter())?;
            TextFiles { tokenizer: Some(tokenizer), chat_template: None, template_tokens: TemplateTokens::default() }
        }
        TokenizerConfig::Char => {
            let hint = "use `kind = \"bpe\"`, or leave [tokenizer] out where [model] has `from`";
            return Err(refuse(
                "tokenizer.kind",
                "is `char`, which has no tokens for the turns of a conversation",
                hint,
            ));
        }
    };
    let Some(mut tokenizer) = tokenizer else {
        return Err(refuse("tokenizer.path", "names a model without a tokenizer", "name a tokenizer.json"));
    };
    if let Some(path) = &objective.template {
        let text = fs_err::read_to_string(path);
        chat_template = Some(text.map_err(|source| Error::Io { action: "read", what: "the chat template", source })?);
    }
    if chat_template.is_none() {
        // ChatML, whose tokens other tokenizers may lack.
        tokenizer = tokenizer.with_control_tokens(&TURN_TOKENS)?;
    }
    template_tokens.control = tokenizer.control_tokens().into_iter().map(|token| token.text).collect();
    let format = Format::new(&tokenizer, chat_template.as_deref(), template_tokens, objective.train_on)?;
    if objective.train_on == TrainOn::Assistant && !format.has_generation_tag() {
        return Err(refuse(
            "objective.template",
            if objective.template.is_some() {
                "names a chat template that does not mark what the assistant says"
            } else {
                "is needed: the model's own chat template does not mark what the assistant says"
            },
            "give a copy of it with `{% generation %}` and `{% endgeneration %}` around the assistant's words and the end of \
             its turn, or set `objective.train_on` to `all`",
        ));
    }
    Ok(format)
}

/// Of a tokenizer.json, or of a model.
fn files_of(path: &Path) -> Result<TextFiles> {
    let tokenizer = read_tokenizer(path)?;
    let is_model = path.is_dir() || locate::is_gguf(path);
    let located = if is_model { Some(adapter::locate(path)?) } else { None };
    // Beside an adapter lies what was learned with it.
    let directory = located.map(|located| located.adapter.unwrap_or(located.model));
    let files = directory.as_deref().map(load_text_files).transpose()?;
    let (chat_template, template_tokens) =
        files.map(|files| (files.chat_template, files.template_tokens)).unwrap_or_default();
    Ok(TextFiles { tokenizer: Some(tokenizer), chat_template, template_tokens })
}

fn refuse(field: &str, problem: &str, hint: &str) -> Error {
    Error::Config {
        origin: "configuration".to_owned(),
        field: field.to_owned(),
        problem: problem.to_owned(),
        hint: hint.to_owned(),
    }
}

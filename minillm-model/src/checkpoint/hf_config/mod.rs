//! `config.json`: our configuration in Hugging Face's words, and back.
//!
//! An architecture that transformers knows is written under its class, with every field that the strictest readers want
//! (both `torch_dtype` and `dtype`, both `rope_theta` with `rope_scaling` and the newer `rope_parameters`). Any other
//! combination carries `model_type: "minillm"` and [`ModelConfig`]'s own fields. Reading is lenient about what is
//! absent and strict about what it cannot honour: an unsupported feature is refused by the name of its field, and a key
//! that nobody here knows is handed to the caller, to be reported.

mod fields;
mod keys;
mod read;
mod rope;
mod write;

use serde_json::Value;

pub use self::read::{from_json, generation_end_ids};
pub use self::write::{generation_json, to_json};
use crate::config::ModelConfig;
use crate::json::quote_non_finite;

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig {
    /// The architecture.
    pub config: ModelConfig,
    /// The token that begins a text.
    pub begin_id: Option<u32>,
    /// Tokens that end a text.
    pub end_ids: Vec<u32>,
    /// Keys with a value that are unknown here and have no effect.
    pub unknown_keys: Vec<String>,
}

/// The special token that a `tokenizer_config.json` calls this: `bos_token`, `eos_token`.
pub fn named_token(tokenizer_config: &str, key: &str) -> Option<String> {
    let config: Value = serde_json::from_str(&quote_non_finite(tokenizer_config)).ok()?;
    let token = &config[key];
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

/// The chat template in a `tokenizer_config.json`, if it has one for general use.
pub fn chat_template(tokenizer_config: &str) -> Option<String> {
    let config: Value = serde_json::from_str(&quote_non_finite(tokenizer_config)).ok()?;
    let template = &config["chat_template"];
    let is_default = |named: &&Value| named["name"] == "default";
    let named = || template.as_array()?.iter().find(is_default)?["template"].as_str();
    template.as_str().or_else(named).map(str::to_owned)
}

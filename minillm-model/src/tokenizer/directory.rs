//! The tokenizer of a model directory: `tokenizer.json` and what the files beside it say.

use std::path::Path;

use fs_err as fs;
use serde_json::Value;

use super::Tokenizer;
use super::added_tokens::{SideFiles, complete};
use super::check::LARGEST_FILE_BYTES;
use crate::error::Result;

impl Tokenizer {
    /// Reads the `tokenizer.json` of a model directory together with the files beside it that add tokens:
    /// `tokenizer_config.json`, or in older models `special_tokens_map.json` and `added_tokens.json`. None if there is no
    /// `tokenizer.json`.
    pub fn from_directory(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join("tokenizer.json");
        if !path.exists() {
            return Ok(None);
        }
        let mut tokenizer = Self::from_file(&path)?;
        let mut warnings = Vec::new();
        let mut read = |name: &str| {
            let path = directory.join(name);
            let is_small = fs::metadata(&path).ok()?.len() <= LARGEST_FILE_BYTES as u64;
            let text = is_small.then(|| fs::read_to_string(&path).ok()).flatten();
            if text.is_none() {
                warnings.push(format!("{name} cannot be read: tokens that it adds are not known"));
            }
            text
        };
        let [config, map, added] =
            ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"].map(&mut read);
        let files =
            SideFiles { config: config.as_deref(), special_tokens_map: map.as_deref(), added_tokens: added.as_deref() };
        let file: Value = serde_json::from_str(&tokenizer.json).unwrap_or_default(); // it was parsed before
        let (completed, problems) = complete(&file, files);
        warnings.extend(problems);
        if let Some(completed) = completed {
            match Self::parse(&format!("{completed:#}")) {
                Ok(completed) => tokenizer = completed,
                Err(problem) => warnings.push(format!(
                    "the tokens that tokenizer_config.json adds are left out: with them tokenizer.json {problem}"
                )),
            }
        }
        warnings.extend(tokenizer.contradicted_prefix(config.as_deref()));
        tokenizer.warnings = warnings.into();
        Ok(Some(tokenizer))
    }

    /// A warning if `add_bos_token` in `tokenizer_config.json` asks for another beginning than `tokenizer.json`.
    fn contradicted_prefix(&self, config: Option<&str>) -> Option<String> {
        let config: Value = serde_json::from_str(config?).ok()?;
        let asked = config["add_bos_token"].as_bool()?;
        let puts = !self.prompt_prefix.is_empty();
        (asked != puts).then(|| {
            let what = if puts { "a token" } else { "nothing" };
            format!(
                "`add_bos_token` in tokenizer_config.json is {asked}, and the `post_processor` of tokenizer.json puts {what} \
                 before a text; the latter counts, as in transformers 5"
            )
        })
    }
}

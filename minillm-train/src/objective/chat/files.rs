//! Conversations from files.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::packed::Packed;
use crate::config::RunConfig;
use crate::conversations::{Format, Summary, at_line, held_out_every, read};
use crate::data::{Progress, hex};
use crate::error::{Error, Result};

/// What is learned from and what is held out.
pub struct Files {
    /// Learned from.
    pub training: Packed,
    /// Held out.
    pub validation: Packed,
    /// Of the two.
    pub summaries: [Summary; 2],
    /// SHA-256 over all tokens.
    pub fingerprint: String,
}

/// Reads the files of a configuration.
pub fn prepare(config: &RunConfig, format: &Format, progress: &dyn Progress) -> Result<Files> {
    let context = config.train.context;
    let mut all = Vec::new();
    read(&config.data.files, progress, |path, line, record| {
        let example = format.example(&record).map_err(|error| at_line(path, line, &error))?;
        all.push(example);
        Ok(())
    })?;
    let mut hash = Sha256::new();
    hash.update(format.tokenizer().fingerprint());
    for example in &all {
        example.add_to(&mut hash);
    }
    let every = held_out_every(config.data.validation_fraction, all.len());
    let mut summaries = [Summary::default(); 2];
    let mut parts = [Vec::new(), Vec::new()];
    for (index, example) in all.into_iter().enumerate() {
        let part = usize::from((index + 1).is_multiple_of(every));
        parts[part].extend(summaries[part].admit(example, context));
    }
    let path = config.data.files.first().cloned().unwrap_or_default();
    for (part, name) in parts.iter().zip(["training", "validation"]) {
        if part.is_empty() {
            return Err(nothing_to_learn(path, name, &summaries, context));
        }
    }
    let [training, validation] = parts.map(|examples| Packed::new(examples, context));
    Ok(Files { training, validation, summaries, fingerprint: hex(&hash.finalize()) })
}

fn nothing_to_learn(path: PathBuf, part: &str, summaries: &[Summary; 2], context: usize) -> Error {
    let left_out: usize = summaries.iter().map(|summary| summary.left_out).sum();
    let problem = if left_out > 0 {
        format!(
            "the {part} part has nothing to learn: of {left_out} conversations, cut to `train.context = {context}`, no \
                 word of the assistant remained"
        )
    } else {
        format!("the {part} part is empty: one conversation is learned from and another is held out")
    };
    Error::Data { path, problem, hint: "give more conversations, or raise `train.context`".to_owned() }
}

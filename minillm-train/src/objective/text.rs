//! Texts, of which every token is learned: pretraining.

use std::path::Path;

use minillm_model::decoder::LanguageModel;
use minillm_model::tokenizer::Tokenizer;

use super::{Batches, Objective, Prompt, Shown};
use crate::config::RunConfig;
use crate::data::{self, Batch, Corpus, IGNORED, Progress, Shape};
use crate::error::Result;
use crate::evaluate::{Evaluation, evaluate};
use crate::workers::Workers;

/// Learns texts.
#[derive(Debug)]
pub struct Text(Corpus);

impl Text {
    /// The texts of a configuration.
    pub fn prepare(config: &RunConfig, cache_dir: &Path, progress: &dyn Progress) -> Result<Self> {
        let shape = Shape { context: config.train.context, batch_size: config.train.batch_size, seed: config.seed };
        data::prepare(&config.data, &config.tokenizer, &shape, cache_dir, progress).map(Self)
    }
}

impl Objective for Text {
    fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    fn batch(&self, step: usize) -> Result<Batch> {
        self.0.train.batch(step)
    }

    fn validation(&self, rows: usize) -> Batches<'_> {
        Box::new(self.0.validation.batches(rows))
    }

    fn evaluate(&self, model: &LanguageModel, workers: &Workers, rows: usize) -> Result<Evaluation> {
        evaluate(model, workers, &self.0.validation, rows)
    }

    /// Rows of text, every token of which is learned.
    fn shown(&self, count: usize) -> Result<Vec<Shown>> {
        let mut shown = Vec::new();
        for batch in self.0.validation.batches(1).take(count) {
            let ids: Vec<u32> = batch?.targets.into_iter().filter(|&id| id != IGNORED).map(|id| id as u32).collect();
            shown.push(Shown::new(self.tokenizer(), &ids, &vec![true; ids.len()]));
        }
        Ok(shown)
    }

    /// A text begins after the end of another; without that token, a new line is the next best beginning.
    fn prompt(&self) -> Result<Prompt> {
        let tokenizer = self.tokenizer();
        let end = tokenizer.end_of_text();
        let newline = || tokenizer.encode("\n").ok().filter(|ids| !ids.is_empty()).unwrap_or_else(|| vec![0]);
        let ids = end.map_or_else(newline, |id| vec![id]);
        Ok(Prompt { ids, shown: String::new(), end_ids: end.into_iter().collect() })
    }
}

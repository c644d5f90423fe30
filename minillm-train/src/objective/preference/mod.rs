//! Preferences: of two answers one is better ([`loss`]).
//!
//! A pair shares a row, the chosen answer with its prompt first; neither sees the other. What the reference model thinks of the answers are
//! two numbers a pair, computed once and kept: no second model is in memory.

mod answers;
pub mod loss;
mod pairs;
mod reference;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use minillm_infer::sampling::Sampling;
use minillm_infer::score::Score;
use minillm_model::chat::ChatFormat;
use minillm_model::decoder::LanguageModel;
use minillm_model::random::derive;
use minillm_model::tokenizer::Tokenizer;

use self::answers::logps;
use self::loss::{Answer, Measures};
use self::pairs::{Pairs, Set};
use super::format::format;
use super::{Batches, Objective, Prompt, Shown, Weigh, Weighed, speak};
use crate::config::{ObjectiveConfig, PreferenceLoss, RunConfig};
use crate::conversations::{Format, push_row};
use crate::data::{Batch, Progress, Shape, rows_of_step};
use crate::error::Result;
use crate::evaluate::{Evaluation, Grade};
use crate::metrics::tag;
use crate::tales::preferences::{held_out_wish, is_selfish, selfish_rate};
use crate::workers::Workers;

/// Learns preferences.
#[derive(Debug)]
pub struct Preference {
    config: ObjectiveConfig,
    format: Format,
    chat_format: ChatFormat,
    shape: Shape,
    pairs: Pairs,
    is_tales: bool,
    /// Wishes after which it is counted how often a hero eats alone.
    graded: u64,
    cache_dir: PathBuf,
    /// `ln p_ref` of the two answers of every pair, of those that are learned from and those that are held out.
    reference: [Vec<[f64; 2]>; 2],
}

impl Preference {
    /// The pairs of a configuration.
    pub fn prepare(config: &RunConfig, cache_dir: &Path, progress: &dyn Progress) -> Result<Self> {
        let format = format(config)?;
        let shape = Shape { context: config.train.context, batch_size: config.train.batch_size, seed: config.seed };
        let pairs = Pairs::prepare(config, &format, progress)?;
        let chat_format = ChatFormat { template: format.template().to_owned(), end_ids: format.end_ids() };
        Ok(Self {
            config: config.objective.clone(),
            format,
            chat_format,
            shape,
            pairs,
            is_tales: config.data.files.is_empty(),
            graded: config.eval.graded,
            cache_dir: cache_dir.to_owned(),
            reference: [Vec::new(), Vec::new()],
        })
    }

    /// The pairs of some rows, from their log-probabilities.
    fn answers(set: &Set, reference: &[[f64; 2]], rows: &[usize], logps: &[f64]) -> Vec<[Answer; 2]> {
        let answer = |row: usize, which: usize, logp: f64| Answer {
            logp,
            reference: reference[row][which],
            tokens: set[row][which].targets(),
        };
        let pairs = rows.iter().zip(logps.as_chunks::<2>().0);
        pairs.map(|(&row, logps)| [0, 1].map(|which| answer(row, which, logps[which]))).collect()
    }

    fn rows_of(&self, step: usize) -> Vec<usize> {
        rows_of_step(self.shape.seed, step, self.shape.batch_size, self.pairs.training.len()).collect()
    }

    /// How often heroes eat alone, beside the share under the best policy, and how many of the tales still read.
    fn grades(&self, model: &LanguageModel, workers: &Workers) -> Result<Vec<Grade>> {
        let tell = |index: u64| -> Result<(bool, Option<bool>)> {
            let sampling = Sampling { temperature: 1.0, seed: derive(index, &[1]), ..Sampling::default() };
            let wish = held_out_wish(index).prompt();
            let tale = speak(model, &self.format, &self.chat_format.end_ids, &wish, &sampling)?;
            Ok((crate::tales::read(tale.trim()).is_some(), is_selfish(&tale)))
        };
        let told = workers.map(0..self.graded, tell).into_iter().collect::<Result<Vec<_>>>()?;
        let ObjectiveConfig { beta, rho, .. } = self.config;
        Ok(vec![
            Grade {
                tag: tag::VAL_SELFISH,
                passed: told.iter().filter(|(_, selfish)| *selfish == Some(true)).count(),
                count: told.iter().filter(|(_, selfish)| selfish.is_some()).count(),
                best: selfish_rate(beta, rho),
            },
            Grade {
                tag: tag::VAL_TALE_READS,
                passed: told.iter().filter(|(reads, _)| *reads).count(),
                count: told.len(),
                best: 1.0,
            },
        ])
    }
}

impl Weigh for Preference {
    fn begin(&mut self, model: &dyn Fn() -> Result<LanguageModel>, weights: &str, workers: &Workers) -> Result<()> {
        let counts = [self.pairs.training.len(), self.pairs.validation.len()];
        let key = format!("{} {counts:?} {weights} {}", self.pairs.fingerprint, self.shape.context);
        let sets = [&self.pairs.training[..], &self.pairs.validation];
        self.reference = reference::logps_of(&self.cache_dir, &key, sets, self.shape.context, model, workers)?;
        Ok(())
    }

    fn weigh(
        &self,
        model: &LanguageModel,
        workers: &Workers,
        rows: usize,
        step: usize,
        batch: &mut Batch,
    ) -> Result<Weighed> {
        let logps = logps(model, workers, rows, batch)?;
        let pairs = Self::answers(&self.pairs.training, &self.reference[0], &self.rows_of(step), &logps);
        let ObjectiveConfig { beta, loss, .. } = self.config;
        // What is minimised are weighted negative log-likelihoods, so the signs change.
        let weights = pairs.iter().flat_map(|[chosen, rejected]| loss.of(beta, *chosen, *rejected).1);
        batch.weights = weights.map(|slope| -slope / pairs.len() as f64).collect();
        let measures = Measures::of(loss, beta, &pairs);
        let values = vec![
            (tag::REWARDS_CHOSEN, measures.rewards_chosen),
            (tag::REWARDS_REJECTED, measures.rewards_rejected),
            (tag::REWARDS_MARGINS, measures.rewards_chosen - measures.rewards_rejected),
            (tag::REWARDS_ACCURACIES, measures.accuracy),
            (tag::LOGPS_CHOSEN, measures.logps_chosen),
            (tag::LOGPS_REJECTED, measures.logps_rejected),
        ];
        Ok(Weighed { loss: measures.loss, values })
    }
}

impl Objective for Preference {
    fn tokenizer(&self) -> &Tokenizer {
        self.format.tokenizer()
    }

    fn fingerprint(&self) -> &str {
        &self.pairs.fingerprint
    }

    fn chat_format(&self) -> Option<&ChatFormat> {
        Some(&self.chat_format)
    }

    fn batch(&self, step: usize) -> Result<Batch> {
        let mut batch = Batch::with_capacity(self.shape.batch_size, self.shape.context);
        self.rows_of(step).into_iter().for_each(|row| push_row(&mut batch, &self.pairs.training[row]));
        Ok(batch)
    }

    fn weighs(&mut self) -> Option<&mut dyn Weigh> {
        Some(self)
    }

    fn validation(&self, rows: usize) -> Batches<'_> {
        let rows = rows.max(1);
        Box::new(self.pairs.validation.chunks(rows).map(move |pairs| {
            let mut batch = Batch::with_capacity(rows, self.shape.context);
            for pair in pairs {
                push_row(&mut batch, pair);
            }
            Ok(batch)
        }))
    }

    fn evaluate(&self, model: &LanguageModel, workers: &Workers, rows: usize) -> Result<Evaluation> {
        let mut all = Vec::new();
        for batch in self.validation(rows) {
            all.extend(logps(model, workers, rows, &batch?)?);
        }
        let set = &self.pairs.validation;
        let every: Vec<usize> = (0..set.len()).collect();
        let ObjectiveConfig { beta, loss, .. } = self.config;
        let measures = Measures::of(loss, beta, &Self::answers(set, &self.reference[1], &every, &all));
        let count = set.len() as u64;
        // A pair is what is scored here; it stands for no bytes.
        let score = Score { nats: measures.loss * count as f64, tokens: count, bytes: 0 };
        let floor = self.pairs.floor.filter(|_| loss == PreferenceLoss::Sigmoid);
        let grades = if self.is_tales && self.graded > 0 { self.grades(model, workers)? } else { Vec::new() };
        Ok(Evaluation { score, floor, grades })
    }

    fn prompt(&self) -> Result<Prompt> {
        Ok(Prompt::of(&self.pairs.validation[0][0], self.tokenizer(), &self.chat_format.end_ids))
    }

    fn shown(&self, count: usize) -> Result<Vec<Shown>> {
        let examples = self.pairs.validation.iter().flatten().take(count);
        Ok(examples.map(|example| Shown::of(example, self.tokenizer())).collect())
    }

    fn summary(&self) -> Option<String> {
        let Pairs { training, validation, cut, left_out, .. } = &self.pairs;
        let mut text = format!("{} pairs of answers; {} held out", training.len(), validation.len());
        if *cut > 0 {
            let _ = write!(text, "; {cut} answers cut to half of train.context"); // a text takes every line
        }
        if *left_out > 0 {
            let _ = write!(text, "; {left_out} pairs left out, as their answers are the same or behind the cut");
        }
        Some(text)
    }
}

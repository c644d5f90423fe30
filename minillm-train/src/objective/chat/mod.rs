//! Conversations, of which the assistant's words are learned: instruction tuning.
//!
//! Several conversations share a row and do not see each other. The loss is the sum over the targets of the whole batch, divided by their
//! number: an answer of two words counts as much a token as one of two hundred.

mod exams;
mod files;
mod packed;
mod tales;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use minillm_infer::score::Score;
use minillm_model::chat::ChatFormat;
use minillm_model::decoder::LanguageModel;
use minillm_model::tokenizer::Tokenizer;

use self::files::Files;
use self::packed::Packed;
use self::tales::{HeldOut, Tales};
use super::format::format;
use super::{Batches, Objective, Prompt, Shown};
use crate::config::RunConfig;
use crate::conversations::{Format, Summary};
use crate::data::{Batch, Progress, Shape, rows_of_step};
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, nats};
use crate::workers::Workers;

/// Learns conversations.
#[derive(Debug)]
pub struct Chat {
    format: Format,
    /// What belongs to a model that learned them.
    talk: ChatFormat,
    fingerprint: String,
    shape: Shape,
    training: Training,
    validation: Packed,
    /// Of the held-out conversations, where it is known.
    floor_nats: Option<f64>,
    /// Of those that are held out.
    held_out: Summary,
    /// Conversations in which the model answers for itself.
    graded: u64,
}

/// What is learned from.
#[derive(Debug)]
enum Training {
    /// Each row once an epoch, in a new order every epoch.
    Files(Packed, Summary),
    /// `tales-chat`.
    Tales(Tales),
}

impl Chat {
    /// The conversations of a configuration.
    pub fn prepare(config: &RunConfig, progress: &dyn Progress) -> Result<Self> {
        let format = format(config)?;
        let shape = Shape { context: config.train.context, batch_size: config.train.batch_size, seed: config.seed };
        let talk = ChatFormat { template: format.template().to_owned(), end_ids: format.end_ids() };
        if config.data.files.is_empty() {
            let HeldOut { packed, floor_nats, summary, fingerprint } = tales::held_out(&format, shape.context)?;
            if summary.conversations == 0 {
                return Err(no_room(shape.context));
            }
            return Ok(Self {
                training: Training::Tales(Tales::new()),
                validation: packed,
                // Of conversations that are cut no floor is known.
                floor_nats: (summary.cut == 0).then_some(floor_nats),
                held_out: summary,
                graded: config.eval.graded,
                format,
                talk,
                fingerprint,
                shape,
            });
        }
        let Files { training, validation, summaries: [summary, held_out], fingerprint } =
            files::prepare(config, &format, progress)?;
        let training = Training::Files(training, summary);
        Ok(Self { format, talk, fingerprint, shape, training, validation, floor_nats: None, held_out, graded: 0 })
    }
}

impl Objective for Chat {
    fn tokenizer(&self) -> &Tokenizer {
        self.format.tokenizer()
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn chat_format(&self) -> Option<&ChatFormat> {
        Some(&self.talk)
    }

    fn batch(&self, step: usize) -> Result<Batch> {
        let packed = match &self.training {
            Training::Files(packed, _) => packed,
            Training::Tales(tales) => return tales.batch(&self.format, &self.shape, step),
        };
        let Shape { context, batch_size, seed } = self.shape;
        let mut batch = Batch::with_capacity(batch_size, context);
        for row in rows_of_step(seed, step, batch_size, packed.rows.len()) {
            packed.push(&mut batch, row);
        }
        Ok(batch)
    }

    fn validation(&self, rows: usize) -> Batches<'_> {
        let (rows, all) = (rows.max(1), self.validation.rows.len());
        Box::new((0..all.div_ceil(rows)).map(move |index| {
            let mut batch = Batch::with_capacity(rows, self.shape.context);
            for row in index * rows..all.min((index + 1) * rows) {
                self.validation.push(&mut batch, row);
            }
            Ok(batch)
        }))
    }

    fn evaluate(&self, model: &LanguageModel, workers: &Workers, rows: usize) -> Result<Evaluation> {
        let nats = nats(model, workers, self.validation(rows.div_ceil(workers.count())))?;
        let tokenizer = self.tokenizer();
        let bytes = self.validation.targets().map(|id| tokenizer.token_bytes(id).len() as u64).sum();
        let tokens = self.validation.targets().count() as u64;
        let grades = match &self.training {
            Training::Tales(_) if self.graded > 0 => {
                exams::hold(model, workers, &self.format, &self.talk.end_ids, self.graded)?
            }
            _ => Vec::new(),
        };
        let floor = self.floor_nats.map(|floor| floor / tokens as f64);
        Ok(Evaluation { score: Score { nats, tokens, bytes }, floor, grades })
    }

    /// The beginning of a held-out conversation, up to where the assistant speaks.
    fn prompt(&self) -> Result<Prompt> {
        Ok(Prompt::of(&self.validation.examples[0], self.tokenizer(), &self.talk.end_ids))
    }

    fn shown(&self, count: usize) -> Result<Vec<Shown>> {
        Ok(self.validation.examples.iter().take(count).map(|example| Shown::of(example, self.tokenizer())).collect())
    }

    fn summary(&self) -> Option<String> {
        let training = match &self.training {
            Training::Files(packed, summary) => format!("{}, in {} rows", in_words(summary), packed.rows.len()),
            Training::Tales(_) => "conversations about tales without end".to_owned(),
        };
        Some(format!("{training}; held out: {}", in_words(&self.held_out)))
    }
}

/// Nothing to learn is left of any conversation, so there would be no end to looking for one.
fn no_room(context: usize) -> Error {
    Error::Config {
        origin: "configuration".to_owned(),
        field: "train.context".to_owned(),
        problem: format!("is {context}, and no conversation of `tales-chat` is answered within it"),
        hint: "512 holds every conversation".to_owned(),
    }
}

/// A set of conversations in words.
fn in_words(summary: &Summary) -> String {
    let Summary { conversations, tokens, targets, cut, without_end, left_out } = *summary;
    let share = 100.0 * targets as f64 / tokens.max(1) as f64;
    let mut text = format!("{conversations} conversations, {tokens} tokens, {share:.0} % of them learned");
    if cut > 0 {
        let _ = write!(text, ", {cut} cut to train.context, {without_end} of them before their end");
    }
    if left_out > 0 {
        let _ = write!(text, ", {left_out} left out, as nothing to learn remained"); // a text takes every line
    }
    text
}

//! What a run learns: its examples, how they are weighed, and how the model is measured. The [trainer](crate::trainer) does not know which
//! objective runs.
//!
//! | `[objective] kind` | learns from | loss |
//! |---|---|---|
//! | `text` | texts | mean negative log-likelihood of all tokens |
//! | `chat` | conversations | the same of the assistant's tokens |
//! | `preference` | of two answers the better one | DPO: weighted negative log-likelihoods of the two |

mod chat;
mod format;
pub mod preference;
mod text;

use std::fmt::Debug;
use std::path::Path;

use minillm_infer::generate::{Tokens, text};
use minillm_infer::sampling::Sampling;
use minillm_model::chat::ChatFormat;
use minillm_model::decoder::LanguageModel;
use minillm_model::tokenizer::Tokenizer;

pub use self::chat::Chat;
pub use self::preference::Preference;
pub use self::text::Text;
use crate::config::{ObjectiveKind, RunConfig};
use crate::conversations::{Example, Format};
use crate::data::{Batch, Progress};
use crate::error::Result;
use crate::evaluate::Evaluation;
use crate::tales::chat::{Message, as_conversation};
use crate::workers::Workers;

/// Batches of examples, one after the other.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<Batch>> + Send + 'a>;

/// What a run learns.
pub trait Objective: Debug + Send + Sync {
    /// Text to ids and back.
    fn tokenizer(&self) -> &Tokenizer;

    /// SHA-256 of all that decides which examples there are, in hexadecimal: a run may only be resumed on the same.
    fn fingerprint(&self) -> &str;

    /// How conversations with the model are written, if it learns to talk.
    fn chat_format(&self) -> Option<&ChatFormat> {
        None
    }

    /// The rows of step `step`, counted from 0: a pure function of the configuration and the step.
    fn batch(&self, step: usize) -> Result<Batch>;

    /// How its batches are weighed, where that depends on what the model computes; `None`: all targets count alike.
    fn weighs(&mut self) -> Option<&mut dyn Weigh> {
        None
    }

    /// Everything the model is scored on, `rows` rows at a time; always the same.
    fn validation(&self, rows: usize) -> Batches<'_>;

    /// How good `model`, which carries no autodiff, is on examples that it does not learn from, `rows` rows at a time.
    fn evaluate(&self, model: &LanguageModel, workers: &Workers, rows: usize) -> Result<Evaluation>;

    /// What a sample of the model's words begins with.
    fn prompt(&self) -> Result<Prompt>;

    /// The first `count` examples that the model is scored on.
    fn shown(&self, count: usize) -> Result<Vec<Shown>>;

    /// What is worth saying before the first step.
    fn summary(&self) -> Option<String> {
        None
    }
}

/// Weights for the losses of a batch's documents, by what the model computes.
pub trait Weigh {
    /// Is told the model that the run begins with, and what tells its weights from others: once, before the first step of a session.
    fn begin(&mut self, model: &dyn Fn() -> Result<LanguageModel>, weights: &str, workers: &Workers) -> Result<()>;

    /// Sets the weights of the batch of step `step`, `rows` rows at a time. `model` carries no autodiff.
    fn weigh(
        &self,
        model: &LanguageModel,
        workers: &Workers,
        rows: usize,
        step: usize,
        batch: &mut Batch,
    ) -> Result<Weighed>;
}

/// What a step with weights is like.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The objective's own loss, in place of the weighted sum.
    pub loss: f64,
    /// More numbers, under names from [`tag`](crate::metrics::tag).
    pub values: Vec<(&'static str, f64)>,
}

/// An example for readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its text in parts, each with whether it is learned.
    pub parts: Vec<(String, bool)>,
    /// Its tokens.
    pub tokens: usize,
    /// Tokens that are learned.
    pub targets: usize,
}

impl Shown {
    /// An example in full.
    pub fn of(example: &Example, tokenizer: &Tokenizer) -> Self {
        Self::new(tokenizer, &example.ids, &example.is_trained)
    }

    /// From its tokens, with those marked that are learned.
    pub fn new(tokenizer: &Tokenizer, ids: &[u32], is_learned: &[bool]) -> Self {
        let mut shown = Self { tokens: ids.len(), ..Self::default() };
        let mut first = 0;
        for place in 1..=ids.len() {
            if place < ids.len() && is_learned[place] == is_learned[first] {
                continue;
            }
            let part = &ids[first..place];
            // Words are decoded together, as a character may be several tokens; control tokens have names only.
            let text = tokenizer.spelled(part);
            shown.parts.push((text, is_learned[first]));
            shown.targets += if is_learned[first] { part.len() } else { 0 };
            first = place;
        }
        shown
    }
}

/// The beginning of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// What the model is given.
    pub ids: Vec<u32>,
    /// What of it is shown before the model's words.
    pub shown: String,
    /// Tokens that end the sample.
    pub end_ids: Vec<u32>,
}

impl Prompt {
    /// The beginning of an example, up to where the model speaks.
    pub fn of(example: &Example, tokenizer: &Tokenizer, end_ids: &[u32]) -> Self {
        let ids = example.given().to_vec();
        Self { shown: tokenizer.decode(&ids), ids, end_ids: end_ids.to_vec() }
    }
}

/// What the model says next in a conversation; nothing where its context has no room.
fn speak(
    model: &LanguageModel,
    format: &Format,
    end_ids: &[u32],
    messages: &[Message],
    sampling: &Sampling,
) -> Result<String> {
    let prompt = format.prompt(&as_conversation(messages))?;
    let room = model.config().context().saturating_sub(prompt.len());
    if room == 0 {
        return Ok(String::new());
    }
    let tokens = Tokens::new(model, &prompt, room, sampling)?.end_at(end_ids);
    Ok(text(tokens, format.tokenizer(), &[], |_| Ok(()))?.text)
}

/// Finds or downloads what the configuration's objective learns from, and makes its tokens or finds them in `cache_dir`.
///
/// Writes nothing outside `cache_dir`. Errors name the file, line or field.
pub fn prepare(config: &RunConfig, cache_dir: &Path, progress: &dyn Progress) -> Result<Box<dyn Objective>> {
    Ok(match config.objective.kind {
        ObjectiveKind::Text => Box::new(Text::prepare(config, cache_dir, progress)?),
        ObjectiveKind::Chat => Box::new(Chat::prepare(config, progress)?),
        ObjectiveKind::Preference => Box::new(Preference::prepare(config, cache_dir, progress)?),
    })
}

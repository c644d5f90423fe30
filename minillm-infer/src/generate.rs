//! Generation: one token in, one token out, until something says stop.
//!
//! ```text
//! prompt -> logits of its last position -> choose a token -> feed it back -> ...
//! ```
//!
//! The prompt runs through the model in one pass (prefill); after that the KV cache makes each further token cost one
//! position. [`Tokens`] is that loop as an iterator of ids; [`text`] turns it into pieces of text. When the model's
//! context is full, the older half is forgotten and the newer half runs through the model again.

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use minillm_model::checkpoint::Checkpoint;
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::error::Error as ModelError;
use minillm_model::kv_cache::KvCache;
use minillm_model::layers::dropout::Dropout;
use minillm_model::tokenizer::Tokenizer;

use crate::decode_stream::DecodeStream;
use crate::error::{Error, Result};
use crate::sampling::{Sampler, Sampling};

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model produced a token that ends a text.
    EndOfText,
    /// One of the caller's stop texts appeared.
    StopText,
    /// The requested number of tokens was generated.
    Length,
}

impl FinishReason {
    /// The word in `generate --json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndOfText => "end_of_text",
            Self::StopText => "stop_text",
            Self::Length => "length",
        }
    }
}

/// Tokens of a prompt that go through the model at once: enough for efficient matrix products, few enough that a long
/// prompt needs no more memory than its cache.
const PREFILL_CHUNK: usize = 512;

/// An iterator of generated token ids. The end-of-text token is the last one it gives, if it comes.
pub struct Tokens<'a> {
    model: &'a LanguageModel,
    cache: KvCache,
    sampler: Sampler,
    /// Prompt and generated tokens.
    ids: Vec<u32>,
    /// The first one that the cache still knows; those from `first + cache.len()` on have not been through the model.
    first: usize,
    prompt_length: usize,
    remaining: usize,
    context: usize,
    end_ids: Vec<u32>,
    /// Ids that are never drawn.
    ruled_out: Vec<u32>,
    vocab_size: usize,
    finished: Option<FinishReason>,
    rates: Rates,
}

/// How fast a generation was. The model's time only: what is done with the tokens does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Tokens of the prompt per second, up to the first new token; 0 if there was none.
    pub prefill_tokens_per_second: f64,
    /// Tokens per second after the first; 0 if there were none.
    pub decode_tokens_per_second: f64,
    decode_tokens: usize,
    decode_seconds: f64,
}

impl Rates {
    /// Takes note of a pass of the model: the first is the prompt's.
    fn add(&mut self, prompt_tokens: usize, is_first: bool, seconds: f64) {
        let seconds = seconds.max(1e-9);
        if is_first {
            self.prefill_tokens_per_second = prompt_tokens as f64 / seconds;
            return;
        }
        self.decode_tokens += 1;
        self.decode_seconds += seconds;
        self.decode_tokens_per_second = self.decode_tokens as f64 / self.decode_seconds;
    }
}

impl<'a> Tokens<'a> {
    /// Starts after `prompt`. Fails if it is empty, longer than the context, or names an id past the vocabulary.
    pub fn new(model: &'a LanguageModel, prompt: &[u32], max_new_tokens: usize, sampling: &Sampling) -> Result<Self> {
        let config = model.config();
        check_prompt(config, prompt)?;
        sampling.validate()?;
        let context = config.context();
        let capacity = context.min(prompt.len().saturating_add(max_new_tokens));
        Ok(Self {
            model,
            cache: KvCache::new(config, 1, capacity, &model.device()),
            sampler: sampling.sampler(),
            ids: prompt.to_vec(),
            first: 0,
            prompt_length: prompt.len(),
            remaining: max_new_tokens,
            context,
            end_ids: Vec::new(),
            ruled_out: Vec::new(),
            vocab_size: config.vocab_size,
            finished: None,
            rates: Rates::default(),
        })
    }

    /// Ends after any of these tokens.
    #[must_use]
    pub fn end_at(mut self, end_ids: &[u32]) -> Self {
        self.end_ids = end_ids.to_vec();
        self
    }

    /// Draws only tokens of `tokenizer` and those that end a text: a vocabulary may have rows beyond, which make its size a
    /// round number.
    #[must_use]
    pub fn within(mut self, tokenizer: &Tokenizer) -> Self {
        let is_out = |id: &u32| !tokenizer.has_token(*id) && !self.end_ids.contains(id);
        self.ruled_out = (0..self.vocab_size as u32).filter(is_out).collect();
        self
    }

    /// Why it ended; `None` while it has not.
    pub fn finished(&self) -> Option<FinishReason> {
        self.finished
    }

    /// The speed so far.
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// What it started after.
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt_length]
    }

    /// What was generated so far.
    pub fn generated(&self) -> &[u32] {
        &self.ids[self.prompt_length..]
    }

    /// Whether the context was full and the beginning is forgotten.
    pub fn has_forgotten(&self) -> bool {
        self.first > 0
    }

    fn step(&mut self) -> Result<u32> {
        if self.ids.len() - self.first > self.context {
            self.first = self.ids.len() - self.context.div_ceil(2);
            self.cache.clear();
        }
        let new = &self.ids[self.first + self.cache.len()..];
        let mut last = None;
        for ids in new.chunks(PREFILL_CHUNK) {
            let ids = ids_tensor(ids, &self.model.device()); // [1, T]
            let hidden = self.model.hidden_states(ids, Some(&mut self.cache), Dropout::default()); // [1, T, D]
            let [_, t, _] = hidden.dims();
            last = Some(hidden.narrow(1, t - 1, 1)); // [1, 1, D]: only the last position matters
        }
        let Some(last) = last else { return Err(empty_prompt()) };
        let logits = self.model.logits(last); // [1, 1, V]
        let mut logits = read(logits)?;
        for &id in &self.ruled_out {
            logits[id as usize] = f32::NEG_INFINITY;
        }
        let id = self.sampler.next(&logits, &self.ids)?;
        self.ids.push(id);
        Ok(id)
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished.is_none() && self.remaining == 0 {
            self.finished = Some(FinishReason::Length);
        }
        if self.finished.is_some() {
            return None;
        }
        let (start, is_first) = (Instant::now(), self.generated().is_empty());
        let step = self.model.compute().run(|| self.step());
        self.rates.add(self.prompt_length, is_first, start.elapsed().as_secs_f64());
        match step {
            Ok(id) if self.end_ids.contains(&id) => self.finished = Some(FinishReason::EndOfText),
            Ok(_) => self.remaining -= 1,
            Err(_) => self.remaining = 0,
        }
        Some(step)
    }
}

/// What a finished generation was.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens.
    pub ids: Vec<u32>,
    /// Their text, up to the stop text if one appeared.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Whether the context was full and the beginning was forgotten.
    pub has_forgotten: bool,
    /// The speed of the whole generation.
    pub rates: Rates,
}

/// Generates text, handing each piece to `write` as soon as it is certain. A stop text ends generation and is not
/// written, nor is what might still become one. Only ids that have a token are drawn.
pub fn text(
    tokens: Tokens<'_>,
    tokenizer: &Tokenizer,
    stop: &[String],
    mut write: impl FnMut(&str) -> Result<()>,
) -> Result<Generated> {
    let mut tokens = tokens.within(tokenizer);
    let mut stream = DecodeStream::after(tokenizer, tokens.prompt());
    let mut text = String::new();
    let mut written = 0;
    let mut finish_reason = None;
    for id in tokens.by_ref() {
        if let Some(piece) = stream.push(id?) {
            text += &piece;
        }
        if let Some(at) = stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            text.truncate(at);
            finish_reason = Some(FinishReason::StopText);
            break;
        }
        let certain = text.len() - longest_stop_prefix(&text, stop);
        if certain > written {
            write(&text[written..certain])?;
            written = certain;
        }
    }
    if finish_reason.is_none() {
        text += &stream.finish();
    }
    if text.len() > written {
        write(&text[written..])?;
    }
    let finish_reason = finish_reason.or(tokens.finished()).unwrap_or(FinishReason::Length);
    let ids = tokens.generated().to_vec();
    Ok(Generated { ids, text, finish_reason, has_forgotten: tokens.has_forgotten(), rates: tokens.rates() })
}

/// Length of the longest end of `text` with which one of the stop texts begins.
fn longest_stop_prefix(text: &str, stop: &[String]) -> usize {
    let overlap = |stop: &String| {
        (1..stop.len()).rev().find(|&length| stop.is_char_boundary(length) && text.ends_with(&stop[..length]))
    };
    stop.iter().filter_map(overlap).max().unwrap_or(0)
}

/// The ids of a prompt in words. An empty one is an error: it would leave the choice of the first word to the model, which
/// `--prompt-ids` can ask for.
pub fn encode_prompt(tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>> {
    if prompt.is_empty() {
        return Err(empty_prompt());
    }
    Ok(tokenizer.encode_prompt(prompt)?)
}

fn empty_prompt() -> Error {
    Error::Request {
        problem: "the prompt is empty".to_owned(),
        hint: "give at least one token: --prompt \"Once\" or --prompt-ids 0".to_owned(),
    }
}

/// The logits of every position of `ids`, without a cache: `[T, V]` in a row-major vector.
pub fn logits(model: &LanguageModel, ids: &[u32]) -> Result<Vec<f32>> {
    check_prompt(model.config(), ids)?;
    let logits = read(model.forward(ids_tensor(ids, &model.device()), None))?;
    if logits.iter().all(|logit| logit.is_finite()) {
        Ok(logits)
    } else {
        Err(Error::NotFinite { what: "the logits are" })
    }
}

/// The tokenizer of a checkpoint, or an error that says how to do without.
pub fn tokenizer(checkpoint: &Checkpoint) -> Result<&Tokenizer> {
    checkpoint.tokenizer.as_ref().ok_or_else(|| Error::Request {
        problem: format!("`{}` has no tokenizer.json, so it cannot read or write text", checkpoint.path.display()),
        hint: "give token ids with --prompt-ids, or put the model's tokenizer.json there".to_owned(),
    })
}

pub(crate) fn check_prompt(config: &ModelConfig, ids: &[u32]) -> Result<()> {
    let request = |problem: String, hint: &str| Err(Error::Request { problem, hint: hint.to_owned() });
    if ids.is_empty() {
        return Err(empty_prompt());
    }
    let context = config.context();
    if ids.len() > context {
        let problem = format!("the prompt has {} tokens, but the model's context is {context}", ids.len());
        return request(problem, "shorten the prompt");
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) {
        return request(format!("token id {id} is past the vocabulary of {}", config.vocab_size), "ids count from 0");
    }
    Ok(())
}

pub(crate) fn ids_tensor(ids: &[u32], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let length = ids.len();
    Tensor::from_data(TensorData::new(ids, [1, length]), device)
}

pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    Ok(tensor.try_into_vec_as::<f32>().map_err(|error| ModelError::Device(error.to_string()))?)
}

//! One run of a study, in a process of its own: training, then what is measured of the trained model.
//!
//! ```text
//! DIR/runs/VARIANT/seed-N/
//!   study-run.json    what to do, written by the study
//!   ...               the run, as `minillm-train train` leaves it
//!   result.json       what came out, written last: a run that has it is done
//! ```
//!
//! A process of its own, because the peak of memory is one of a whole process, and because whatever ends it, a kill
//! included, ends one run and not the study. A run that diverges is a result like any other.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use fs_err as fs;
use minillm_infer::device::{Found, open};
use minillm_infer::generate::Tokens;
use minillm_infer::memory::peak_memory_bytes;
use minillm_infer::sampling::Sampling;
use minillm_model::checkpoint::{self, Checkpoint, durable, locate};
use minillm_model::config::{ModelConfig, Position, RopeScaling};
use minillm_model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use super::file::{Evaluate, Stretch};
use crate::config::RunConfig;
use crate::data::{self, Progress, Shape, TokenizerConfig};
use crate::error::{Error, Result};
use crate::evaluate::evaluate;
use crate::interrupt::{Interrupt, Signal};
use crate::metrics::{jsonl, tag};
use crate::run_dir::{METRICS_FILE, OpenMode, RunDir, SAMPLES_FOLDER};
use crate::session::Session;
use crate::workers::Workers;

/// What a run is to do.
pub const PLAN_FILE: &str = "study-run.json";
/// What came out of it.
pub const RESULT_FILE: &str = "result.json";

/// What a run is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The variant's name.
    pub variant: String,
    /// Its run's seed.
    pub seed: u64,
    /// The configuration, as a file would hold it.
    pub config: String,
    /// What is measured after training.
    pub evaluate: Evaluate,
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The variant's name.
    pub variant: String,
    /// The run's seed.
    pub seed: u64,
    /// Where and with what it was computed.
    pub environment: Environment,
    /// Steps taken.
    pub steps: usize,
    /// Where it stopped being finite, if it did.
    pub diverged: Option<Divergence>,
    /// After the last step; `None` if it diverged.
    pub validation: Option<Validation>,
    /// At other contexts.
    pub contexts: Vec<ContextResult>,
    /// The median over the run's records.
    pub tokens_per_second: Option<f64>,
    /// Of this run's process while it trained, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Of greedy generation, one text at a time.
    pub decode_tokens_per_second: Option<f64>,
    /// Wall time, from start to result; of a resumed run the last part.
    pub seconds: f64,
    /// The validation loss over the steps.
    pub curve: Vec<CurvePoint>,
    /// A text that the trained model wrote.
    pub sample: Option<String>,
    /// The whole configuration, as the run's `config.toml`.
    pub config: String,
}

/// Where and with what a run was computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Of this program.
    pub version: String,
    /// As `--device` takes it.
    pub device: String,
    /// The device in words.
    pub device_description: String,
    /// Among which a batch is split.
    pub threads: usize,
    /// Operating system and processor architecture.
    pub system: String,
    /// The day it ended, UTC.
    pub date: String,
}

impl Environment {
    /// Of this process.
    pub fn here(found: &Found) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: found.name.clone(),
            device_description: found.description.clone(),
            threads: found.training_threads(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            date: today(),
        }
    }
}

/// Where a run stopped being finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The step, counted from 1.
    pub step: usize,
    /// What was not finite.
    pub what: String,
}

/// How good a model is on the validation text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Nats per token.
    pub loss: f64,
    /// Bits per byte.
    pub bits_per_byte: f64,
    /// For `tales`: nats per token that no model can go below.
    pub floor: Option<f64>,
}

impl Validation {
    /// The floor in bits per byte: tokens and bytes are those of the loss.
    pub fn floor_bits_per_byte(&self) -> Option<f64> {
        Some(self.floor? / self.loss * self.bits_per_byte)
    }
}

/// The loss at one context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextResult {
    /// Tokens that are seen at once.
    pub context: usize,
    /// How the rotary angles were stretched, if they were.
    pub stretch: Option<Stretch>,
    /// Nats per token; `None` where the model cannot be asked.
    pub loss: Option<f64>,
    /// The same in bits per byte.
    pub bits_per_byte: Option<f64>,
    /// Why there is no number.
    pub note: Option<String>,
}

/// A point of the learning curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Steps taken.
    pub step: usize,
    /// Tokens trained on.
    pub tokens: u64,
    /// Nats per token on the validation text.
    pub loss: f64,
    /// Bits per byte of it.
    pub bits_per_byte: f64,
}

/// How a run's process ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is a result.
    Done,
    /// It was asked to stop, and saved.
    Interrupted(Signal),
}

/// Does what `directory`'s plan says, or continues with it, and writes the result.
pub fn run(directory: &Path, device: &str, label: &str, cache_dir: &Path, progress: &dyn Progress) -> Result<Ended> {
    let start = Instant::now();
    let plan: RunPlan = read_json(&directory.join(PLAN_FILE))?;
    let config = RunConfig::parse(&plan.config, &directory.join(PLAN_FILE), &[])?;
    let found = open(device)?;
    let mode = if RunDir::holds_run(directory)? { OpenMode::Resume } else { OpenMode::New };
    let session = Session {
        config: &config,
        out: directory,
        mode,
        found: &found,
        label: Some(label),
        disk: Arc::new(durable::System),
    };
    let trainer = session.open(cache_dir, progress)?;
    let interrupt = Interrupt::install()?;
    interrupt.at_end_of(std::io::stdin())?;

    let diverged = match trainer.run(&interrupt) {
        Ok(outcome) => match outcome.interrupted {
            Some(signal) if outcome.steps < config.train.max_steps => return Ok(Ended::Interrupted(signal)),
            // If all steps were taken before, this process has not trained, and its peak says nothing.
            _ => Ok(outcome.evaluation.is_some()),
        },
        Err(Error::NotFinite { step, what }) => Err(Divergence { step, what }),
        Err(other) => return Err(other),
    };
    let trained_here = *diverged.as_ref().unwrap_or(&true);
    let peak_memory_bytes = if trained_here { peak_memory_bytes() } else { None };
    let metrics = Metrics::read(&directory.join(METRICS_FILE))?;
    let mut result = RunResult {
        variant: plan.variant,
        seed: plan.seed,
        environment: Environment::here(&found),
        steps: config.train.max_steps,
        diverged: diverged.err(),
        validation: metrics.last,
        contexts: Vec::new(),
        tokens_per_second: metrics.tokens_per_second,
        peak_memory_bytes,
        decode_tokens_per_second: None,
        seconds: 0.0,
        curve: metrics.curve,
        sample: None,
        config: fs::read_to_string(directory.join(crate::run_dir::CONFIG_FILE)).map_err(read_error)?,
    };
    if let Some(Divergence { step, .. }) = &result.diverged {
        (result.steps, result.validation) = (step - 1, None);
    } else {
        let sample = directory.join(SAMPLES_FOLDER).join(format!("step-{:06}.txt", config.train.max_steps));
        result.sample = fs::read_to_string(sample).ok().map(|text| text.trim().to_owned());
        let model = Trained::load(directory, &config, &found)?;
        result.contexts = model.contexts(&plan.evaluate, cache_dir, progress)?;
        result.decode_tokens_per_second = Some(model.decoding_rate(plan.evaluate.decode_tokens)?);
    }
    result.seconds = start.elapsed().as_secs_f64();
    write_json(&directory.join(RESULT_FILE), &result)?;
    Ok(Ended::Done)
}

/// The model after the last step.
struct Trained<'a> {
    config: &'a RunConfig,
    checkpoint: Checkpoint,
    device: Device,
    threads: usize,
}

impl<'a> Trained<'a> {
    fn load(directory: &Path, config: &'a RunConfig, found: &Found) -> Result<Self> {
        let path = directory.join(locate::checkpoint_name(config.train.max_steps));
        let device = found.device.clone();
        let mut checkpoint = checkpoint::load(&path, &device)?;
        checkpoint.model = checkpoint.model.with_kernels(config.train.kernels_on(&device)?);
        Ok(Self { config, checkpoint, device, threads: found.training_threads() })
    }

    fn contexts(&self, wanted: &Evaluate, cache_dir: &Path, progress: &dyn Progress) -> Result<Vec<ContextResult>> {
        let trained = self.config.train.context;
        let mut results = Vec::new();
        for &multiple in &wanted.contexts {
            let context = multiple * trained;
            // The tokenizer is made already, and lies in the checkpoint.
            let tokenizer = TokenizerConfig::File { path: self.checkpoint.path.join(checkpoint::TOKENIZER_FILE) };
            let shape = Shape { context, batch_size: 1, seed: 0 };
            let corpus = data::prepare(&self.config.data, &tokenizer, &shape, cache_dir, progress)?;
            let rows = (self.config.train.micro_batch_size() / multiple).max(1);
            let workers = Workers::new(self.threads, rows)?;
            let stretches = wanted.rope_scaling.iter().copied().map(Some);
            for stretch in std::iter::once(None).chain(stretches.filter(|_| multiple > 1)) {
                let factor = wanted.factor.unwrap_or(multiple as f64);
                let mut result = ContextResult { context, stretch, loss: None, bits_per_byte: None, note: None };
                match self.stretched(context, stretch, factor) {
                    Err(note) => result.note = Some(note.to_owned()),
                    Ok(config) => {
                        let model = self.checkpoint.model.clone().with_rotary_angles(&config, &self.device)?;
                        let score = evaluate(&model, &self.device, &workers, &corpus.validation, rows)?.score;
                        result.loss = Some(score.nats_per_token());
                        result.bits_per_byte = Some(score.bits_per_byte());
                    }
                }
                results.push(result);
            }
        }
        Ok(results)
    }

    /// The architecture for sequences of `context` tokens, or why it cannot have them.
    fn stretched(&self, context: usize, stretch: Option<Stretch>, factor: f64) -> Result<ModelConfig, &'static str> {
        let mut config = self.checkpoint.config.clone();
        let original = config.max_position_embeddings;
        match config.position {
            Position::Learned if context > original => return Err("no positions beyond the table"),
            Position::Rope => {}
            _ if stretch.is_some() => return Err("no angles to stretch"),
            _ => return Ok(config),
        }
        config.rope_scaling = match stretch {
            None => config.rope_scaling,
            Some(Stretch::Linear) => Some(RopeScaling::Linear { factor }),
            Some(Stretch::Dynamic) => Some(RopeScaling::Dynamic { factor }),
            Some(Stretch::Yarn) => Some(RopeScaling::yarn(factor, original)),
        };
        if stretch != Some(Stretch::Dynamic) {
            config.max_position_embeddings = original.max(context); // dynamic scaling measures from the original
        }
        Ok(config)
    }

    /// Tokens per second of greedy generation, the best of three: whatever else the machine does only slows it down.
    fn decoding_rate(&self, count: usize) -> Result<f64> {
        let Checkpoint { config, model, tokenizer, .. } = &self.checkpoint;
        let first = tokenizer.as_ref().and_then(Tokenizer::end_of_text).unwrap_or(0);
        let count = count.min(config.context().saturating_sub(1)).max(2);
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let mut best = 0.0f64;
        for _ in 0..3 {
            let mut tokens = Tokens::new(model, config, &self.device, &[first], count, &greedy)?;
            tokens.by_ref().try_for_each(|id| id.map(drop))?;
            best = best.max(tokens.rates().decode_tokens_per_second);
        }
        Ok(best)
    }
}

/// What a run's `metrics.jsonl` says.
struct Metrics {
    curve: Vec<CurvePoint>,
    last: Option<Validation>,
    tokens_per_second: Option<f64>,
}

impl Metrics {
    fn read(path: &Path) -> Result<Self> {
        let (mut curve, mut last, mut rates) = (Vec::new(), None, Vec::new());
        let read = jsonl::read(path, |record| {
            rates.extend(record.get(tag::TRAIN_TOKENS_PER_SECOND));
            if let (Some(loss), Some(bits_per_byte)) = (record.get(tag::VAL_LOSS), record.get(tag::VAL_BITS_PER_BYTE)) {
                last = Some(Validation { loss, bits_per_byte, floor: record.get(tag::VAL_FLOOR) });
                curve.push(CurvePoint { step: record.step, tokens: record.tokens, loss, bits_per_byte });
            }
        });
        read.map_err(read_error)?;
        rates.sort_by(f64::total_cmp);
        Ok(Self { curve, last, tokens_per_second: rates.get(rates.len() / 2).copied() })
    }
}

fn read_error(source: std::io::Error) -> Error {
    Error::Io { action: "read", what: "a file of the study", source }
}

/// Reads a file that this program wrote.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(read_error)?;
    serde_json::from_str(&text).map_err(|error| Error::Run {
        path: path.to_owned(),
        problem: format!("cannot be understood: {error}"),
        hint: "remove the folder it lies in, and start the study again".to_owned(),
    })
}

/// Replaces a file in one step.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let write =
        || durable::replace_file(&durable::System, path, (serde_json::to_string_pretty(value)? + "\n").as_bytes());
    write().map_err(|source| Error::Io { action: "write", what: "a file of the study", source })
}

/// Today in UTC, `2026-01-31`.
fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    date_of(now.as_secs() / 86_400)
}

/// The date of a day counted from 1 January 1970, by the calendar's cycle of 400 years (Hinnant, `civil_from_days`).
fn date_of(days: u64) -> String {
    let shifted = days + 719_468; // from 1 March of year 0
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // from March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, date) in [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_819, "2027-01-01")] {
            assert_eq!(date_of(days), date);
        }
    }
}

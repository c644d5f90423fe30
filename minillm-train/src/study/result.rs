//! What a run of a study is to do, and what came out of it: the files `study-run.json` and `result.json`.

use minillm_infer::device::DeviceInfo;
use serde::{Deserialize, Serialize};

use super::date::today;
use super::file::{Evaluate, Stretch};

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
    /// The machine and the program that computed it.
    pub environment: Environment,
    /// Steps taken.
    pub steps: usize,
    /// Where it stopped being finite, if it did.
    pub diverged: Option<Divergence>,
    /// After the last step; `None` if it diverged.
    pub validation: Option<Validation>,
    /// Its losses at other contexts.
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
    /// The version of this program.
    pub version: String,
    /// The device, as `--device` takes it.
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
    /// The environment of this process.
    pub fn here(found: &DeviceInfo) -> Self {
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

/// What is known of a run that stopped being finite.
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

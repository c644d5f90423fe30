//! A run as a file: what to read, what to build, how to train it. One TOML section per struct, each documented below.
//!
//! [`RunConfig::load`] reads it strictly (an unknown key is an error with the nearest name), lays
//! `--set section.key=value` over it, fills in what follows from other fields and checks the whole. What it returns is
//! also what the run directory's `config.toml` holds, so a run can be repeated from its own directory.
//!
//! Reading is in `load`, `--set` in `overrides`, names and suggestions in `keys` and `errors`, ranges in `validate`, and
//! what may change when a run is resumed in `resume`.

pub(crate) mod errors;
pub(crate) mod keys;
pub(crate) mod load;
mod lora;
mod objective;
mod overrides;
mod resume;
mod validate;
mod validate_objective;

use burn::tensor::Device;
use minillm_model::config::ModelOptions;
use minillm_model::ops::{ComputeOptions, Precision};
use serde::{Deserialize, Serialize};

pub use self::keys::{keys, suggest};
pub use self::lora::LoraConfig;
pub use self::objective::{ObjectiveConfig, ObjectiveKind, PreferenceLoss};
pub use self::resume::{Conflict, RESUMABLE, check_resume, resume_conflicts};
use crate::data::{DataConfig, TokenizerConfig};
use crate::error::{Error, Result};
use crate::schedule::ScheduleConfig;

/// Everything a run is made of. The same value, device and thread count give the same model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Where all randomness starts: initial weights, batches, dropout, samples.
    pub seed: u64,
    /// What is learned.
    pub objective: ObjectiveConfig,
    /// The text, and how it is cut into batches.
    pub data: DataConfig,
    /// The tokenizer.
    pub tokenizer: TokenizerConfig,
    /// The architecture: a preset and what differs from it.
    pub model: ModelOptions,
    /// An adapter to train in place of the model's own weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Length and size of the training.
    pub train: TrainConfig,
    /// The rule that moves the weights.
    pub optimizer: OptimizerConfig,
    /// The learning rate over the steps.
    pub schedule: ScheduleConfig,
    /// When to measure on text that is not trained on.
    pub eval: EvalConfig,
    /// When to save.
    pub checkpoint: CheckpointConfig,
    /// When to report.
    pub log: LogConfig,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 1337,
            objective: ObjectiveConfig::default(),
            data: DataConfig::default(),
            tokenizer: TokenizerConfig::default(),
            model: ModelOptions::default(),
            lora: None,
            train: TrainConfig::default(),
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
            eval: EvalConfig::default(),
            checkpoint: CheckpointConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// The `[train]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser steps of the whole run, resumed parts included.
    pub max_steps: usize,
    /// Sequences per optimiser step.
    pub batch_size: usize,
    /// Sequences per forward and backward pass; by default `batch_size`. Smaller needs less memory and changes nothing
    /// else. It need not divide `batch_size`: the last pass takes what is left.
    pub micro_batch_size: Option<usize>,
    /// Tokens per sequence.
    pub context: usize,
    /// Largest allowed L2 norm of all gradients together; above it they are scaled down to it. 0 = no limit.
    pub grad_clip: f64,
    /// Which form of the layers computes.
    pub kernels: KernelChoice,
    /// In how many bits matrix products are computed; the rest is always f32.
    pub precision: Precision,
    /// Keep only what enters each block and compute the rest again for the backward pass: less memory, about a quarter more time,
    /// the same result up to rounding.
    pub recompute: bool,
    /// Skip a step whose loss or gradient norm is more than six standard deviations above the mean of the last 128.
    pub skip_spikes: bool,
    /// On a GPU, not on a driver that computes on the CPU: whether `train` first sees that it computes rightly, and
    /// refuses to train if not (see [`doctor`](crate::doctor)).
    pub check_device: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            max_steps: 2000,
            batch_size: 16,
            micro_batch_size: None,
            context: 128,
            grad_clip: 1.0,
            kernels: KernelChoice::Fast,
            precision: Precision::F32,
            recompute: false,
            skip_spikes: false,
            check_device: true,
        }
    }
}

/// Which form of the layers computes; both give the same numbers up to rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelChoice {
    /// The fused forms in `minillm-model/src/ops/`, as far as the device has them.
    #[default]
    Fast,
    /// The layers as they are written, one tensor operation after the other.
    Readable,
}

impl TrainConfig {
    /// Sequences per forward and backward pass.
    pub fn micro_batch_size(&self) -> usize {
        self.micro_batch_size.unwrap_or(self.batch_size)
    }

    /// How a model computes on `device`. Fails if the device does not have the precision.
    pub fn compute_on(&self, device: &Device) -> Result<ComputeOptions> {
        let precision = self.precision;
        if !precision.runs_on(device) {
            return Err(Error::Config {
                origin: "configuration".to_owned(),
                field: "train.precision".to_owned(),
                problem: format!("is {}, which this device does not compute in", precision.name()),
                hint: "choose f32, or another --device".to_owned(),
            });
        }
        let compute = match self.kernels {
            KernelChoice::Fast => ComputeOptions::fastest(device),
            KernelChoice::Readable => ComputeOptions::READABLE,
        };
        Ok(ComputeOptions { precision, ..compute })
    }
}

/// The optimiser: which rule moves the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// `AdamW` (arXiv:1711.05101).
    #[default]
    AdamW,
    /// For the matrices of the blocks Muon, for everything else `AdamW` (Jordan et al. 2024, kellerjordan.github.io/posts/muon), scaled so that `AdamW`'s learning rates fit
    /// (arXiv:2502.16982).
    Muon,
}

/// The `[optimizer]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule for the matrices of the blocks.
    pub kind: OptimizerKind,
    /// The peak of the learning rate; `[schedule]` says how it rises to it and falls.
    pub learning_rate: f64,
    /// Share of the old value kept in the running mean of the gradient.
    pub beta1: f64,
    /// Share of the old value kept in the running mean of its square.
    pub beta2: f64,
    /// Added to the root of the latter before dividing by it.
    pub epsilon: f64,
    /// Share of a weight taken away per step, times the learning rate; tensors of two or more dimensions only.
    pub weight_decay: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
        }
    }
}

/// The `[eval]` section. The end of the run is always evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Optimiser steps between two evaluations.
    pub every_steps: usize,
    /// Tokens of sample text written at each evaluation; 0 = none.
    pub sample_tokens: usize,
    /// Of `tales-chat` and of preferences over it: held-out conversations in which the model answers for itself, and is graded, at each
    /// evaluation; 0 = none.
    pub graded: u64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { every_steps: 250, sample_tokens: 120, graded: 400 }
    }
}

/// The `[checkpoint]` section. The end of the run is always saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Optimiser steps between two checkpoints.
    pub every_steps: usize,
    /// How many of the newest checkpoints stay on disk; the best one stays beside them.
    pub keep_last: usize,
    /// What to do when the run's directory cannot be written to.
    pub on_error: OnError,
}

/// What to do when a checkpoint or the metrics cannot be written: a full disk, a network drive that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// End the run; the checkpoints before are untouched.
    #[default]
    Stop,
    /// Warn, train on, and try again at the next checkpoint. At the end of the run it is an error all the same.
    Continue,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_steps: 500, keep_last: 2, on_error: OnError::Stop }
    }
}

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Optimiser steps between two records in `metrics.jsonl`, `TensorBoard` and the terminal.
    pub every_steps: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { every_steps: 10 }
    }
}

impl RunConfig {
    /// The same run with the fields filled in that follow from others: `train.micro_batch_size` and the schedule's.
    /// [`RunConfig::load`] returns it so. The model's open fields stay open until the vocabulary is known.
    #[must_use]
    pub fn resolved(&self) -> Self {
        let mut config = self.clone();
        config.train.micro_batch_size = Some(self.train.micro_batch_size());
        config.schedule = self.schedule.resolved(self.optimizer.learning_rate, self.train.max_steps);
        config
    }

    /// The text of a configuration file that loads back to an equal value.
    ///
    /// # Errors
    /// A path that is not UTF-8, which cannot have come out of a file.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::Config {
            origin: "configuration".to_owned(),
            field: "config.toml".to_owned(),
            problem: format!("cannot be written: {error}"),
            hint: "rename the files in `data.files` so that their paths are UTF-8".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use minillm_model::config::{AttentionBias, MlpKind, NormKind, Position, Preset, RopeScaling};

    use super::*;
    use crate::data::Order;
    use crate::schedule::ScheduleKind;

    /// Every optional field given.
    fn full() -> RunConfig {
        let mut config = RunConfig { seed: 7, ..RunConfig::default() }.resolved();
        config.schedule.kind = ScheduleKind::Wsd;
        config.schedule.cooldown_steps = Some(30);
        config.data = DataConfig {
            source: None,
            url: Some("https://example.org/a.txt".to_owned()),
            sha256: Some("0".repeat(64)),
            files: vec![PathBuf::from("a b.txt"), PathBuf::from(r"C:\texts\c.jsonl")],
            validation_fraction: 0.2,
            order: Some(Order::Shuffled),
        };
        config.tokenizer = TokenizerConfig::Bpe { vocab_size: 300 };
        config.model = ModelOptions {
            preset: Preset::Qwen3,
            from: None,
            vocab_size: Some(100),
            hidden_size: Some(64),
            intermediate_size: Some(128),
            num_hidden_layers: Some(2),
            num_attention_heads: Some(4),
            num_key_value_heads: Some(2),
            head_dim: Some(16),
            max_position_embeddings: Some(256),
            norm: Some(NormKind::RmsNorm),
            norm_eps: Some(1e-6),
            position: Some(Position::Rope),
            rope_theta: Some(1e6),
            rope_scaling: Some(RopeScaling::Linear { factor: 2.0 }),
            sliding_window: Some(32),
            max_window_layers: Some(1),
            mlp: Some(MlpKind::Swiglu),
            attention_bias: Some(AttentionBias::Qkv),
            mlp_bias: Some(false),
            qk_norm: Some(true),
            tie_word_embeddings: Some(true),
            dropout: Some(0.1),
            initializer_range: Some(0.02),
        };
        config
    }

    #[test]
    fn written_and_read_again_is_equal() {
        for config in [full(), RunConfig::default().resolved()] {
            let text = config.to_toml().unwrap();
            let again = RunConfig::parse(&text, Path::new("config.toml"), &[]).unwrap();
            assert_eq!(again, config, "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_toml_cannot_hold_is_an_error() {
        use std::os::unix::ffi::OsStrExt;

        let mut config = RunConfig::default();
        config.data.files = vec![std::ffi::OsStr::from_bytes(&[0xff]).into()];
        let error = config.to_toml().unwrap_err();
        assert!(error.to_string().contains("cannot be written"), "{error}");
    }

    #[test]
    fn resolving_fills_in_what_follows() {
        let config = RunConfig::default().resolved();
        assert_eq!(config.train.micro_batch_size, Some(16));
        assert_eq!(config.schedule.decay_steps, Some(2000));
        assert_eq!(config.schedule.min_learning_rate, Some(1e-4));
    }

    /// Every file in `configs/` is loaded, checked and has a place in the workspace's list.
    #[test]
    fn every_shipped_config_loads() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut names = Vec::new();
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let config = RunConfig::load(&path, &[]).unwrap_or_else(|error| panic!("{error}\n{:?}", error.hint()));
                let model = config.model.resolve(256, config.train.context);
                model.validate().unwrap();
                names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
        names.sort();
        let expected = [
            "chat",
            "continue",
            "gpt2-124m",
            "laptop-gpu",
            "prefer",
            "quickstart",
            "shakespeare-gpt",
            "shakespeare-gpt-cpu",
            "shakespeare-llama",
            "shakespeare-llama-cpu",
            "tinystories-15m",
        ];
        assert_eq!(names, expected);
    }
}

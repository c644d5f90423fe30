//! Arguments that several verbs have.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use minillm_infer::device;
use minillm_infer::error::Result;
use minillm_model::adapter::{self, Located};
use minillm_model::checkpoint::Checkpoint;
use minillm_model::tokenizer::Tokenizer;

/// Which model, and what to compute on.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// A model directory, a .gguf file, a checkpoint, or a run (its best checkpoint)
    pub model: PathBuf,
    /// A LoRA adapter for the model, a directory as Hugging Face's PEFT writes it: merged while the model is read
    #[arg(long, value_name = "ADAPTER", allow_hyphen_values = true)]
    pub adapter: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What to compute on.
#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    /// What to compute on: auto, or a name from `minillm-train devices`
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
}

/// How a model's matrices are kept in memory.
#[derive(Debug, clap::Args)]
pub struct WeightsArgs {
    /// How the matrices are kept in memory; in 8 bits on the CPU and on GPUs, not on LibTorch
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    weights: Weights,
}

/// What a result is printed as.
#[derive(Debug, clap::Args)]
pub struct JsonArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The types of [`WeightsArgs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Weights {
    /// As they are computed with.
    F32,
    /// In llama.cpp's blocks of 8-bit numbers: a quarter of the memory, faster to read
    #[value(name = "q8_0")]
    Q8_0,
}

impl ModelArgs {
    /// Opens the device and loads the model.
    pub fn load(&self) -> Result<Checkpoint> {
        load(&self.model, self.adapter.as_deref(), &self.device.open()?)
    }

    /// [`ModelArgs::load`], with the matrices kept as `weights` says.
    pub fn load_with(&self, weights: &WeightsArgs) -> Result<Checkpoint> {
        let mut checkpoint = self.load()?;
        if weights.weights == Weights::Q8_0 {
            checkpoint.model = checkpoint.model.quantized()?;
        }
        Ok(checkpoint)
    }
}

impl DeviceArgs {
    /// Opens the device.
    pub fn open(&self) -> Result<Device> {
        Ok(device::open(&self.device)?.device)
    }
}

/// Loads the model that `path` means: a model directory, a .gguf file, a checkpoint, a run, or an adapter whose model is on this machine.
pub fn load(path: &Path, adapter: Option<&Path>, device: &Device) -> Result<Checkpoint> {
    let Located { model, adapter: own, warnings } = adapter::locate(path)?;
    let adapter = adapter.map(Path::to_owned).or(own);
    let checkpoint = Located { model, adapter, warnings: Vec::new() }.load(device)?;
    let of_tokenizer = checkpoint.tokenizer.iter().flat_map(Tokenizer::warnings);
    for warning in warnings.iter().chain(&checkpoint.warnings).chain(of_tokenizer) {
        tracing::warn!("{warning}");
    }
    Ok(checkpoint)
}

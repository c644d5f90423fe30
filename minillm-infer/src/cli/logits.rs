//! `minillm-infer logits`: a model's raw output, for comparing with other programs.

use std::path::PathBuf;

use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};

use super::load;
use crate::error::Result;
use crate::generate::logits;

/// Write the logits of a token sequence to a safetensors file: tensor `logits`, f32, [tokens, vocabulary]
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model directory, a .gguf file, a checkpoint, or a run (its best checkpoint)
    model: PathBuf,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true, allow_hyphen_values = true)]
    ids: Vec<u32>,
    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// What to compute on: auto, or a name from `minillm-train devices`
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let (checkpoint, device) = load(&args.model, &args.device)?;
    let values = logits(&checkpoint.model, &checkpoint.config, &device, &args.ids)?;
    let shape = vec![args.ids.len(), checkpoint.config.vocab_size];
    let tensors = HostTensors::from([("logits".to_owned(), HostTensor { shape, values })]);
    Ok(weights::write(&System, &args.out, &tensors)?)
}

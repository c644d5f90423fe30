//! `minillm-infer logits`: a model's raw output, for comparing with other programs.

use std::path::PathBuf;

use minillm_infer::error::Result;
use minillm_infer::generate::logits;
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};

use super::arguments::ModelArgs;

/// Write the logits of a token sequence to a safetensors file: tensor `logits`, f32, [tokens, vocabulary]
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true, allow_hyphen_values = true)]
    ids: Vec<u32>,
    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let checkpoint = args.model.load()?;
    let values = logits(&checkpoint.model, &args.ids)?;
    let shape = vec![args.ids.len(), checkpoint.model.config().vocab_size];
    let tensors = HostTensors::from([("logits".to_owned(), HostTensor { shape, values })]);
    Ok(weights::write(&System, &args.out, &tensors)?)
}

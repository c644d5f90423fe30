//! `minillm-infer verify`: whether two models are one.

use std::path::PathBuf;

use minillm_infer::error::{Error, Result};
use minillm_infer::output::print;
use minillm_infer::target_tokenizer::compare_with_file;
use minillm_infer::verify::compare;
use minillm_model::checkpoint::Checkpoint;
use minillm_model::tokenizer::Tokenizer;

use super::arguments::{DeviceArgs, load};

/// Compare two models, whatever their formats: logits, greedy tokens, tokenizers
///
/// Exits with 1 if they part: a logit beyond the tolerance, another greedy token, another id for a text.
///
///   minillm-infer verify runs/quickstart story-gguf/quickstart-848K-F32.gguf
///   minillm-infer verify runs/quickstart story --tolerance 0.1
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A model directory, a .gguf file, a checkpoint, or a run (its best checkpoint)
    a: PathBuf,
    /// The other one
    b: PathBuf,
    /// The largest difference of a logit that passes
    #[arg(long, value_name = "T", default_value_t = 1e-4, allow_negative_numbers = true)]
    tolerance: f32,
    /// A LoRA adapter for the first, a directory as Hugging Face's PEFT writes it: merged while the model is read
    #[arg(long, value_name = "ADAPTER", allow_hyphen_values = true)]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let device = args.device.open()?;
    let (a, b) = (load(&args.a, args.adapter.as_deref(), &device)?, load(&args.b, None, &device)?);
    let comparison = compare(&a, &b)?;
    // A GGUF file may hold a tokenizer.json, which llama.cpp does not read.
    let is_gguf = |file: &Checkpoint| {
        let can_encode = |tokenizer: &Tokenizer| tokenizer.encoding_problem().is_none();
        file.path.is_file() && file.tokenizer.as_ref().is_some_and(can_encode)
    };
    for (checkpoint, file) in [(&a, &b), (&b, &a)] {
        if let (Some(tokenizer), true) = (&checkpoint.tokenizer, is_gguf(file)) {
            let findings = compare_with_file(tokenizer, checkpoint.model.config().vocab_size, &file.path)?;
            findings.warnings.iter().for_each(|warning| tracing::warn!("the tokenizer: {warning}"));
        }
    }
    print(&format!("{comparison}\n"))?;
    if comparison.is_equal(args.tolerance) {
        return Ok(());
    }
    Err(Error::Differ { problem: format!("the models part at a tolerance of {:e}", args.tolerance) })
}

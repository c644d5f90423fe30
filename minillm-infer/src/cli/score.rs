//! `minillm-infer score`: how well a model predicts a text.

use std::path::PathBuf;

use fs_err as fs;
use serde_json::json;

use super::output::print;
use super::{io_error, load};
use crate::error::{Error, Result};
use crate::generate::tokenizer;
use crate::score::score;

/// Measure how well a model predicts a text: nats per token, perplexity, bits per byte
///
/// The text is one document. It is read in windows of the model's context; where the tokenizer has an end-of-text token, that
/// comes first, so that the first token of the text is predicted too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model directory, a .gguf file, a checkpoint, or a run (its best checkpoint)
    model: PathBuf,
    /// A UTF-8 text file
    #[arg(long, value_name = "TEXT")]
    file: PathBuf,
    /// What to compute on: auto, or a name from `minillm-train devices`
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let text = fs::read_to_string(&args.file).map_err(io_error("read", "the text"))?;
    if text.is_empty() {
        let hint = "give a text for the model to predict".to_owned();
        return Err(Error::Request { problem: format!("`{}` is empty", args.file.display()), hint });
    }
    let (checkpoint, device) = load(&args.model, &args.device)?;
    let tokenizer = tokenizer(&checkpoint)?;
    let mut ids = tokenizer.encode_prompt(&text)?;
    let first = ids.first().map_or(&[][..], |&id| tokenizer.token_bytes(id));
    let mut bytes = text.len() as u64;
    match tokenizer.end_of_text() {
        // The first token is given, not predicted. Best is one that stands before every text.
        Some(end_of_text) if !first.is_empty() => ids.insert(0, end_of_text),
        _ => bytes -= first.len() as u64,
    }
    let score = score(&checkpoint.model, &checkpoint.config, &device, &ids, bytes)?;
    if args.json {
        let object = json!({
            "tokens": score.tokens,
            "bytes": score.bytes,
            "nats_per_token": score.nats_per_token(),
            "perplexity": score.perplexity(),
            "bits_per_byte": score.bits_per_byte(),
        });
        return print(&format!("{object}\n"));
    }
    print(&format!(
        "tokens          {}\nbytes           {}\nnats per token  {:.4}\nperplexity      {:.3}\nbits per byte   {:.4}\n",
        score.tokens,
        score.bytes,
        score.nats_per_token(),
        score.perplexity(),
        score.bits_per_byte()
    ))
}

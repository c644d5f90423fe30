//! `minillm-infer score`: how well a model predicts a text.

use std::iter::once;
use std::path::PathBuf;

use minillm_infer::error::{Error, Result};
use minillm_infer::generate::tokenizer;
use minillm_infer::output::print;
use minillm_infer::score::{EncodedText, Windows, score};
use minillm_infer::text_files::{Documents, Silent, TextFile};
use serde_json::json;

use super::arguments::{JsonArgs, ModelArgs};

/// Measure how well a model predicts a text: nats per token, perplexity, bits per byte
///
/// The text is read as training reads it: .gz and .zst are decompressed, a byte order mark is skipped, `<|endoftext|>`
/// separates documents, and each line of a .jsonl file is a document, its field `text`. A file of any other name is plain
/// text. Of several documents, each ends with an end-of-text token, which is predicted too. Where the tokenizer has that
/// token, it also comes first, so that the first token of the text is predicted.
///
/// It is read in windows of --context tokens, each --stride tokens after the one before; of windows that overlap, only the
/// new tokens are scored. By default they do not overlap, so that a token is predicted from half a window on average. With a
/// stride below the context it is predicted from context - stride tokens or more, which is slower and gives a lower number.
///
///   minillm-infer score runs/quickstart --file story.txt
///   minillm-infer score runs/quickstart --file story.txt --context 256 --stride 64
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A UTF-8 text file: plain or .jsonl, also .gz or .zst
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    file: PathBuf,
    /// Tokens in a window [default: all that the model sees at once]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    context: Option<usize>,
    /// Tokens from the start of a window to that of the next [default: --context, so that none overlap]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    stride: Option<usize>,
    #[command(flatten)]
    output: JsonArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let files = [TextFile::of_any_name(&args.file)];
    let mut documents = Documents::whole(&files, &Silent);
    let Some(first) = documents.next().transpose()? else {
        let hint = "give a text for the model to predict".to_owned();
        return Err(Error::Request { problem: format!("`{}` is empty", args.file.display()), hint });
    };
    let checkpoint = args.model.load()?;
    let windows = Windows::new(checkpoint.model.config(), args.context, args.stride)?;
    let text = EncodedText::new(tokenizer(&checkpoint)?, once(Ok(first)).chain(documents))?;
    let score = score(&checkpoint.model, &text, windows)?;
    if args.output.json {
        let object = json!({
            "tokens": score.tokens,
            "bytes": score.bytes,
            "context": windows.context(),
            "stride": windows.stride(),
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

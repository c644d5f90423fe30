//! `minillm-train tokenizer`: train a tokenizer by itself.

use std::path::PathBuf;

use fs_err as fs;
use minillm_infer::output::note;
use minillm_train::data::{self, DataConfig, TokenizerConfig};
use minillm_train::error::{Error, Result};

use super::progress::Bars;

/// Train a byte-level BPE tokenizer on text files
///
/// `train` does this by itself; a tokenizer of one's own is for sharing between runs: `[tokenizer] kind = "file"`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Text files: .txt or .jsonl, plain, .gz or .zst; may be given several times
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    input: Vec<PathBuf>,
    /// How many tokens, the 256 bytes and the end-of-text token included
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    vocab_size: usize,
    /// The file to write
    #[arg(long, value_name = "tokenizer.json")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = DataConfig { files: args.input.clone(), ..DataConfig::default() };
    let kind = TokenizerConfig::Bpe { vocab_size: args.vocab_size };
    let tokenizer = data::train_tokenizer(&config, &kind, &Bars::default())?;
    fs::write(&args.out, tokenizer.to_json()).map_err(|source| Error::Io {
        action: "write",
        what: "the tokenizer",
        source,
    })?;
    note(format_args!("{} tokens, saved {}", tokenizer.vocab_size(), args.out.display()));
    Ok(())
}

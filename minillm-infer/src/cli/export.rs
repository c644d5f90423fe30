//! `minillm-infer export`: a model for other programs.

use std::path::{Path, PathBuf};

use minillm_infer::error::{Error, Result};
use minillm_infer::export::{Exported, Options, Target, blocking_switches, export};
use minillm_infer::output::{note, print};
use minillm_model::encoding::Encoding;

use super::arguments::ModelArgs;

/// Write a model for other programs: GGUF for llama.cpp and Ollama, or a Hugging Face directory
///
/// What was written is read back and compared with the source before it gets its name.
///
///   minillm-infer export runs/quickstart --to gguf --out story-gguf --dtype f16
///   minillm-infer export runs/quickstart --to hf --out story --dtype bf16
///   minillm-infer export story-gguf/quickstart-848K-F16.gguf --to hf --out story-again
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The format
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    /// A new directory, or for GGUF also a file: model.gguf
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// How numbers are written
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = encoding)]
    dtype: Encoding,
    /// What the model is called [default: the name of the run or directory]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    name: Option<String>,
    /// Cut a directory's weights into files of at most this size: 500MB, 2GB
    #[arg(long, value_name = "SIZE", value_parser = bytes, allow_hyphen_values = true)]
    max_shard_size: Option<u64>,
}

/// The values of `--to`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// One file for llama.cpp and Ollama
    Gguf,
    /// A directory for transformers, vLLM, candle and mlx
    Hf,
}

impl From<Format> for Target {
    fn from(format: Format) -> Self {
        match format {
            Format::Gguf => Self::Gguf,
            Format::Hf => Self::Hf,
        }
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    let name = match &args.name {
        Some(name) => checked_name(name)?,
        None => default_name(&args.model.model),
    };
    let options = Options {
        target: args.to.into(),
        out: args.out.clone(),
        encoding: args.dtype,
        name,
        largest_shard: args.max_shard_size,
    };
    let source = args.model.load()?;
    let switches = blocking_switches(source.model.config());
    if options.target == Target::Hf && !switches.is_empty() {
        let switches = switches.join("`, `");
        tracing::warn!("no class of transformers has this value of `{switches}`: only MiniLLM will read the directory");
    }
    let Exported { model, bytes, comparison, warnings } = export(&source, &options)?;
    for warning in warnings {
        tracing::warn!("the tokenizer: {warning}");
    }
    note(format_args!("{comparison}"));
    note(format_args!("{bytes} bytes in {}", args.out.display()));
    print(&format!("{}\n", model.display()))
}

/// The run's name, also where its checkpoint was given.
pub(super) fn default_name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let own = name(&path).filter(|name| !name.starts_with("checkpoint-"));
    let name = own.or_else(|| path.parent().and_then(name)).unwrap_or_default();
    let name: String = name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    if name.is_empty() { "model".to_owned() } else { name }
}

fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || "-_.".contains(character)
}

/// A name becomes a part of file names.
fn checked_name(name: &str) -> Result<String> {
    if !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain) {
        return Ok(name.to_owned());
    }
    let problem = format!("`--name {name}` cannot be part of a file name");
    Err(Error::Request { problem, hint: "use letters, digits, `-`, `_` and `.`".to_owned() })
}

fn encoding(text: &str) -> Result<Encoding, String> {
    let all = [Encoding::F32, Encoding::F16, Encoding::Bf16, Encoding::Q8_0];
    let found = all.into_iter().find(|encoding| encoding.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| "write f32, f16, bf16 or q8_0".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err("write a size such as 500MB or 2GB".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| "write a size such as 500MB or 2GB".to_owned())?;
    count.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| "is no size of a file".to_owned())
}

//! `minillm-infer inspect`: a model from the inside.

use std::path::{Path, PathBuf};

use fs_err as fs;
use minillm_infer::error::{Error, Result};
use minillm_infer::generate::{encode_prompt, tokenizer};
use minillm_infer::inspect::{Internals, Summary, most_tokens, page};
use minillm_infer::number::count;
use minillm_infer::output::{note, print};
use minillm_model::checkpoint::durable;
use serde::Serialize;

use super::arguments::{JsonArgs, ModelArgs};
use super::export::default_name;
use super::io_error;

/// Show a model from the inside: its parts, and with a prompt a page about what it computes on it
///
/// Without a prompt, prints the parts with their parameters, FLOPs and bytes. With one, writes one HTML file that needs
/// no network: attention of every head, rotary positions, what each layer would predict (logit lens), norms of the residual
/// stream, the probability of each token, the K/V cache. With --json the numbers go to stdout instead, and the file is
/// written only where --out asks for it. Of a long prompt, the first tokens are shown: at most 256.
///
///   minillm-infer inspect runs/quickstart
///   minillm-infer inspect runs/quickstart --prompt "Once upon a time" --out page.html
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to follow through the model
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "prompt_ids")]
    prompt: Option<String>,
    /// The text as token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', allow_hyphen_values = true)]
    prompt_ids: Option<Vec<u32>>,
    /// The page to write; needs a prompt [default: inspect.html]
    #[arg(long, value_name = "REPORT.html")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: JsonArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Inspection<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(flatten)]
    internals: Option<&'a Internals>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let checkpoint = args.model.load()?;
    let summary = Summary::new(checkpoint.model.config());
    let mut ids = match (&args.prompt_ids, &args.prompt) {
        (Some(ids), _) => ids.clone(),
        (None, Some(prompt)) => encode_prompt(tokenizer(&checkpoint)?, prompt)?,
        (None, None) if args.out.is_some() => {
            let problem = "`--out` is a page about a text, and there is none".to_owned();
            return Err(Error::Request { problem, hint: "give a text with --prompt".to_owned() });
        }
        (None, None) => return print(&if args.output.json { json(&summary, None)? } else { text(&summary) }),
    };
    let most = most_tokens(checkpoint.model.config());
    let left_out = ids.len().saturating_sub(most);
    if left_out > 0 {
        tracing::warn!("the prompt has {} tokens; shown are the first {most}", ids.len());
        ids.truncate(most);
    }
    let internals = Internals::new(&checkpoint.model, checkpoint.tokenizer.as_ref(), &ids)?;
    if args.output.json {
        print(&json(&summary, Some(&internals))?)?;
    }
    if args.output.json && args.out.is_none() {
        return Ok(());
    }
    let out = args.out.as_deref().unwrap_or(Path::new("inspect.html"));
    let html = page(&default_name(&args.model.model), &summary, &internals, left_out);
    fs::create_dir_all(durable::parent(out))
        .and_then(|()| fs::write(out, html))
        .map_err(io_error("write", "the page"))?;
    note(format_args!("wrote {}", out.display()));
    Ok(())
}

fn json(summary: &Summary, internals: Option<&Internals>) -> Result<String> {
    let text = serde_json::to_string(&Inspection { summary, internals });
    let text = text.map_err(|error| io_error("write", "the numbers as JSON")(error.into()))?;
    Ok(text + "\n")
}

/// The parts as a table.
fn text(summary: &Summary) -> String {
    let row = |name: &str, parameters: usize, flops: usize, bytes: usize| {
        let share = 100.0 * parameters as f64 / summary.parameters as f64;
        let [parameters, flops, bytes] = [parameters, flops, bytes].map(count);
        format!("{name:<36} {parameters:>15} {share:>6.1} % {flops:>17} {bytes:>17}\n")
    };
    let mut text =
        format!("{:<36} {:>15} {:>8} {:>17} {:>17}\n", "part", "parameters", "share", "FLOPs per token", "bytes");
    for part in &summary.parts {
        let blocks = if part.count > 1 { format!(", {} blocks", part.count) } else { String::new() };
        text += &row(&format!("{}{blocks}", part.name), part.parameters, part.flops_per_token, part.bytes);
    }
    text += &row("total", summary.parameters, summary.flops_per_token, summary.bytes);
    let (each, context) = (summary.kv_cache_bytes_per_token(), summary.context);
    let [all, each, context] = [each * context, each, context].map(count);
    text + &format!("\nFLOPs are of the forward pass with {context} tokens in view, bytes are of f32.\n")
        + &format!("The K/V cache takes {each} bytes per token, {all} for {context} tokens.\n")
}

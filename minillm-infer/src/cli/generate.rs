//! `minillm-infer generate`: continue a prompt.

use minillm_infer::error::{Error, Result};
use minillm_infer::generate::{FinishReason, Generated, Tokens, encode_prompt, text, tokenizer};
use minillm_infer::output::{note, print};
use minillm_infer::sampling::Sampling;
use minillm_model::tokenizer::Tokenizer;
use serde_json::json;

use super::arguments::{ModelArgs, WeightsArgs};

/// Continue a prompt
///
/// Text goes to stdout as it is generated, rates to stderr.
///
///   minillm-infer generate runs/quickstart --prompt "Once upon a time"
///   minillm-infer generate runs/quickstart --prompt "One day" --temperature 0 --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to continue
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "prompt_ids",
        conflicts_with = "prompt_ids"
    )]
    prompt: Option<String>,
    /// The prompt as token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', allow_hyphen_values = true)]
    prompt_ids: Option<Vec<u32>>,
    /// Stop after this many tokens
    #[arg(long, value_name = "N", default_value_t = 200, allow_negative_numbers = true)]
    max_new_tokens: usize,
    /// 0 always takes the likeliest token; 1 draws from the model's own distribution
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f32,
    /// Draw from the K likeliest tokens only
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have probability P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Draw from the tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Above 1: make tokens that were there before less likely
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// Stop before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// The same seed gives the same text
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Print one JSON object at the end instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let checkpoint = args.model.load_with(&args.weights)?;
    let prompt = match (&args.prompt_ids, &args.prompt) {
        (Some(ids), _) => ids.clone(),
        (None, Some(prompt)) => encode_prompt(tokenizer(&checkpoint)?, prompt)?,
        (None, None) => Vec::new(), // clap asks for one of the two
    };
    if args.stop.iter().any(String::is_empty) {
        let hint = "leave it out to stop at the end of the text or after --max-new-tokens".to_owned();
        return Err(Error::Request { problem: "`--stop` is an empty text".to_owned(), hint });
    }
    if !args.stop.is_empty() {
        tokenizer(&checkpoint)?; // without one there is no text to stop at
    }
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        seed: args.seed,
    };
    let tokens = Tokens::new(&checkpoint.model, &prompt, args.max_new_tokens, &sampling)?.end_at(&checkpoint.end_ids);

    // All in the pool at once: from outside it, every token would have to wake a thread.
    let generated = checkpoint.model.compute().run(|| match &checkpoint.tokenizer {
        Some(tokenizer) => generate_text(args, tokenizer, tokens),
        None => generate_ids(args, tokens),
    })?;
    let (prefill, decode) = (generated.rates.prefill_tokens_per_second, generated.rates.decode_tokens_per_second);
    if args.json {
        let object = json!({
            "prompt_ids": prompt,
            "ids": generated.ids,
            "text": generated.text,
            "finish_reason": generated.finish_reason.as_str(),
            "prefill_tokens_per_second": prefill,
            "decode_tokens_per_second": decode,
        });
        print(&format!("{object}\n"))?;
    } else {
        print("\n")?;
    }
    if generated.has_forgotten {
        let context = checkpoint.model.config().context();
        tracing::warn!("the model sees {context} tokens at once; the beginning was forgotten on the way");
    }
    note(format_args!("prompt {prefill:.0} tokens/s, generation {decode:.0} tokens/s"));
    Ok(())
}

fn generate_text(args: &Args, tokenizer: &Tokenizer, tokens: Tokens) -> Result<Generated> {
    if let (Some(prompt), false) = (&args.prompt, args.json) {
        print(prompt)?;
    }
    text(tokens, tokenizer, &args.stop, |piece| if args.json { Ok(()) } else { print(piece) })
}

/// Without a tokenizer, ids are all there is to print.
fn generate_ids(args: &Args, mut tokens: Tokens) -> Result<Generated> {
    for id in tokens.by_ref() {
        let id = id?;
        if !args.json {
            print(&format!("{id} "))?;
        }
    }
    Ok(Generated {
        ids: tokens.generated().to_vec(),
        text: String::new(),
        finish_reason: tokens.finished().unwrap_or(FinishReason::Length),
        has_forgotten: tokens.has_forgotten(),
        rates: tokens.rates(),
    })
}

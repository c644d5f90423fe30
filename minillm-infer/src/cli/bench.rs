//! `minillm-infer bench`: how fast a model reads a prompt and writes after it.

use std::num::NonZeroUsize;

use minillm_infer::error::{Error, Result};
use minillm_infer::generate::Tokens;
use minillm_infer::memory::{device_memory_bytes, peak_memory_bytes};
use minillm_infer::output::print;
use minillm_infer::sampling::Sampling;
use minillm_model::random::stream;
use minillm_model::stats;
use rand::RngExt;
use serde_json::json;

use super::arguments::{JsonArgs, ModelArgs, WeightsArgs};

/// Measure the speed of generation: a random prompt, then greedy tokens
///
///   minillm-infer bench runs/quickstart --prompt-tokens 64 --new-tokens 64
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "64", allow_negative_numbers = true)]
    prompt_tokens: NonZeroUsize,
    /// Tokens generated after it
    #[arg(long, value_name = "N", default_value = "64", allow_negative_numbers = true)]
    new_tokens: NonZeroUsize,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    output: JsonArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let checkpoint = args.model.load_with(&args.weights)?;
    let (prompt_tokens, new_tokens) = (args.prompt_tokens.get(), args.new_tokens.get());
    let config = checkpoint.model.config();
    let context = config.context();
    if prompt_tokens + new_tokens > context {
        return Err(Error::Request {
            problem: format!("{prompt_tokens} + {new_tokens} tokens are more than the model's context of {context}"),
            hint: "choose smaller --prompt-tokens or --new-tokens".to_owned(),
        });
    }
    let mut rng = stream(0, "bench");
    let prompt: Vec<u32> = (0..prompt_tokens).map(|_| rng.random_range(0..config.vocab_size as u32)).collect();
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let generate = |count| -> Result<_> {
        let mut tokens = Tokens::new(&checkpoint.model, &prompt, count, &greedy)?;
        checkpoint.model.compute().run(|| tokens.by_ref().try_for_each(|id| id.map(drop)))?;
        Ok(tokens.rates())
    };
    generate(2)?; // compiles kernels, fills caches
    let rates = generate(new_tokens + 1)?; // the first comes with the prompt

    let report = json!({
        "prefill_tokens_per_second": rates.prefill_tokens_per_second,
        "decode_tokens_per_second": rates.decode_tokens_per_second,
        "parameters": stats::parameters(config).total(),
        "weight_bytes": checkpoint.model.weight_bytes(),
        "kv_cache_bytes": stats::kv_cache_bytes_per_token(config) * (prompt_tokens + new_tokens),
        "peak_memory_bytes": peak_memory_bytes(),
        "device_memory_bytes": device_memory_bytes(&checkpoint.model.device()),
    });
    if args.output.json {
        return print(&format!("{report}\n"));
    }
    for (name, value) in report.as_object().into_iter().flatten() {
        print(&format!("{name:<26} {value}\n"))?;
    }
    Ok(())
}

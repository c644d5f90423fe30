//! `minillm-train plan`: what a configuration needs, before it is run.

use std::path::PathBuf;

use minillm_infer::cli::output::print;
use minillm_infer::device::{self, Found};
use minillm_infer::memory::{available_memory_bytes, peak_memory_bytes};
use minillm_model::config::ModelConfig;
use minillm_model::ops::Kernels;
use minillm_model::stats;
use serde_json::{Map, Value, json};

use super::cache_dir;
use super::progress::Bars;
use crate::config::{KernelChoice, RunConfig};
use crate::data::{self, Shape};
use crate::error::{Error, Result};
use crate::plan::calibrate::{Calibration, calibrate};
use crate::plan::memory::{Memory, Moment, Way, memory};
use crate::plan::{Suggestion, evaluations, suggest};
use crate::start::architecture_of;

/// Say what a run will need before its first step: parameters, FLOPs, memory, time
///
///   minillm-train plan configs/quickstart.toml
///   minillm-train plan configs/gpt2-124m.toml --memory 16
///
/// Prepares the text as `train` does, and takes ten steps to measure the speed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A configuration file, as in configs/
    config: PathBuf,
    /// Change a key of the file; may be given several times
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    set: Vec<String>,
    /// What to compute on: auto, or a name from `minillm-train devices`
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Memory to fit into, in gigabytes [default: what is free now, where the system tells]
    #[arg(long, value_name = "GB", allow_negative_numbers = true)]
    memory: Option<f64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// All that is said.
struct Plan {
    config: RunConfig,
    found: Found,
    model: ModelConfig,
    fast: Memory,
    readable: Memory,
    /// Whether `train.kernels` is `readable`.
    is_readable: bool,
    calibration: Calibration,
    /// In bytes.
    limit: Option<u64>,
    suggestion: Option<Suggestion>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = RunConfig::load(&args.config, &args.set)?;
    let limit = limit(args)?;
    let found = device::open(&args.device)?;
    let shape = Shape { context: config.train.context, batch_size: config.train.batch_size, seed: config.seed };
    let corpus = data::prepare(&config.data, &config.tokenizer, &shape, &cache_dir()?, &Bars::default())?;
    let model = architecture_of(&config, &corpus.tokenizer)?;
    let kernels = config.train.kernels_on(&found.device)?;
    let way = Way::on(&found, kernels); // of this process before there are tensors in it
    let with = |kernels| memory(&model, &config, &Way { kernels, ..way });
    let plan = Plan {
        fast: with(Kernels::fastest(&found.device)),
        readable: with(Kernels::READABLE),
        is_readable: config.train.kernels == KernelChoice::Readable,
        suggestion: limit.and_then(|bytes| suggest(&model, &config, &way, bytes)),
        limit,
        calibration: calibrate(&config, &corpus, &found)?,
        config,
        found,
        model,
    };
    let text = if args.json { format!("{}\n", plan.to_json()) } else { plan.to_text() };
    Ok(print(&text)?)
}

impl Plan {
    /// Of the form that the configuration chose.
    fn chosen(&self) -> &Memory {
        if self.is_readable { &self.readable } else { &self.fast }
    }

    /// From the first step to the last evaluation; checkpoints and samples are not counted.
    fn seconds(&self) -> f64 {
        let Calibration { step_seconds, evaluation_seconds, .. } = self.calibration;
        step_seconds * self.config.train.max_steps as f64 + evaluation_seconds * evaluations(&self.config) as f64
    }

    fn to_json(&self) -> Value {
        let suggestion = self.suggestion.as_ref().map(|fits| {
            json!({
                "micro_batch_size": fits.micro_batch_size,
                "accumulation": fits.accumulation,
                "recompute": fits.recompute,
                "peak_memory_bytes": fits.peak,
            })
        });
        let parts = by_part(&self.model).into_iter().map(|(name, size)| (name.to_owned(), json!(size)));
        json!({
            "parameters": stats::parameters(&self.model).total(),
            "parameters_by_part": parts.collect::<Map<_, _>>(),
            "flops_per_token": stats::training_flops_per_token(&self.model, self.config.train.context),
            "kv_cache_bytes_per_token": stats::kv_cache_bytes_per_token(&self.model),
            "memory": { "fast": memory_to_json(&self.fast), "readable": memory_to_json(&self.readable) },
            "peak_memory_bytes": self.chosen().peak(),
            "calibrating_steps": self.calibration.steps,
            "calibrating_peak_memory_bytes": peak_memory_bytes(),
            "tokens_per_second": self.calibration.tokens_per_second,
            "ms_per_step": self.calibration.step_seconds * 1e3,
            "evaluation_seconds": self.calibration.evaluation_seconds,
            "seconds": self.seconds(),
            "memory_limit_bytes": self.limit,
            "suggestion": suggestion,
        })
    }

    fn to_text(&self) -> String {
        let Self { config, model, fast, readable, calibration, .. } = self;
        let wide = |name: &str, number: usize| format!("{name:<28} {number:>13}");
        let mut lines = vec![wide("parameters", stats::parameters(model).total())];
        lines.extend(by_part(model).into_iter().map(|(name, size)| wide(&format!("  {name}"), size)));
        lines.push(wide("FLOPs a token, in training", stats::training_flops_per_token(model, config.train.context)));
        lines.push(wide("cache bytes a token", stats::kv_cache_bytes_per_token(model)));
        lines.push(wide("  for a whole context", stats::kv_cache_bytes_per_token(model) * model.context()));

        let pair = |name: &str, [fast, readable]: [String; 2]| format!("{name:<28} {fast:>13} {readable:>13}");
        let both = |of: &dyn Fn(&Memory) -> usize| [fast, readable].map(|memory| megabytes(of(memory)));
        lines.push(String::new());
        lines.push(pair("memory at its peak", ["fast", "readable"].map(str::to_owned)));
        lines.push(pair("  which is", [fast, readable].map(|memory| when(memory.peak_moment()).to_owned())));
        for (part, _) in &fast.parts {
            let of = |memory: &Memory| memory.part(part).unwrap_or_default();
            lines.push(pair(&format!("  {}", part.replace('_', " ")), both(&of)));
        }
        lines.push(pair("all", both(&Memory::peak)));

        let Calibration { steps, step_seconds, tokens_per_second, evaluation_seconds } = calibration;
        let kernels = if self.is_readable { "readable" } else { "fast" };
        lines.push(String::new());
        lines.push(format!("{steps} steps, {kernels}, on {} ({}):", self.found.name, self.found.description));
        lines.push(format!("  {:.1} ms a step, {tokens_per_second:.0} tokens a second", step_seconds * 1e3));
        if let Some(bytes) = peak_memory_bytes() {
            let (measured, predicted) = (megabytes(bytes as usize), megabytes(self.chosen().peak()));
            lines.push(format!("  memory at its peak {measured}, predicted {predicted}"));
        }
        let (all, times) = (config.train.max_steps, evaluations(config));
        lines.push(format!(
            "{all} steps and {times} evaluations of {evaluation_seconds:.1} s: {}",
            duration(self.seconds())
        ));
        lines.push(String::new());
        lines.push(self.advice());
        lines.join("\n") + "\n"
    }

    fn advice(&self) -> String {
        let Some(bytes) = self.limit else {
            return "how much memory there is, is not known here: give it with --memory GB".to_owned();
        };
        let limit = megabytes(bytes as usize);
        let Some(Suggestion { micro_batch_size, accumulation, recompute, peak }) = self.suggestion else {
            return format!("nothing fits into {limit}: choose a smaller model or context, or another device");
        };
        let settings = format!("--set train.micro_batch_size={micro_batch_size} --set train.recompute={recompute}");
        let plural = if accumulation == 1 { "" } else { "es" };
        let peak = megabytes(peak);
        format!("to fit into {limit}: {settings}\n  {accumulation} micro-batch{plural} a step, predicted peak {peak}")
    }
}

/// What a step must fit into.
fn limit(args: &Args) -> Result<Option<u64>> {
    match args.memory {
        Some(gigabytes) if gigabytes > 0.0 && gigabytes.is_finite() => Ok(Some((gigabytes * 1e9) as u64)),
        Some(gigabytes) => Err(Error::Config {
            origin: "command line".to_owned(),
            field: "--memory".to_owned(),
            problem: format!("is {gigabytes}, which is no size"),
            hint: "give gigabytes, as in `--memory 8`".to_owned(),
        }),
        None => Ok(available_memory_bytes()),
    }
}

/// Parameters of all blocks together.
fn by_part(model: &ModelConfig) -> [(&'static str, usize); 6] {
    let count = stats::parameters(model);
    [
        ("embedding", count.embedding),
        ("positions", count.positions),
        ("attention", count.blocks * count.attention),
        ("mlp", count.blocks * count.mlp),
        ("norms", count.blocks * count.norms + count.final_norm),
        ("output", count.output),
    ]
}

fn when(moment: Moment) -> &'static str {
    match moment {
        Moment::Forward => "after forward",
        Moment::Backward => "after backward",
        Moment::Saving => "when saving",
    }
}

fn memory_to_json(memory: &Memory) -> Value {
    let parts = |moment: Moment| {
        let parts = memory.parts.iter().map(|(part, bytes)| ((*part).to_owned(), json!(bytes[moment as usize])));
        Value::Object(parts.collect())
    };
    json!({
        "peak_memory_bytes": memory.peak(),
        "forward": parts(Moment::Forward),
        "backward": parts(Moment::Backward),
        "saving": parts(Moment::Saving),
    })
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes} min {rest:02} s"),
        _ => format!("{hours} h {minutes:02} min"),
    }
}

//! `minillm-train plan`: what a configuration needs, before it is run.

use std::time::Duration;

use minillm_infer::device::DeviceInfo;
use minillm_infer::memory::{available_memory_bytes, peak_memory_bytes};
use minillm_infer::number::{duration, megabytes};
use minillm_infer::output::print;
use minillm_model::config::ModelConfig;
use minillm_model::ops::ComputeOptions;
use minillm_model::stats;
use minillm_train::config::{KernelChoice, RunConfig};
use minillm_train::error::{Error, Result};
use minillm_train::objective;
use minillm_train::plan::calibrate::{Calibration, calibrate};
use minillm_train::plan::memory::{ExecutionSetup, Memory, Phase, memory};
use minillm_train::plan::{Suggestion, evaluations, suggest};
use minillm_train::start::architecture_of;
use serde_json::{Map, Value, json};

use super::arguments::{ConfigArgs, DeviceArgs, JsonArgs};
use super::cache_dir;
use super::progress::Bars;

/// Say what a run will need before its first step: parameters, FLOPs, memory, time
///
///   minillm-train plan configs/quickstart.toml
///   minillm-train plan configs/gpt2-124m.toml --memory 16
///
/// Prepares the text as `train` does, and takes ten steps to measure the speed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Memory to fit into, in gigabytes [default: what is free now, where the system tells]
    #[arg(long, value_name = "GB", allow_negative_numbers = true)]
    memory: Option<f64>,
    #[command(flatten)]
    output: JsonArgs,
}

/// All that is said.
struct Plan {
    config: RunConfig,
    found: DeviceInfo,
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
    let config = args.config.load()?;
    let limit = limit(args)?;
    let found = args.device.open()?;
    let objective = objective::prepare(&config, &cache_dir()?, &Bars::default())?;
    let model = architecture_of(&config, objective.tokenizer())?;
    let compute = config.train.compute_on(&found.device)?;
    let setup = ExecutionSetup::on(&found, compute); // of this process before there are tensors in it
    let with = |compute| memory(&model, &config, &ExecutionSetup { compute, ..setup });
    let plan = Plan {
        fast: with(ComputeOptions::fastest(&found.device)),
        readable: with(ComputeOptions::READABLE),
        is_readable: config.train.kernels == KernelChoice::Readable,
        suggestion: limit.and_then(|bytes| suggest(&model, &config, &setup, bytes)),
        limit,
        calibration: calibrate(&config, &*objective, &found)?,
        config,
        found,
        model,
    };
    let text = if args.output.json { format!("{}\n", plan.to_json()) } else { plan.to_text() };
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
        lines.push(pair("  which is", [fast, readable].map(|memory| when(memory.peak_phase()).to_owned())));
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
            duration(Duration::from_secs_f64(self.seconds().round()))
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

fn when(phase: Phase) -> &'static str {
    match phase {
        Phase::Forward => "after forward",
        Phase::Backward => "after backward",
        Phase::Saving => "when saving",
    }
}

fn memory_to_json(memory: &Memory) -> Value {
    let parts = |phase: Phase| {
        let parts = memory.parts.iter().map(|(part, bytes)| ((*part).to_owned(), json!(bytes[phase as usize])));
        Value::Object(parts.collect())
    };
    json!({
        "peak_memory_bytes": memory.peak(),
        "forward": parts(Phase::Forward),
        "backward": parts(Phase::Backward),
        "saving": parts(Phase::Saving),
    })
}

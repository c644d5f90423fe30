//! `minillm-train bench`: how fast a configuration trains here.

use std::num::NonZeroUsize;
use std::time::Instant;

use burn::tensor::Device;
use minillm_infer::device::DeviceInfo;
use minillm_infer::launches::Launches;
use minillm_infer::memory::{device_memory_bytes, peak_memory_bytes};
use minillm_infer::output::print;
use minillm_model::decoder::LanguageModel;
use minillm_model::ops::ComputeOptions;
use minillm_model::{init, random, stats};
use minillm_train::config::RunConfig;
use minillm_train::data::Batch;
use minillm_train::error::{Error, Result};
use minillm_train::optimizer::ModelOptimizer;
use minillm_train::step::{StepOptions, train_step};
use minillm_train::trainable::Trainable;
use minillm_train::workers::Workers;
use rand::RngExt;
use serde_json::{Value, json};

use super::arguments::{ConfigArgs, DeviceArgs, JsonArgs};

/// Measure training speed on random tokens: full optimiser steps, no data needed
///
///   `minillm-train bench configs/quickstart.toml --set model.vocab_size=1024`
///
/// `model.vocab_size` is needed, as there is no tokenizer.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Measured steps
    #[arg(long, value_name = "N", default_value = "50", allow_negative_numbers = true)]
    steps: NonZeroUsize,
    /// Steps before measuring: the first ones compile kernels and fill caches
    #[arg(long, value_name = "N", default_value_t = 5, allow_negative_numbers = true)]
    warmup: usize,
    /// Measure with the layers as written, then with one fast form after the other added (see `train.kernels`)
    #[arg(long, alias = "ladder")]
    ablate: bool,
    /// Count what one step asks of a GPU: launches by operation, bytes read and written at least
    #[arg(long, conflicts_with = "ablate")]
    launches: bool,
    #[command(flatten)]
    output: JsonArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let config = args.config.load()?;
    if config.model.from.is_some() {
        return Err(Error::Config {
            origin: args.config.path.display().to_string(),
            field: "model.from".to_owned(),
            problem: "is given, and bench measures the model of a configuration".to_owned(),
            hint: "write out the model's sizes; `from` changes no speed".to_owned(),
        });
    }
    let Some(vocab_size) = config.model.vocab_size else {
        return Err(Error::Config {
            origin: args.config.path.display().to_string(),
            field: "model.vocab_size".to_owned(),
            problem: "is not given, and bench trains no tokenizer".to_owned(),
            hint: "add `--set model.vocab_size=1024`".to_owned(),
        });
    };
    let found = args.device.open()?;
    if args.ablate {
        return ablate(args, &config, vocab_size, &found);
    }
    let report = measure(args, &config, vocab_size, &found, config.train.compute_on(&found.device)?)?;
    if args.output.json {
        print(&format!("{report}\n"))?;
        return Ok(());
    }
    print(&format!("device              {} ({})\n", found.name, found.description))?;
    for (name, value) in report.as_object().into_iter().flatten() {
        print(&format!("{name:<19} {value}\n"))?;
    }
    Ok(())
}

/// What each fast form buys: the same steps again and again, with one more of them each time.
fn ablate(args: &Args, config: &RunConfig, vocab_size: usize, found: &DeviceInfo) -> Result<()> {
    let mut steps = Vec::new();
    for (name, compute) in config.train.compute_on(&found.device)?.cumulative() {
        let report = measure(args, config, vocab_size, found, compute)?;
        let rate = report["tokens_per_second"].as_f64().unwrap_or(f64::NAN);
        if !args.output.json {
            let first: f64 = steps.first().map_or(rate, |(_, rate)| *rate);
            print(&format!("{name:<16} {rate:>10.0} tokens/s {:>6.2} x\n", rate / first))?;
        }
        steps.push((name, rate));
    }
    if args.output.json {
        let steps: Vec<_> =
            steps.iter().map(|(name, rate)| json!({ "kernels": name, "tokens_per_second": rate })).collect();
        print(&format!("{}\n", json!({ "ladder": steps })))?;
    }
    Ok(())
}

/// Takes the steps that `args` asks for and returns what `--json` prints.
fn measure(
    args: &Args,
    config: &RunConfig,
    vocab_size: usize,
    found: &DeviceInfo,
    compute: ComputeOptions,
) -> Result<Value> {
    let device = found.device.clone().autodiff();
    let model_config = config.model.resolve(vocab_size, config.train.context);
    let model = LanguageModel::new(&model_config, &device)?.with_compute(compute);
    let mut model = init::initialize(model, config.seed);
    let mut optimizer = ModelOptimizer::new(&config.optimizer).training(Trainable::of(config));
    let workers = Workers::new(found.training_threads(), config.train.micro_batch_size())?;

    let (mut start, mut loss) = (Instant::now(), 0.0);
    let steps = args.steps.get();
    for step in 0..args.warmup + steps {
        if step == args.warmup {
            start = Instant::now();
        }
        let batch = random_batch(config, vocab_size, step);
        let rate = config.optimizer.learning_rate; // the same at every step, so that the losses of two benches compare
        let options = StepOptions { learning_rate: rate, ..StepOptions::of(config, &model_config, step) };
        let (moved, result) = train_step(model, &mut optimizer, &batch, &workers, &options)?;
        (model, loss) = (moved, result.loss);
    }
    wait_for(&device);
    let seconds = start.elapsed().as_secs_f64();
    let mut launches = None;
    if args.launches {
        let batch = random_batch(config, vocab_size, args.warmup + steps);
        let options = StepOptions::of(config, &model_config, args.warmup + steps);
        let (result, found) = Launches::of(|| {
            let result = train_step(model, &mut optimizer, &batch, &workers, &options);
            wait_for(&device);
            result
        });
        result?;
        launches = Some(found);
    }

    let tokens = steps * config.train.batch_size * config.train.context;
    let mut report = json!({
        "tokens_per_second": tokens as f64 / seconds,
        "ms_per_step": seconds * 1e3 / steps as f64,
        "parameters": stats::parameters(&model_config).total(),
        "peak_memory_bytes": peak_memory_bytes(),
        "device_memory_bytes": device_memory_bytes(&device),
        "loss": loss,
    });
    if let Some(launches) = launches {
        report["launches"] = launches.total().into();
        report["launches_by_operation"] = json!(launches.by_operation);
        report["bytes_moved_at_least"] = launches.bytes.into();
    }
    Ok(report)
}

fn random_batch(config: &RunConfig, vocab_size: usize, step: usize) -> Batch {
    let (rows, context) = (config.train.batch_size, config.train.context);
    let mut rng = random::stream(random::derive(config.seed, &[step as u64]), "bench");
    let inputs: Vec<i32> = (0..rows * context).map(|_| rng.random_range(0..vocab_size as i32)).collect();
    // Any fixed function of the input will do, so that the loss has something to fall on.
    let targets = inputs.iter().map(|&id| ((i64::from(id) * 7 + 3) % vocab_size as i64) as i32).collect();
    Batch { inputs, targets, rows, context, ..Batch::default() }
}

/// Kernels may still be running when the last step returns.
fn wait_for(device: &Device) {
    if let Err(error) = device.sync() {
        tracing::warn!("the device reports: {error}");
    }
}

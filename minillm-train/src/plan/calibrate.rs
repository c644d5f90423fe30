//! How fast a configuration trains here: some steps of the run itself, on its own text, and then forgotten.

use std::time::{Duration, Instant};

use burn::module::Module;
use minillm_infer::device::DeviceInfo;

use crate::config::RunConfig;
use crate::data::Batch;
use crate::error::Result;
use crate::evaluate::nats;
use crate::objective::Objective;
use crate::optimizer::ModelOptimizer;
use crate::start::start;
use crate::step::{StepOptions, train_step};
use crate::trainable::Trainable;
use crate::workers::Workers;

/// Steps before measuring: the first ones compile kernels and fill caches.
const WARMUP: usize = 3;
/// Steps that are measured at least.
const STEPS: usize = 10;
/// And as many as take this long: a small model's ten are over too soon to say much.
const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// The number of measured steps.
    pub steps: usize,
    /// Of an optimiser step, its batch included.
    pub step_seconds: f64,
    /// Tokens of an optimiser step per second, padding left out.
    pub tokens_per_second: f64,
    /// The time of an evaluation.
    pub evaluation_seconds: f64,
}

/// Trains some steps and scores some of the validation text.
pub fn calibrate(config: &RunConfig, objective: &dyn Objective, found: &DeviceInfo) -> Result<Calibration> {
    let device = found.device.clone().autodiff();
    let compute = config.train.compute_on(&device)?;
    let mut model = start(config, objective.tokenizer(), &device)?.with_compute(compute);
    let mut optimizer = ModelOptimizer::new(&config.optimizer).training(Trainable::of(config));
    let workers = Workers::new(found.training_threads(), config.train.micro_batch_size())?;
    let wait = || {
        if let Err(error) = device.sync() {
            tracing::warn!("the device reports: {error}"); // kernels may still be running when a step returns
        }
    };

    let (mut start, mut steps, mut tokens) = (Instant::now(), 0, 0);
    for step in 0.. {
        if step == WARMUP {
            wait();
            (start, tokens) = (Instant::now(), 0);
        }
        steps = step - WARMUP.min(step);
        if steps >= STEPS && start.elapsed() >= LONG_ENOUGH {
            break;
        }
        let batch = objective.batch(step)?;
        let options = StepOptions::of(config, model.config(), step);
        (model, _) = train_step(model, &mut optimizer, &batch, &workers, &options)?;
        tokens += batch.tokens();
    }
    wait();
    let seconds = start.elapsed().as_secs_f64();

    let scored = model.valid();
    let rows = config.train.micro_batch_size().div_ceil(workers.count());
    // A part of the validation text, in as many batches at once as the workers take.
    let all = objective.validation(rows).collect::<Result<Vec<Batch>>>()?;
    let some = all.len().min(workers.count() * 8);
    let start = Instant::now();
    let count = all.len();
    nats(&scored, &workers, all.into_iter().take(some).map(Ok))?;
    let evaluation_seconds = start.elapsed().as_secs_f64() * count as f64 / some.max(1) as f64;
    Ok(Calibration {
        steps,
        step_seconds: seconds / steps as f64,
        tokens_per_second: tokens as f64 / seconds,
        evaluation_seconds,
    })
}

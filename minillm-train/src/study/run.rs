//! One run of a study, in a process of its own: training, then what is measured of the trained model.
//!
//! ```text
//! DIR/runs/VARIANT/seed-N/
//!   study-run.json    what to do, written by the study
//!   ...               the run, as `minillm-train train` leaves it
//!   result.json       what came out, written last: a run that has it is done
//! ```
//!
//! A process of its own, because the peak of memory is one of a whole process, and because whatever ends it, a kill
//! included, ends one run and not the study. A run that diverges is a result like any other.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use fs_err as fs;
use minillm_infer::device::open;
use minillm_infer::memory::peak_memory_bytes;
use minillm_model::checkpoint::durable;

use super::json::{read_error, read_json, write_json};
use super::result::{Divergence, Environment, PLAN_FILE, RESULT_FILE, RunPlan, RunResult};
use super::run_metrics::RunMetrics;
use super::trained::Trained;
use crate::config::RunConfig;
use crate::data::Progress;
use crate::error::{Error, Result};
use crate::interrupt::{Interrupt, Signal};
use crate::run_dir::{CONFIG_FILE, METRICS_FILE, OpenMode, RunDir, SAMPLES_FOLDER};
use crate::session::Session;

/// How a run's process ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// There is a result.
    Done,
    /// It was asked to stop, and saved.
    Interrupted(Signal),
}

/// Does what `directory`'s plan says, or continues with it, and writes the result.
pub fn run(directory: &Path, device: &str, label: &str, cache_dir: &Path, progress: &dyn Progress) -> Result<RunEnd> {
    let start = Instant::now();
    let plan: RunPlan = read_json(&directory.join(PLAN_FILE))?;
    let config = RunConfig::parse(&plan.config, &directory.join(PLAN_FILE), &[])?;
    let found = open(device)?;
    let mode = if RunDir::holds_run(directory)? { OpenMode::Resume } else { OpenMode::New };
    let session = Session {
        config: &config,
        out: directory,
        mode,
        found: &found,
        label: Some(label),
        disk: Arc::new(durable::System),
    };
    let trainer = session.open(cache_dir, progress)?;
    let interrupt = Interrupt::install()?;
    interrupt.at_end_of(std::io::stdin())?;

    let diverged = match trainer.run(&interrupt) {
        Ok(outcome) => match outcome.interrupted {
            Some(signal) if outcome.steps < config.train.max_steps => return Ok(RunEnd::Interrupted(signal)),
            // If all steps were taken before, this process has not trained, and its peak says nothing.
            _ => Ok(outcome.evaluation.is_some()),
        },
        Err(Error::NotFinite { step, what }) => Err(Divergence { step, what }),
        Err(other) => return Err(other),
    };
    let trained_here = *diverged.as_ref().unwrap_or(&true);
    let peak_memory_bytes = if trained_here { peak_memory_bytes() } else { None };
    let metrics = RunMetrics::read(&directory.join(METRICS_FILE))?;
    let mut result = RunResult {
        variant: plan.variant,
        seed: plan.seed,
        environment: Environment::here(&found),
        steps: config.train.max_steps,
        diverged: diverged.err(),
        validation: metrics.last,
        contexts: Vec::new(),
        tokens_per_second: metrics.tokens_per_second,
        peak_memory_bytes,
        decode_tokens_per_second: None,
        seconds: 0.0,
        curve: metrics.curve,
        sample: None,
        config: fs::read_to_string(directory.join(CONFIG_FILE)).map_err(read_error)?,
    };
    if let Some(Divergence { step, .. }) = &result.diverged {
        (result.steps, result.validation) = (step - 1, None);
    } else {
        let sample = directory.join(SAMPLES_FOLDER).join(format!("step-{:06}.txt", config.train.max_steps));
        result.sample = fs::read_to_string(sample).ok().map(|text| text.trim().to_owned());
        let model = Trained::load(directory, &config, &found)?;
        result.contexts = model.contexts(&plan.evaluate, cache_dir, progress)?;
        result.decode_tokens_per_second = Some(model.decoding_rate(plan.evaluate.decode_tokens)?);
    }
    result.seconds = start.elapsed().as_secs_f64();
    write_json(&directory.join(RESULT_FILE), &result)?;
    Ok(RunEnd::Done)
}

//! Before the first step: how large a model is, what training it needs, how long it takes, and how to make it fit.

pub mod calibrate;
pub mod memory;

use minillm_model::config::ModelConfig;

use self::memory::{ExecutionSetup, memory};
use crate::config::RunConfig;

/// Memory is left over for what a prediction may be short of: of 35 that were measured (`tools/measure_plan.py --memory`), 30
/// were within 15 %, and the shortest was 18 % short.
const MARGIN: f64 = 1.15;

/// Settings under which a step fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// `train.micro_batch_size`
    pub micro_batch_size: usize,
    /// Micro-batches in a step, which follows from it.
    pub accumulation: usize,
    /// `train.recompute`
    pub recompute: bool,
    /// What it is predicted to need, in bytes.
    pub peak: usize,
}

/// The fastest way to take a step of `train.batch_size` sequences within `bytes`: large micro-batches before small ones, as
/// long as each worker has a sequence; then the same with blocks computed twice, which costs a quarter of the time; then
/// ever smaller ones. `None` if nothing fits.
pub fn suggest(model: &ModelConfig, config: &RunConfig, setup: &ExecutionSetup, bytes: u64) -> Option<Suggestion> {
    let batch = config.train.batch_size;
    let halves = |least: usize| {
        let smaller = move |size: &usize| (*size > least).then(|| size.div_ceil(2).max(least));
        std::iter::successors(Some(batch), smaller)
    };
    let busy = setup.threads.clamp(1, batch);
    let candidates = halves(busy).map(|size| (size, false)).chain(halves(busy).map(|size| (size, true)));
    let candidates = candidates.chain(halves(1).map(|size| (size, true)));
    let candidate = |(micro_batch_size, recompute)| {
        let mut config = config.clone();
        config.train.micro_batch_size = Some(micro_batch_size);
        config.train.recompute = recompute;
        let peak = memory(model, &config, setup).peak();
        Suggestion { micro_batch_size, accumulation: batch.div_ceil(micro_batch_size), recompute, peak }
    };
    candidates.map(candidate).find(|suggestion| suggestion.peak as f64 * MARGIN <= bytes as f64)
}

/// How many steps are followed by an evaluation: every n-th and the last.
pub fn evaluations(config: &RunConfig) -> usize {
    config.train.max_steps.div_ceil(config.eval.every_steps.max(1))
}

#[cfg(test)]
mod tests {
    use minillm_model::config::ModelOptions;
    use minillm_model::ops::ComputeOptions;

    use super::*;

    #[test]
    fn the_suggestion_fits_and_is_the_fastest_that_does() {
        let model = ModelOptions { hidden_size: Some(256), ..ModelOptions::default() }.resolve(1000, 512);
        let mut config = RunConfig::default();
        (config.train.batch_size, config.train.context) = (24, 512);
        let setup = ExecutionSetup { compute: ComputeOptions::READABLE, threads: 4, process: None };
        let at = |gigabytes: f64| suggest(&model, &config, &setup, (gigabytes * 1e9) as u64);
        let roomy = at(1000.0).unwrap();
        assert_eq!((roomy.micro_batch_size, roomy.accumulation, roomy.recompute), (24, 1, false));
        assert_eq!(at(0.001), None);
        let mut last = roomy.peak;
        for tenths in (1..200).rev() {
            let gigabytes = f64::from(tenths) / 10.0;
            let Some(found) = at(gigabytes) else { continue };
            assert!(found.peak as f64 * MARGIN <= gigabytes * 1e9);
            assert!(found.peak <= last, "less memory never suggests more");
            assert!(found.recompute || found.micro_batch_size >= 4, "no worker idles before recomputing");
            last = found.peak;
        }
    }

    #[test]
    fn the_last_step_is_evaluated_too() {
        let mut config = RunConfig::default();
        (config.train.max_steps, config.eval.every_steps) = (1000, 300);
        assert_eq!(evaluations(&config), 4);
        config.train.max_steps = 900;
        assert_eq!(evaluations(&config), 3);
    }
}

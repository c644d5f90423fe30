//! One optimiser step: forward and backward over the micro-batches, clip, update.
//!
//! The loss of a step is the mean over the scored tokens of the *whole* batch. Each micro-batch contributes its summed loss
//! divided by that common count, so that the gradients add up to those of one large batch, however it is split and
//! however unevenly the padding falls.

use std::fmt::Display;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::layers::dropout::Dropout;
use minillm_model::ops::Precision;
use minillm_model::ops::multi_tensor;
use minillm_model::ops::update::StepLimits;
use minillm_model::parameters;
use minillm_model::random::derive;

use crate::config::RunConfig;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::later::Later;
use crate::optimizer::ModelOptimizer;
use crate::recompute;
use crate::schedule::learning_rate;
use crate::workers::Workers;

/// What a step needs to know besides the batch.
#[derive(Clone, Copy, Debug)]
pub struct StepOptions {
    /// The step about to be taken, counted from 1.
    pub step: usize,
    /// Where dropout's masks come from, with `step`.
    pub seed: u64,
    /// Share of values dropped.
    pub dropout: f64,
    /// Sequences per forward and backward pass.
    pub micro_batch_size: usize,
    /// Largest norm of all gradients together; 0 = no limit.
    pub grad_clip: f64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Whether the blocks compute twice to need less memory.
    pub recompute: bool,
    /// Beyond them the step is not taken.
    pub limits: Option<Limits>,
}

impl StepOptions {
    /// Of the step after `steps` of a run.
    pub fn of(config: &RunConfig, model: &ModelConfig, steps: usize) -> Self {
        let RunConfig { seed, train, optimizer, schedule, .. } = config;
        Self {
            step: steps + 1,
            seed: *seed,
            dropout: model.dropout,
            micro_batch_size: train.micro_batch_size(),
            grad_clip: train.grad_clip,
            learning_rate: learning_rate(schedule, optimizer.learning_rate, steps, train.max_steps),
            recompute: train.recompute,
            limits: None,
        }
    }
}

impl StepOptions {
    /// What the device needs to know to clip, and to leave a step out.
    fn step_limits(&self) -> StepLimits {
        let finite = StepLimits::finite(self.grad_clip);
        self.limits.map_or(finite, |Limits { loss, grad_norm }| StepLimits { loss, grad_norm, ..finite })
    }
}

/// The largest loss and gradient norm of a step that is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Nats per token.
    pub loss: f64,
    /// Of all gradients together, before clipping.
    pub grad_norm: f64,
}

impl Limits {
    /// Whether a step with this loss and gradient norm is a spike.
    pub fn are_exceeded_by(&self, loss: f64, grad_norm: f64) -> bool {
        loss > self.loss || grad_norm > self.grad_norm
    }
}

/// What a step was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean over the scored tokens, in nats, before the update.
    pub loss: f64,
    /// Of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Nothing was updated: beyond the limits, or not a token to learn from.
    pub skipped: bool,
}

/// Moves `model` by one step on `batch`, and waits for the result. On a loss or gradient that is not finite nothing is updated.
pub fn train_step(
    model: LanguageModel,
    optimizer: &mut ModelOptimizer,
    batch: &Batch,
    workers: &Workers,
    options: &StepOptions,
) -> Result<(LanguageModel, StepResult)> {
    let computed = Computed::new(&model, optimizer, batch, workers, options);
    let (model, result) = computed.update(model, optimizer, workers, options)?;
    let result = result.wait(&model, optimizer)?;
    Ok((model, result))
}

/// The loss of a batch and its gradients: the first half of a step. On a GPU they may still be on their way.
pub struct Computed {
    /// Summed over the micro-batches, one number each; none without a token to learn from.
    losses: Vec<Tensor<1>>,
    gradients: Gradients,
    /// What loss and gradients are still to be divided by.
    divisor: usize,
}

impl Computed {
    /// Forward and backward, one micro-batch at a time; losses and gradients add up.
    pub fn new(
        model: &LanguageModel,
        optimizer: &ModelOptimizer,
        batch: &Batch,
        workers: &Workers,
        options: &StepOptions,
    ) -> Self {
        let (mut losses, mut gradients, scored) = (Vec::new(), Gradients::default(), batch.predicted());
        if scored == 0 {
            return Self { losses, gradients, divisor: 1 }; // nothing to learn from
        }
        // In f16 small gradients vanish: there the backward pass starts from the summed loss, and the division comes after it.
        let divide_late = model.compute().precision == Precision::F16;
        // Weights are shares of the whole already.
        let scored = if batch.weights.is_empty() { scored } else { 1 };
        let (now, later) = if divide_late { (1, scored) } else { (scored, 1) };
        for first in (0..batch.rows).step_by(options.micro_batch_size) {
            let rows = first..batch.rows.min(first + options.micro_batch_size);
            let shares = shares(rows, workers.count());
            let trainable = optimizer.trainable();
            let results = workers.map(shares, |rows| {
                // The same weights as leaves of a graph of their own: workers share no tape.
                let model = trainable.freeze_others(model.valid().train());
                forward_backward(&model, batch, rows, now, options)
            });
            for (loss, gradient) in results {
                losses.push(loss);
                gradients.add(gradient);
            }
        }
        if divide_late {
            gradients = gradients.scaled(1.0 / scored as f64);
        }
        Self { losses, gradients, divisor: later }
    }

    /// Clips by the global norm, so that the direction stays the same, and moves `model`: the second half of a step. Where the
    /// optimiser works on many tensors at once, clipping and the checks of loss and norm run on the device, which is not waited for;
    /// elsewhere the result is known when this returns.
    pub fn update(
        self,
        model: LanguageModel,
        optimizer: &mut ModelOptimizer,
        workers: &Workers,
        options: &StepOptions,
    ) -> Result<(LanguageModel, Pending)> {
        let Self { losses, gradients, divisor } = self;
        let mut losses = losses.into_iter();
        let Some(first) = losses.next() else {
            return Ok((model, Pending::Known(StepResult { loss: 0.0, grad_norm: 0.0, skipped: true })));
        };
        let compute = model.compute();
        let loss = if losses.len() == 0 {
            first
        } else if compute.multi_tensor {
            losses.fold(first, |sum, loss| sum + loss) // Burn's sum may want an addition that not every GPU has
        } else {
            Tensor::cat(std::iter::once(first).chain(losses).collect(), 0).sum()
        };
        let loss = if divisor == 1 { loss } else { loss / divisor as f64 };
        if compute.multi_tensor {
            let limits = options.step_limits();
            let control = multi_tensor::step_control(gradients.all(), loss, limits, compute.multi_tensor);
            let values = Later::of(control.clone());
            let model = optimizer.step_on_device(model, gradients, &control, options.learning_rate);
            return Ok((model, Pending::OnDevice { values, step: options.step }));
        }

        // Read loss and norm in one transfer: the only time the device is waited for.
        let read = Tensor::cat(vec![loss, gradients.norm(compute)], 0).try_into_vec_as::<f32>();
        let (loss, grad_norm) = loss_and_norm(&read, options.step)?;
        check_finite(loss, grad_norm, options.step, &model, || gradients.first_not_finite().map(str::to_owned))?;
        if options.limits.is_some_and(|limits| limits.are_exceeded_by(loss, grad_norm)) {
            return Ok((model, Pending::Known(StepResult { loss, grad_norm, skipped: true })));
        }
        let is_too_long = options.grad_clip > 0.0 && grad_norm > options.grad_clip;
        let grad_factor = if is_too_long { options.grad_clip / grad_norm } else { 1.0 };
        let model = optimizer.step(model, gradients, grad_factor, options.learning_rate, workers);
        Ok((model, Pending::Known(StepResult { loss, grad_norm, skipped: false })))
    }
}

/// The result of a step, which the device may still be computing.
pub enum Pending {
    /// There it is.
    Known(StepResult),
    /// Loss, norm and the gradients' factor are on their way.
    OnDevice {
        /// Those three.
        values: Later,
        /// The step that they are of.
        step: usize,
    },
}

impl Pending {
    /// Waits for the result. `model` is what the step left, to name a weight that is not finite; `optimizer` took the step, and counts it no
    /// longer if it was left out.
    pub fn wait(self, model: &LanguageModel, optimizer: &mut ModelOptimizer) -> Result<StepResult> {
        let (values, step) = match self {
            Self::Known(result) => return Ok(result),
            Self::OnDevice { values, step } => (values, step),
        };
        let device = |problem| Err(Error::Device { step, problem });
        match values.wait().as_deref() {
            Ok(&[loss, grad_norm, factor]) => {
                let (loss, grad_norm) = (f64::from(loss), f64::from(grad_norm));
                check_finite(loss, grad_norm, step, model, || Some("a parameter".to_owned()))?;
                let skipped = factor < 0.0;
                if skipped {
                    optimizer.uncount_step();
                }
                Ok(StepResult { loss, grad_norm, skipped })
            }
            Ok(other) => device(format!("it gave {} numbers for a loss, a norm and a factor", other.len())),
            Err(error) => device(error.clone()),
        }
    }
}

/// That a step is one to learn from; else an error that names what is not finite.
fn check_finite(
    loss: f64,
    grad_norm: f64,
    step: usize,
    model: &LanguageModel,
    gradient: impl FnOnce() -> Option<String>,
) -> Result<()> {
    let what = if !loss.is_finite() {
        match parameters::first_not_finite(model) {
            Some(name) => format!("{name}, and so the loss,"),
            None => "the loss".to_owned(),
        }
    } else if !grad_norm.is_finite() {
        format!("the gradient of {}", gradient().unwrap_or_else(|| "the sum of all squares".to_owned()))
    } else {
        return Ok(());
    };
    Err(Error::NotFinite { step, what })
}

/// The loss and the gradients' norm as they were read from the device.
fn loss_and_norm(read: &Result<Vec<f32>, impl Display>, step: usize) -> Result<(f64, f64)> {
    let problem = match read.as_deref() {
        Ok(&[loss, grad_norm]) => return Ok((f64::from(loss), f64::from(grad_norm))),
        Ok(other) => format!("it gave {} numbers for a loss and a norm", other.len()),
        Err(error) => error.to_string(),
    };
    Err(Error::Device { step, problem })
}

/// Cuts rows into as many ranges as there are workers, or fewer.
fn shares(rows: Range<usize>, workers: usize) -> Vec<Range<usize>> {
    let share = rows.len().div_ceil(workers);
    rows.clone().step_by(share).map(|first| first..rows.end.min(first + share)).collect()
}

/// Loss and gradients of some rows, as their share of the whole batch's: divided by the scored tokens of all of it.
fn forward_backward(
    model: &LanguageModel,
    batch: &Batch,
    rows: Range<usize>,
    divisor: usize,
    options: &StepOptions,
) -> (Tensor<1>, Gradients) {
    let device = model.device();
    let tokens = rows.start * batch.context..rows.end * batch.context;
    let tensor = |ids: &[i32]| {
        let data = TensorData::new(ids[tokens.clone()].to_vec(), [rows.len(), batch.context]);
        Tensor::<2, Int>::from_data(data, &device) // [B, T]
    };
    let documents = batch.documents(rows.clone());
    // One seed per sequence, so that the masks do not depend on the split either.
    let seeds = rows.clone().map(|row| derive(options.seed, &[options.step as u64, row as u64]));
    let drop = Dropout::new(options.dropout, seeds.collect());

    let before = if batch.weights.is_empty() { 0 } else { batch.pieces(0..rows.start).count() };
    let loss_of = |model: &LanguageModel, hidden: Tensor<3>| {
        let targets = tensor(&batch.targets);
        if batch.weights.is_empty() {
            return model.summed_loss(hidden, targets) / divisor as f64; // [1]
        }
        let pieces = batch.pieces(rows.clone()).zip(&batch.weights[before..]);
        let losses = pieces.map(|((row, tokens), &weight)| {
            let at = [row..row + 1, tokens];
            model.summed_loss(hidden.clone().slice(at.clone()), targets.clone().slice(at)) * weight // [1]
        });
        Tensor::cat(losses.collect(), 0).sum() / divisor as f64 // [1]
    };
    if options.recompute {
        return recompute::forward_backward(model, tensor(&batch.inputs), documents.as_ref(), drop, loss_of);
    }
    let hidden = model.hidden_states_of(tensor(&batch.inputs), documents, drop); // [B, T, D]
    let loss = loss_of(model, hidden);
    let gradients = Gradients::collect(model, loss.backward());
    (loss.inner(), gradients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_failed_is_no_loss_that_is_not_finite() {
        assert_eq!(loss_and_norm(&Ok::<_, String>(vec![0.5, 2.0]), 7).unwrap(), (0.5, 2.0));
        let error = loss_and_norm(&Err("the device is lost"), 7).unwrap_err();
        assert_eq!(error.to_string(), "the device failed before the end of step 7: the device is lost");
        assert!(matches!(loss_and_norm(&Ok::<_, String>(vec![0.5]), 7), Err(Error::Device { step: 7, .. })));
    }
}

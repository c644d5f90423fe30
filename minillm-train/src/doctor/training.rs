//! A tiny model's first steps, by the training's own `train_step`: its losses, and the gradient of each parameter.
//!
//! The losses show what single operations cannot: that gradients are added up, clipped and applied. The gradients show
//! what the losses may hide: a parameter that gets none still trains, only worse.

use burn::module::Param;
use burn::tensor::{Gradients, Tensor};
use minillm_model::cases::inputs::{SEED, ids};
use minillm_model::config::{ModelConfig, ModelOptions, Preset};
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::layers::dropout::Dropout;
use minillm_model::ops::ComputeOptions;
use minillm_model::parameters::{self, ParameterVisitor};
use minillm_model::random::{derive, stream};
use rand::RngExt;

use super::check::{Check, Computed, Group, Part, Setting};
use crate::config::OptimizerConfig;
use crate::data::{Batch, IGNORED};
use crate::optimizer::ModelOptimizer;
use crate::step::{StepOptions, train_step};
use crate::workers::Workers;

/// Steps whose losses are stored.
pub const STEPS: usize = 10;

const VOCABULARY: usize = 31;
const CONTEXT: usize = 16;
const ROWS: usize = 4;

/// Large enough that ten steps change the loss, small enough that rounding is not blown up.
const LEARNING_RATE: f64 = 3e-3;

/// Losses of the first steps on `flex` with the readable forms, in nats per token: written by the ignored test
/// `write_the_reference`.
const QWEN3_LOSSES: [f32; STEPS] = [
    3.855_086_8,
    3.771_622_2,
    3.740_297_3,
    3.652_288_2,
    3.275_651_2,
    3.241_266,
    2.982_530_8,
    2.982_082_1,
    2.908_052,
    2.639_354_2,
];
const GPT2_LOSSES: [f32; STEPS] = [
    4.296_493_5,
    3.795_672_4,
    3.604_773_3,
    3.860_523_7,
    3.517_417_7,
    3.397_951_8,
    3.165_714_7,
    3.363_399_3,
    3.291_976_5,
    3.199_570_7,
];

/// The checks of ten steps, and of the gradients of the first.
pub fn checks() -> Vec<Check> {
    // Norms of these gradients are between 0.03 and 3; that of GPT-2's key bias is zero but for rounding, as what is
    // added to all scores of a row changes none of its weights.
    let gradients = |name, config: fn() -> ModelConfig| {
        let compute = move |setting: &Setting| gradient_norms(&model(&config(), setting)?, setting);
        Check { smallest: 1e-3, ..Check::new(Group::Gradients, name, has_any, compute) }
    };
    vec![
        steps_of("training qwen3", qwen3, STEPS),
        steps_of("training gpt2", gpt2, STEPS),
        gradients("gradients qwen3", qwen3),
        gradients("gradients gpt2", gpt2),
    ]
}

/// Two steps of the model with more mechanisms: what there is time for before a run.
pub fn quick_check() -> Check {
    steps_of("training qwen3", qwen3, 2)
}

fn steps_of(name: &'static str, config: fn() -> ModelConfig, steps: usize) -> Check {
    let compute = move |setting: &Setting| -> Computed {
        let mut parts = Vec::new();
        train(&config(), setting, steps, |step, loss| {
            parts.push(Part { what: loss_of(step), values: vec![loss as f32] });
        })?;
        Ok(parts)
    };
    Check::new(Group::Training, name, has_any, compute)
}

fn has_any(compute: &ComputeOptions) -> bool {
    *compute != ComputeOptions::READABLE
}

/// What the stored losses are called: check, part, nats per token.
pub fn stored_losses() -> impl Iterator<Item = (&'static str, String, f32)> {
    [("training qwen3", QWEN3_LOSSES), ("training gpt2", GPT2_LOSSES)].into_iter().flat_map(|(name, losses)| {
        losses.into_iter().enumerate().map(move |(index, loss)| (name, loss_of(index + 1), loss))
    })
}

fn loss_of(step: usize) -> String {
    format!("loss of step {step}")
}

/// RMSNorm, rotary positions, SwiGLU, normalised queries and keys, two query heads to each key/value head.
pub fn qwen3() -> ModelConfig {
    tiny(Preset::Qwen3)
}

/// LayerNorm, learned positions, GELU, biases, a tied output matrix.
pub fn gpt2() -> ModelConfig {
    tiny(Preset::Gpt2)
}

fn tiny(preset: Preset) -> ModelConfig {
    let options = ModelOptions {
        preset,
        hidden_size: Some(32),
        intermediate_size: Some(48),
        num_hidden_layers: Some(2),
        num_attention_heads: Some(4),
        num_key_value_heads: (preset != Preset::Gpt2).then_some(2),
        initializer_range: Some(0.2), // about 1 / sqrt(32): every part has a say in the result from the first step on
        ..ModelOptions::default()
    };
    options.resolve(VOCABULARY, CONTEXT)
}

/// The model of `config` with initial weights, on the device with autodiff.
pub fn model(config: &ModelConfig, setting: &Setting) -> Result<LanguageModel, String> {
    let model = LanguageModel::new(config, &setting.place.device).map_err(|error| error.to_string())?;
    Ok(init::initialize(model.with_compute(setting.place.compute), SEED))
}

/// Trains the model of `config`; `report` is told the step, from 1 on, and its loss in nats per token. Fails, in words,
/// if a loss or gradient is not finite.
pub fn train(
    config: &ModelConfig,
    setting: &Setting,
    steps: usize,
    mut report: impl FnMut(usize, f64),
) -> Result<(), String> {
    let mut model = model(config, setting)?;
    let mut optimizer = ModelOptimizer::new(&OptimizerConfig::default());
    let workers = Workers::new(setting.threads, ROWS).map_err(|error| error.to_string())?;
    for step in 1..=steps {
        let options = StepOptions {
            step,
            seed: SEED,
            dropout: 0.0,
            micro_batch_size: ROWS,
            grad_clip: 1.0,
            learning_rate: LEARNING_RATE,
            recompute: false,
            limits: None,
        };
        let batch = batch(config, step);
        let done = train_step(model, &mut optimizer, &batch, &workers, &options);
        let (moved, result) = done.map_err(|error| error.to_string())?;
        model = moved;
        report(step, result.loss);
    }
    Ok(())
}

/// Random tokens, each followed by a fixed function of itself; one target in nine is padding.
fn batch(config: &ModelConfig, step: usize) -> Batch {
    let mut rng = stream(derive(SEED, &[step as u64]), "batch");
    let vocabulary = config.vocab_size as i32;
    let context = config.max_position_embeddings;
    let inputs: Vec<i32> = (0..ROWS * context).map(|_| rng.random_range(0..vocabulary)).collect();
    let targets =
        inputs.iter().enumerate().map(|(index, id)| if index % 9 == 8 { IGNORED } else { (id * 7 + 3) % vocabulary });
    Batch { targets: targets.collect(), inputs, rows: ROWS, context, ..Batch::default() }
}

/// The L2 norm of each parameter's gradient on the first batch; no values where a parameter has none.
pub fn gradient_norms(model: &LanguageModel, setting: &Setting) -> Computed {
    let batch = batch(&qwen3(), 1); // vocabulary and context are those of both models
    let hidden = model.hidden_states(ids(&batch.inputs, ROWS, &setting.place.device), None, Dropout::default());
    let loss = model.summed_loss(hidden, ids(&batch.targets, ROWS, &setting.place.device)) / batch.predicted() as f64;
    let mut norms = Norms { gradients: loss.backward(), parts: Ok(Vec::new()) };
    parameters::visit(model, &mut norms);
    norms.parts
}

struct Norms {
    gradients: Gradients,
    parts: Computed,
}

impl ParameterVisitor for Norms {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        let Ok(parts) = &mut self.parts else { return };
        let what = format!("gradient of `{name}`");
        let Some(gradient) = param.val().grad(&self.gradients) else {
            parts.push(Part { what, values: Vec::new() });
            return;
        };
        match Part::read(what, gradient) {
            Ok(Part { what, values }) => {
                let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
                parts.push(Part { what, values: vec![squares.sqrt() as f32] });
            }
            Err(problem) => self.parts = Err(problem),
        }
    }
}

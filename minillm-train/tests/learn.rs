//! Learning itself: one batch by heart with every switch, dropout that matters, micro-batches that do not.

#![allow(missing_docs, clippy::unwrap_used)]

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use minillm_infer::device;
use minillm_model::checkpoint::weights;
use minillm_model::config::{AttentionBias, MlpKind, ModelConfig, ModelOptions, NormKind, Position, Preset};
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::ops::ComputeOptions;
use minillm_model::parameters::{self, ParameterMapper};
use minillm_train::config::OptimizerConfig;
use minillm_train::data::Batch;
use minillm_train::optimizer::ModelOptimizer;
use minillm_train::step::{Limits, StepOptions, train_step};
use minillm_train::workers::Workers;

const OPTIONS: StepOptions = StepOptions {
    step: 1,
    seed: 3,
    dropout: 0.0,
    micro_batch_size: 4,
    grad_clip: 1.0,
    learning_rate: 1e-2,
    recompute: false,
    limits: None,
};

fn batch() -> Batch {
    let (rows, context) = (4, 8);
    let id = |i: i32| (i * i * 7 + i * 3) % 11;
    let inputs = (0..rows * context).map(id).collect();
    let targets = (0..rows * context).map(|i| if i % 8 == 7 { -1 } else { id(i + 1) }).collect();
    Batch { inputs, targets, rows: rows as usize, context: context as usize, ..Batch::default() }
}

fn config() -> ModelConfig {
    let options = ModelOptions { hidden_size: Some(32), num_hidden_layers: Some(1), ..ModelOptions::default() };
    options.resolve(11, 8)
}

fn device() -> Device {
    device::open("flex").unwrap().device.autodiff()
}

/// Losses of `steps` steps on the same batch.
fn losses(config: &ModelConfig, options: StepOptions, workers: usize, steps: usize) -> Vec<f64> {
    losses_with(ComputeOptions::fastest(&device()), config, options, workers, steps)
}

fn losses_with(
    compute: ComputeOptions,
    config: &ModelConfig,
    options: StepOptions,
    workers: usize,
    steps: usize,
) -> Vec<f64> {
    let device = device();
    let workers = Workers::new(workers, 4).unwrap();
    let mut model = init::initialize(LanguageModel::new(config, &device).unwrap(), 1).with_compute(compute);
    let mut optimizer = ModelOptimizer::new(&OptimizerConfig::default());
    let step = |step| {
        let options = StepOptions { step, ..options };
        let (moved, result) = train_step(model.clone(), &mut optimizer, &batch(), &workers, &options).unwrap();
        model = moved;
        result.loss
    };
    (1..=steps).map(step).collect()
}

#[test]
fn every_switch_learns_a_batch_by_heart() {
    let variants = [
        config(),
        ModelConfig { norm: NormKind::LayerNorm, ..config() },
        ModelConfig { position: Position::Learned, ..config() },
        ModelConfig { position: Position::None, ..config() },
        ModelConfig { num_key_value_heads: 2, ..config() },
        ModelConfig { num_key_value_heads: 1, ..config() },
        ModelConfig { mlp: MlpKind::Gelu, ..config() },
        ModelConfig { mlp: MlpKind::GeluErf, ..config() },
        ModelConfig { mlp: MlpKind::Relu2, ..config() },
        ModelConfig { attention_bias: AttentionBias::Qkv, ..config() },
        ModelConfig { attention_bias: AttentionBias::All, mlp_bias: true, ..config() },
        ModelConfig { qk_norm: true, ..config() },
        ModelConfig { tie_word_embeddings: true, ..config() },
        ModelConfig { head_dim: 4, ..config() },
        ModelOptions { preset: Preset::Gpt2, hidden_size: Some(32), ..ModelOptions::default() }.resolve(11, 8),
    ];
    for variant in variants {
        let losses = losses(&variant, OPTIONS, 1, 120);
        assert!(losses[0] > 2.0, "{variant:?}: {losses:?}");
        assert!(losses[119] < 0.1, "{}, {variant:?}", losses[119]);
    }
}

#[test]
fn neither_workers_nor_micro_batches_change_the_loss() {
    for dropout in [0.0, 0.2] {
        let options = StepOptions { dropout, ..OPTIONS };
        let whole = losses(&config(), options, 1, 10);
        for (micro_batch_size, workers) in [(1, 1), (3, 1), (4, 2), (4, 3), (3, 2)] {
            let split = losses(&config(), StepOptions { micro_batch_size, ..options }, workers, 10);
            for (a, b) in whole.iter().zip(&split) {
                // f32 sums in another order, amplified over ten steps of a large learning rate
                assert!((a - b).abs() < 1e-3 * a, "{micro_batch_size} rows, {workers} workers: {whole:?} {split:?}");
            }
        }
    }
}

#[test]
fn computing_twice_changes_nothing() {
    let deep = ModelConfig { num_hidden_layers: 3, ..config() };
    let gpt2 = ModelOptions { preset: Preset::Gpt2, hidden_size: Some(32), ..ModelOptions::default() }.resolve(11, 8);
    let tied = ModelConfig { tie_word_embeddings: true, sliding_window: Some(3), ..deep.clone() };
    for config in [deep, gpt2, tied] {
        let options = StepOptions { dropout: 0.2, micro_batch_size: 3, ..OPTIONS };
        let once = losses(&config, options, 2, 8);
        let twice = losses(&config, StepOptions { recompute: true, ..options }, 2, 8);
        for (a, b) in once.iter().zip(&twice) {
            // Where a value is used twice, its two gradients are added in another order.
            assert!((a - b).abs() < 1e-5 * a, "{config:?}: {once:?} {twice:?}");
        }
    }
}

#[test]
fn the_readable_form_learns_the_same() {
    let options = StepOptions { learning_rate: 1e-3, ..OPTIONS };
    let readable = losses_with(ComputeOptions::READABLE, &config(), options, 1, 200);
    let fast = losses(&config(), options, 1, 200);
    assert!(fast[199] < 0.5 * fast[0], "{fast:?}");
    for (step, (a, b)) in readable.iter().zip(&fast).enumerate() {
        assert!((a - b).abs() < 1e-3, "step {step}: {a} readable, {b} fast"); // nats
    }
    assert_ne!(readable, fast, "not one bit differs: was it the same form?");
}

#[test]
fn the_same_workers_give_the_same_bits() {
    assert_eq!(losses(&config(), OPTIONS, 2, 10), losses(&config(), OPTIONS, 2, 10));
}

#[test]
fn dropout_slows_learning_by_heart() {
    let with = losses(&config(), StepOptions { dropout: 0.5, ..OPTIONS }, 1, 60);
    let without = losses(&config(), OPTIONS, 1, 60);
    assert!(with[59] > 2.0 * without[59], "{} {}", with[59], without[59]);
}

#[test]
fn the_first_step_moves_by_the_learning_rate() {
    // AdamW's first update is lr * g / (|g| + eps): every weight with a gradient moves by lr, and matrices also decay.
    let device = device();
    let config = config();
    let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 1);
    let before = model.model.norm.clone();
    let mut optimizer = ModelOptimizer::new(&OptimizerConfig::default());
    let workers = Workers::new(1, 4).unwrap();
    let (model, result) = train_step(model, &mut optimizer, &batch(), &workers, &OPTIONS).unwrap();
    assert!(result.grad_norm > 0.0);
    let (minillm_model::layers::Norm::Rms(before), minillm_model::layers::Norm::Rms(after)) =
        (before, model.model.norm)
    else {
        panic!("the config says rmsnorm")
    };
    let moved = (after.weight.val() - before.weight.val()).abs().try_into_vec_as::<f32>().unwrap();
    for value in moved {
        assert!((value - 1e-2).abs() < 1e-5, "{value}");
    }
}

/// Replaces the parameter `name` by what `change` makes of its values.
struct Poison<F>(&'static str, F);

impl<F: Fn(f32) -> f32> ParameterMapper for Poison<F> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if name != self.0 {
            return param;
        }
        let (shape, device) = (param.shape(), param.device());
        let values: Vec<f32> = param.val().try_to_vec_as::<f32>().unwrap().into_iter().map(&self.1).collect();
        Param::from_data(TensorData::new(values, shape), &device)
    }
}

/// One step from the model that `poison` makes; the error's text.
fn refused(name: &'static str, poison: impl Fn(f32) -> f32) -> String {
    let (device, config) = (device(), config());
    let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 1);
    let model = parameters::map(model, &mut Poison(name, poison));
    let mut optimizer = ModelOptimizer::new(&OptimizerConfig::default());
    let workers = Workers::new(1, 4).unwrap();
    match train_step(model, &mut optimizer, &batch(), &workers, &OPTIONS) {
        Ok((_, result)) => panic!("{result:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_not_finite_is_named() {
    let weight = "model.layers.0.self_attn.o_proj.weight";
    let message = refused(weight, |value| if value > 0.0 { f32::NAN } else { value });
    assert_eq!(message, format!("step 1: {weight}, and so the loss, is not finite"));
    // Finite weights, and a loss of 1e30 that f32 holds; the squares of its gradients it does not hold.
    let message = refused("lm_head.weight", |value| value * 1e30);
    assert!(message.starts_with("step 1: the gradient of model."), "{message}");
    // Finite weights, and a product of two that is not.
    assert_eq!(
        refused("lm_head.weight", |value| value * 1e38 * 1e2),
        "step 1: lm_head.weight, and so the loss, is not finite"
    );
}

#[test]
fn a_step_that_is_skipped_leaves_no_trace() {
    let (device, config) = (device(), config());
    let workers = Workers::new(1, 4).unwrap();
    let padding = Batch { targets: vec![-1; batch().targets.len()], ..batch() };
    let limits = |loss, grad_norm| Some(Limits { loss, grad_norm });
    let skipped = [
        (batch(), limits(0.1, 1e9)),  // a loss of 2.4 is beyond
        (batch(), limits(1e9, 1e-3)), // so is its gradient
        (padding, None),              // nothing to learn from
    ];
    let run = |with_skipped: bool| {
        let mut model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 1);
        let mut optimizer = ModelOptimizer::new(&OptimizerConfig::default());
        let mut step = |batch: &Batch, limits| {
            let options = StepOptions { limits, ..OPTIONS };
            let (moved, result) = train_step(model.clone(), &mut optimizer, batch, &workers, &options).unwrap();
            model = moved;
            result.skipped
        };
        for _ in 0..3 {
            assert!(!step(&batch(), limits(1e9, 1e9)));
            for (batch, limits) in skipped.iter().filter(|_| with_skipped) {
                assert!(step(batch, *limits));
            }
        }
        weights::collect(&model).unwrap()
    };
    assert!(run(true) == run(false));
}

use burn::optim::{AdamWConfig, Optimizer};
use burn::tensor::{Device, Distribution};
use minillm_infer::device;
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::weights;
use minillm_model::config::{ModelConfig, ModelOptions};
use minillm_model::init;
use minillm_model::ops::update::StepLimits;
use minillm_model::ops::{ComputeOptions, multi_tensor};

use super::*;
use crate::config::OptimizerKind;
use crate::data::Batch;
use crate::step::{StepOptions, train_step};

fn flex() -> Device {
    device::open("flex").unwrap().device
}

/// What Burn computes, bit for bit: runs that were begun with it go on as they would have.
#[test]
fn the_readable_form_of_adam_w_is_burns() {
    let device = flex();
    let config = OptimizerConfig { beta1: 0.85, beta2: 0.97, epsilon: 1e-7, weight_decay: 0.3, ..Default::default() };
    let burns = |decay: f64| {
        let (beta1, beta2, epsilon) = (config.beta1 as f32, config.beta2 as f32, config.epsilon as f32);
        let burns = AdamWConfig::new().with_beta_1(beta1).with_beta_2(beta2).with_epsilon(epsilon);
        burns.with_weight_decay(decay as f32).build()
    };
    let random = || Tensor::<1>::random([60], Distribution::Normal(0.0, 1.0), &device);
    for (shape, decay) in [(vec![60], 0.0), (vec![6, 10], config.weight_decay)] {
        let mut rule = ParameterRule::new(&config, "model.norm.weight", &shape);
        let mut weight = random();
        let (mut burns_weight, mut burns_state, burns) = (weight.clone(), None, burns(decay));
        for step in 1..=4 {
            // Zeros of both signs, too: a state may hold them.
            let gradient = random().mask_fill(random().greater_scalar(1.0), 0.0) * random().sign();
            let rate = 1e-2 / f64::from(step);
            (weight, rule) = rule.update(weight, gradient.clone(), 1.0, rate);
            (burns_weight, burns_state) = burns.step(rate, burns_weight, gradient, burns_state);
            let bits = |tensor: &Tensor<1>| -> Vec<u32> {
                tensor.clone().try_into_vec_as::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(&weight), bits(&burns_weight), "step {step}");
            let momentum = burns_state.as_ref().unwrap().momentum.clone();
            let state = rule.tensors().unwrap().into_iter().map(|(_, tensor)| tensor.values);
            let state: Vec<Vec<u32>> = state.map(|values| values.into_iter().map(f32::to_bits).collect()).collect();
            assert_eq!(state, [bits(&momentum.moment_1), bits(&momentum.moment_2)], "step {step}");
        }
    }
}

fn config() -> ModelConfig {
    let options = ModelOptions { hidden_size: Some(16), num_hidden_layers: Some(2), ..ModelOptions::default() };
    options.resolve(11, 8)
}

/// Takes three steps and returns the optimiser, the device and the weights before and after, by name.
fn trained(
    trainable: &Trainable,
    compute: ComputeOptions,
    recompute: bool,
) -> (ModelOptimizer, LanguageModel, [HostTensors; 2]) {
    let device = flex().autodiff();
    let model = LanguageModel::new(&config(), &device).unwrap().with_compute(compute);
    let mut model = init::initialize(model, 1);
    let before = weights::collect(&model).unwrap();
    let kind = OptimizerConfig { kind: OptimizerKind::Muon, ..OptimizerConfig::default() };
    let mut optimizer = ModelOptimizer::new(&kind).training(trainable.clone());
    let ids: Vec<i32> = (0..16).map(|i| (i * i * 7 + i * 3) % 11).collect();
    let batch = Batch {
        targets: ids.iter().map(|id| (id + 1) % 11).collect(),
        inputs: ids,
        rows: 2,
        context: 8,
        ..Batch::default()
    };
    for step in 1..=3 {
        let options = StepOptions {
            step,
            seed: 3,
            dropout: 0.0,
            micro_batch_size: 2,
            grad_clip: 1.0,
            learning_rate: 1e-2,
            recompute,
            limits: None,
        };
        let workers = Workers::new(2, 2).unwrap();
        model = train_step(model, &mut optimizer, &batch, &workers, &options).unwrap().0;
    }
    let after = weights::collect(&model).unwrap();
    (optimizer, model, [before, after])
}

#[test]
fn what_is_frozen_keeps_its_values_and_has_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("optimizer.safetensors");
    let all = Trainable::default();
    let frozen = ["model.embed_tokens.", "model.layers.0.", "model.norm."];
    for compute in [ComputeOptions::fastest(&flex()), ComputeOptions::READABLE] {
        for recompute in [false, true] {
            for trainable in [all.clone(), Trainable::all_but(frozen)] {
                let (optimizer, model, [before, after]) = trained(&trainable, compute, recompute);
                for (name, was) in &before {
                    assert_eq!(was.values != after[name].values, trainable.contains(name), "{name}");
                }
                optimizer.save(&System, &file).unwrap();
                let stored = weights::read(&file).unwrap();
                let of = |tensor: &str| before.keys().find(|name| tensor.starts_with(&format!("{name}."))).cloned();
                let with_state: std::collections::BTreeSet<_> =
                    stored.keys().map(|tensor| of(tensor).unwrap()).collect();
                assert!(before.keys().all(|name| with_state.contains(name) == trainable.contains(name)));

                // The same filter takes the file, and the same state is written from it; another refuses it.
                let kind = OptimizerConfig { kind: OptimizerKind::Muon, ..OptimizerConfig::default() };
                let mut again = ModelOptimizer::new(&kind).training(trainable.clone());
                again.load(&file, &model, 3).unwrap();
                let copy = folder.path().join("again.safetensors");
                again.save(&System, &copy).unwrap();
                assert!(fs_err::read(&copy).unwrap() == fs_err::read(&file).unwrap());
                let other = if trainable == all { Trainable::all_but(frozen) } else { all.clone() };
                assert!(ModelOptimizer::new(&kind).training(other).load(&file, &model, 3).is_err());
            }
        }
    }
}

/// A filter changes what it leaves out and nothing else: the gradients of the others are the same numbers.
#[test]
fn the_first_gradients_of_what_is_trained_do_not_depend_on_the_rest() {
    let frozen = Trainable::all_but(["model.embed_tokens.", "lm_head."]);
    let device = flex().autodiff();
    let model = init::initialize(LanguageModel::new(&config(), &device).unwrap(), 1);
    let gradients = |trainable: &Trainable| {
        let ids = |shift: i32| {
            let ids: Vec<i32> = (0..8).map(|i| (i * i * 7 + shift) % 11).collect();
            Tensor::<2, burn::tensor::Int>::from_data(burn::tensor::TensorData::new(ids, [1, 8]), &device)
        };
        let model = trainable.freeze_others(model.clone());
        let hidden = model.hidden_states(ids(0), None, minillm_model::layers::dropout::Dropout::default());
        Gradients::collect(&model, model.summed_loss(hidden, ids(1)).backward())
    };
    let (mut some, mut all) = (gradients(&frozen), gradients(&Trainable::default()));
    for (name, _) in parameters::list(&model) {
        let values = |gradient: Tensor<1>| gradient.try_into_vec_as::<f32>().unwrap();
        let (some, all) = (some.take(&name).map(values), all.take(&name).map(values));
        assert_eq!(some, all.filter(|_| frozen.contains(&name)), "{name}");
    }
}

/// Steps whose size the device knows, all parameters together and Muon's matrices shape by shape, are those of Burn's optimisers, one
/// parameter after another: to rounding, as Burn's Muon adds in another order. A step that is left out leaves no trace.
#[test]
fn steps_on_the_device_are_steps_parameter_by_parameter() {
    let device = flex().autodiff();
    let kind = OptimizerConfig { kind: OptimizerKind::Muon, ..OptimizerConfig::default() };
    let ids = |shift: i32| {
        let ids: Vec<i32> = (0..16).map(|i| (i * i * 7 + shift) % 11).collect();
        Tensor::<2, burn::tensor::Int>::from_data(burn::tensor::TensorData::new(ids, [2, 8]), &device)
    };
    let trained = |on_device: bool, left_out: usize| {
        let model = LanguageModel::new(&config(), &device).unwrap().with_compute(ComputeOptions::READABLE);
        let (mut model, mut optimizer) = (init::initialize(model, 1), ModelOptimizer::new(&kind));
        let workers = Workers::new(1, 1).unwrap();
        for step in 1..=4 {
            let hidden = model.hidden_states(ids(step), None, minillm_model::layers::dropout::Dropout::default());
            let loss = model.summed_loss(hidden, ids(step + 1));
            let gradients = Gradients::collect(&model, loss.clone().backward());
            let norm = f64::from(gradients.norm(ComputeOptions::READABLE).into_scalar::<f32>());
            let (clip, rate) = (norm / 2.0, 1e-2 / f64::from(step)); // so every gradient is halved
            let is_left_out = step as usize == left_out;
            if on_device {
                let limits = StepLimits {
                    grad_norm: if is_left_out { norm / 4.0 } else { 2.0 * norm },
                    ..StepLimits::finite(clip)
                };
                let control = multi_tensor::step_control(gradients.all(), loss.inner(), limits, false);
                model = optimizer.step_on_device(model, gradients, &control, rate);
                if is_left_out {
                    optimizer.uncount_step();
                }
            } else if !is_left_out {
                model = optimizer.step(model, gradients, 0.5, rate, &workers);
            }
        }
        let rules = optimizer.rules.iter();
        let state = rules.flat_map(|(name, rule)| {
            rule.tensors().unwrap().into_iter().map(move |(of, values)| (format!("{name}.{of}"), values))
        });
        weights::collect(&model).unwrap().into_iter().chain(state).collect::<HostTensors>()
    };
    for left_out in [0, 1, 3] {
        let (expected, got) = (trained(false, left_out), trained(true, left_out));
        assert_eq!(expected.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
        for (name, expected) in expected {
            let largest = expected.values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            for (got, expected) in got[&name].values.iter().zip(&expected.values) {
                assert!(
                    (got - expected).abs() <= 1e-5 * largest,
                    "{name}, step {left_out} left out: {got}, {expected}"
                );
            }
        }
    }
}

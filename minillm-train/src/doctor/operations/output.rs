//! What comes after the last layer: the loss from hidden states, and the optimiser's rule.

use burn::module::Param;
use burn::optim::{AdamWConfig, AdamWState, Optimizer};
use burn::tensor::Tensor;
use minillm_model::config::{ModelConfig, Preset};
use minillm_model::decoder::LanguageModel;
use minillm_model::loss::IGNORED;
use minillm_model::ops::AdamWStep;
use minillm_model::ops::adam_w::{adam_w as fused, sum_of_squares};

use crate::doctor::check::{Computed, Part, Setting};
use crate::doctor::inputs::{both_ways, ids, leaf, random, sized, to};

/// `hidden`: `[B 2, T 5, D 16]`, 37 tokens, one of ten positions not scored; the output matrix is the embedding if `tied`
pub fn cross_entropy(tied: bool, Setting { device, kernels, .. }: &Setting) -> Computed {
    let config = ModelConfig { tie_word_embeddings: tied, ..sized(Preset::Llama, 16, 8, 37) };
    let mut model = LanguageModel::new(&config, device).map_err(|error| error.to_string())?.with_kernels(*kernels);
    let output = match &mut model.lm_head {
        Some(head) => &mut head.weight,               // [D, V]
        None => &mut model.model.embed_tokens.weight, // [V, D]
    };
    *output = Param::from_tensor(random(output.val().dims(), "output", device));
    let output = output.val();
    let hidden = leaf([2, 5, 16], "hidden", device);
    let targets = ids(&[3, 1, 36, 1, IGNORED, 9, 2, 6, 0, 3], 2, device);
    both_ways(model.summed_loss(hidden.clone(), targets), &[to("hidden", &hidden), to("output", &output)])
}

/// Numbers of the parameter that the optimiser moves.
const N: usize = 300;
/// How it moves it; `time` is the step.
const STEP: AdamWStep = AdamWStep {
    time: 1,
    learning_rate: 0.01,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    grad_factor: 0.5,
};

/// Three steps of one parameter, each with a gradient of its own, and the sum of squares that clipping needs.
pub fn adam_w(Setting { plain, kernels, .. }: &Setting) -> Computed {
    let weight = random([N], "weight", plain);
    let gradients = ["first", "second", "third"].map(|name| random([N], &format!("{name} gradient"), plain));
    let squares = gradients[0].clone();
    let ([weight, mean, square], squares) = if kernels.adam_w {
        (fast_steps(weight, gradients), sum_of_squares(squares))
    } else {
        (readable_steps(weight, gradients)?, squares.square().sum())
    };
    Ok(vec![
        Part::read("weight", weight)?,
        Part::read("running mean", mean)?,
        Part::read("running mean of squares", square)?,
        Part::read("sum of squares", squares)?,
    ])
}

/// Weight and running means after a step for each gradient.
fn fast_steps(mut weight: Tensor<1>, gradients: [Tensor<1>; 3]) -> [Tensor<1>; 3] {
    let (mut mean, mut square) = (weight.zeros_like(), weight.zeros_like());
    for (index, gradient) in gradients.into_iter().enumerate() {
        [weight, mean, square] = fused(weight, gradient, mean, square, AdamWStep { time: index + 1, ..STEP });
    }
    [weight, mean, square]
}

/// The same by Burn's rule.
fn readable_steps(mut weight: Tensor<1>, gradients: [Tensor<1>; 3]) -> Result<[Tensor<1>; 3], String> {
    let rule = AdamWConfig::new().with_beta_1(STEP.beta1 as f32).with_beta_2(STEP.beta2 as f32);
    let rule = rule.with_epsilon(STEP.epsilon as f32).with_weight_decay(STEP.weight_decay as f32).build();
    let mut state: Option<AdamWState<1>> = None;
    for gradient in gradients {
        (weight, state) = rule.step(STEP.learning_rate, weight, gradient * STEP.grad_factor, state);
    }
    let AdamWState { momentum } = state.ok_or("the rule kept no state")?;
    Ok([weight, momentum.moment_1, momentum.moment_2])
}

//! What comes after the last layer: the loss from hidden states, and the optimiser's rule.

use burn::module::Param;
use burn::tensor::Tensor;

use super::Place;
use super::inputs::{ids, leaf, random, sized};
use super::prepared::{Prepared, to};
use crate::config::{ModelConfig, Preset};
use crate::decoder::LanguageModel;
use crate::loss::IGNORED;
use crate::ops::AdamWStep;
use crate::ops::adam_w::{adam_w as fused, readable, readable_sum_of_squares, sum_of_squares};
use crate::ops::multi_tensor;
use crate::ops::update::{MuonStep, StepLimits};

/// `hidden`: `[B 2, T, D]`, V tokens, one of ten positions not scored; the output matrix is the embedding if `tied`
pub fn cross_entropy((tied, t, d, v): (bool, usize, usize, usize), Place { device, compute, .. }: &Place) -> Prepared {
    let config = ModelConfig { tie_word_embeddings: tied, ..sized(Preset::Llama, d, 8, v) };
    let mut model = LanguageModel::new(&config, device).expect("a sound configuration").with_compute(*compute);
    let output = match &mut model.lm_head {
        Some(head) => &mut head.weight,               // [D, V]
        None => &mut model.model.embed_tokens.weight, // [V, D]
    };
    *output = Param::from_tensor(random(output.val().dims(), "output", device));
    let output = output.val();
    let hidden = leaf([2, t, d], "hidden", device);
    let few = [3, 1, 36, 1, IGNORED, 9, 2, 6, 0, 3];
    let targets: Vec<i32> = few.iter().copied().cycle().take(2 * t).collect();
    let targets = ids(&targets, 2, device);
    let leaves = vec![to("hidden", &hidden), to("output", &output)];
    Prepared::new(leaves, move || model.summed_loss(hidden.clone(), targets.clone()))
}

/// How the optimiser moves a parameter; `time` is the step.
const STEP: AdamWStep = AdamWStep {
    time: 1,
    learning_rate: 0.01,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weight_decay: 0.1,
    grad_factor: 0.5,
};

/// Three steps of one parameter of `n` numbers, each with a gradient of its own, and the sum of squares that clipping needs.
pub fn adam_w(n: usize, Place { plain, compute, .. }: &Place) -> Prepared {
    let weight = random([n], "weight", plain);
    let gradients = ["first", "second", "third"].map(|name| random([n], &format!("{name} gradient"), plain));
    let is_fast = compute.adam_w;
    Prepared::forward_only(move || {
        let rule = if is_fast { fused } else { readable };
        let (mut weight, mut mean, mut square) = (weight.clone(), weight.zeros_like(), weight.zeros_like());
        for (index, gradient) in gradients.iter().enumerate() {
            let step = AdamWStep { time: index + 1, ..STEP };
            [weight, mean, square] = rule(weight, gradient.clone(), mean, square, step);
        }
        let first: Tensor<1> = gradients[0].clone();
        let squares = if is_fast { sum_of_squares(first) } else { readable_sum_of_squares(&first) };
        vec![
            ("weight", weight),
            ("running mean", mean),
            ("running mean of squares", square),
            ("sum of squares", squares),
        ]
    })
}

/// Three parameters with the control of a step between them, which clips; `beyond` its limits, nothing moves.
pub fn many_parameters(beyond: bool, Place { plain, compute, .. }: &Place) -> Prepared {
    let numbers = |n: usize, what: &str| random([n], &format!("{what} of {n}"), plain);
    let sizes = [1, 300, 5000];
    let parameters = sizes
        .map(|n| [numbers(n, "weight"), numbers(n, "gradient"), numbers(n, "mean"), numbers(n, "square").square()]);
    let loss = random([1], "loss", plain);
    let fast = compute.multi_tensor;
    Prepared::forward_only(move || {
        let gradients = parameters.iter().map(|[_, gradient, ..]| gradient.clone()).collect();
        let limits = StepLimits { grad_norm: if beyond { 1.0 } else { 1e9 }, ..StepLimits::finite(1.0) };
        let control = multi_tensor::step_control(gradients, loss.clone(), limits, fast);
        let steps = vec![AdamWStep { time: 3, grad_factor: 1.0, ..STEP }; 3];
        let moved = multi_tensor::adam_w(parameters.to_vec(), &control, steps, fast);
        let mut outputs = vec![("control", control)];
        let names = [
            ["first weight", "first mean", "first mean of squares"],
            ["second weight", "second mean", "second mean of squares"],
            ["third weight", "third mean", "third mean of squares"],
        ];
        for (names, tensors) in names.into_iter().zip(moved) {
            outputs.extend(names.into_iter().zip(tensors));
        }
        outputs
    })
}

/// A wide matrix and a tall one of the same shape but for that.
pub fn muon([rows, columns]: [usize; 2], Place { plain, compute, .. }: &Place) -> Prepared {
    let numbers = |what: &str| random([rows * columns], what, plain);
    let matrices = [
        [numbers("weight"), numbers("gradient"), numbers("momentum")],
        [numbers("other weight"), numbers("other gradient"), numbers("other momentum")],
    ];
    let fast = compute.multi_tensor;
    let control = Tensor::from_floats([0.0, 0.0, 0.5], plain);
    Prepared::forward_only(move || {
        let step = MuonStep { keep: 0.999, rate: 0.01 };
        let moved = multi_tensor::muon(matrices.to_vec(), &[false, true], [rows, columns], &control, step, fast);
        let names = [["weight", "momentum"], ["other weight", "other momentum"]];
        names.into_iter().zip(moved).flat_map(|(names, tensors)| names.into_iter().zip(tensors)).collect()
    })
}

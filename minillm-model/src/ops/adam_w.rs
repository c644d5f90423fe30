//! The fast form of `AdamW`'s rule: everything about a parameter in one pass, in place.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// What a step of `AdamW` depends on besides the tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// How many steps this parameter has taken, this one included: t.
    pub time: usize,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Share of the old value kept in the running mean of the gradient.
    pub beta1: f64,
    /// Share of the old value kept in the running mean of its square.
    pub beta2: f64,
    /// Added to the root of the latter before dividing by it.
    pub epsilon: f64,
    /// Share of a weight taken away, times the learning rate.
    pub weight_decay: f64,
    /// The gradient is multiplied by this first: clipping by the global norm.
    pub grad_factor: f64,
}

/// Backends with the fast form. An optimiser's step is not differentiated, so there is none for autodiff.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(feature = "cube")
)]
pub trait AdamWOp: Backend {
    /// Weight, gradient, and the running means of it and its square, all of one shape -> all but the gradient, moved.
    fn adam_w(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The sum of the squares: `[1]`.
    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// One step of `AdamW` as its paper has it (Loshchilov & Hutter 2019, arXiv:1711.05101), one tensor operation after the other: the
/// readable form. Its numbers are rounded to f32 before anything is computed from them, as Burn's `AdamW` does.
///
/// # Shapes
/// - all of one length; weight, mean and square come back
pub fn readable(
    weight: Tensor<1>,
    grad: Tensor<1>,
    mean: Tensor<1>,
    square: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let AdamWStep { learning_rate, .. } = step;
    let [beta1, beta2, epsilon, decay] =
        [step.beta1, step.beta2, step.epsilon, step.weight_decay].map(|number| number as f32);
    let grad = grad * step.grad_factor;
    let mean = mean * beta1 + grad.clone() * (1.0 - beta1);
    let square = square * beta2 + grad.square() * (1.0 - beta2);
    // Both start at zero; dividing by the share of real gradients in them takes that out.
    let corrected_mean = mean.clone() / (1.0 - beta1.powi(step.time as i32));
    let corrected_square = square.clone() / (1.0 - beta2.powi(step.time as i32));
    let direction = corrected_mean / (corrected_square.sqrt() + epsilon);
    let weight = weight * (1.0 - learning_rate * f64::from(decay)) - direction * learning_rate;
    [weight, mean, square]
}

/// Numbers that are summed at once. Burn 0.22.1's sum of more than 262,132 numbers leaves out the others on some Vulkan drivers.
const SUMMED_AT_ONCE: usize = 1 << 17;

/// The sum of the squares by Burn's operations: `[1]`.
pub fn readable_sum_of_squares(x: &Tensor<1>) -> Tensor<1> {
    let [length] = x.dims();
    let pieces = (0..length).step_by(SUMMED_AT_ONCE);
    let sums = pieces.map(|start| x.clone().narrow(0, start, SUMMED_AT_ONCE.min(length - start)).square().sum());
    let sums: Vec<Tensor<1>> = sums.collect();
    if sums.len() == 1 { sums[0].clone() } else { Tensor::cat(sums, 0).sum() }
}

/// One step of the rule in [`AdamWStep`]; tensors without autodiff.
///
/// # Shapes
/// - all of one length; weight, mean and square come back
pub fn adam_w(
    weight: Tensor<1>,
    grad: Tensor<1>,
    mean: Tensor<1>,
    square: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let [weight, grad, mean, square] = [weight, grad, mean, square].map(Tensor::into_dispatch);
    let (weight, mean, square) = Dispatch::adam_w(weight, grad, mean, square, step);
    [weight, mean, square].map(Tensor::from_dispatch)
}

/// The sum of the squares: `[1]`; a tensor without autodiff.
pub fn sum_of_squares(x: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::sum_of_squares(x.into_dispatch()))
}

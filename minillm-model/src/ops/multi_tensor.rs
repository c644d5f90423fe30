//! An optimiser's step on many parameters at once, without asking the device for anything: what the gradients are multiplied by, and whether
//! the step is taken at all, is computed where they are. For GPUs, which would stand still while the host reads the loss and decides.
//!
//! Each function has a readable form of tensor operations, for every backend, and kernels of few launches in `cube`.

#[cfg(feature = "cube")]
use burn::backend::Cube;
use burn::tensor::Tensor;

use super::AdamWStep;
#[cfg(feature = "cube")]
use super::cube::multi_tensor as cube;
use super::update::{MuonStep, StepLimits};

/// What a step's update depends on: the loss, the norm of all gradients, and what the gradients are multiplied by. The last is negative
/// where nothing may be updated: beyond the limits, or with a loss or a gradient that is not finite.
///
/// # Shapes
/// - `gradients`: at least one; `loss`: `[1]` -> `[3]`; without autodiff
///
/// # Panics
///
/// If it is to be `fast` and a tensor is not on a GPU.
pub fn step_control(gradients: Vec<Tensor<1>>, loss: Tensor<1>, limits: StepLimits, fast: bool) -> Tensor<1> {
    #[cfg(feature = "cube")]
    if fast {
        let lazy =
            |tensor: Tensor<1>| tensor.try_into_primitive::<Cube>().expect("a tensor on a GPU, without autodiff");
        let gradients = gradients.into_iter().map(lazy).collect();
        return Tensor::from_primitive::<Cube>(cube::step_control(gradients, lazy(loss), limits));
    }
    let _ = fast;
    let squares = gradients.iter().map(super::adam_w::readable_sum_of_squares).collect();
    let norm = Tensor::cat(squares, 0).sum().sqrt(); // [1]
    let [grad_clip, largest_loss, largest_norm] = limits.as_f32();
    let factor = if grad_clip > 0.0 {
        (norm.clone().recip() * grad_clip).clamp_max(1.0) // [1]
    } else {
        norm.ones_like()
    };
    // No comparison holds for what is not a number.
    let taken = loss.clone().abs().lower_equal_scalar(f32::MAX);
    let taken = taken.bool_and(loss.clone().lower_equal_scalar(largest_loss));
    let taken = taken.bool_and(norm.clone().lower_equal_scalar(largest_norm));
    let factor = factor.full_like(-1.0).mask_where(taken, factor);
    Tensor::cat(vec![loss, norm, factor], 0)
}

/// A step of `AdamW` for each of `tensors`: weight, gradient and the running means of it and its square. All but the gradient come back, on
/// a GPU changed in place where nobody else holds them; as they were where `control` says that nothing may be updated.
///
/// # Shapes
/// - of each parameter, all of one length; `control`: `[3]`, of [`step_control`]; without autodiff
///
/// # Panics
///
/// If it is to be `fast` and a tensor is not on a GPU.
pub fn adam_w(
    tensors: Vec<[Tensor<1>; 4]>,
    control: &Tensor<1>,
    steps: Vec<AdamWStep>,
    fast: bool,
) -> Vec<[Tensor<1>; 3]> {
    #[cfg(feature = "cube")]
    if fast {
        let lazy =
            |tensor: Tensor<1>| tensor.try_into_primitive::<Cube>().expect("a tensor on a GPU, without autodiff");
        let tensors = tensors.into_iter().map(|tensors| tensors.map(lazy)).collect();
        let updated = cube::adam_w(tensors, lazy(control.clone()), steps);
        return updated.into_iter().map(|tensors| tensors.map(Tensor::from_primitive::<Cube>)).collect();
    }
    let _ = fast;
    let factor = control.clone().narrow(0, 2, 1); // [1]
    let taken = factor.clone().greater_equal_scalar(0.0); // [1]
    let update = |([weight, gradient, mean, square], step): ([Tensor<1>; 4], AdamWStep)| {
        let (taken, before) = (taken.clone().expand(weight.dims()), [weight.clone(), mean.clone(), square.clone()]);
        let after = super::adam_w::readable(weight, gradient * factor.clone(), mean, square, step);
        let [weight, mean, square] = before;
        let [new_weight, new_mean, new_square] = after;
        [(weight, new_weight), (mean, new_mean), (square, new_square)]
            .map(|(before, after)| before.mask_where(taken.clone(), after))
    };
    tensors.into_iter().zip(steps).map(update).collect()
}

/// Share of the old momentum that Muon keeps.
const MUON_MOMENTUM: f32 = 0.95;
/// Newton-Schulz iterations, and the coefficients of each (Jordan et al. 2024, kellerjordan.github.io/posts/muon).
const ITERATIONS: usize = 5;
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];
/// Below every norm of a gradient that is one.
const SMALLEST_NORM: f32 = 1e-7;

/// A step of Muon for matrices that have one shape, some of them transposed: `tensors` are weight, gradient and momentum, each flat; weight
/// and momentum come back, as they were where `control` says that nothing may be updated. The Newton-Schulz iterations are products of the
/// whole batch.
///
/// # Shapes
/// - each matrix: `[rows, columns]` with rows <= columns, or if it is `tall` `[columns, rows]`; `control`: `[3]`; without autodiff
///
/// # Panics
///
/// If it is to be `fast` and a tensor is not on a GPU.
pub fn muon(
    tensors: Vec<[Tensor<1>; 3]>,
    tall: &[bool],
    shape: [usize; 2],
    control: &Tensor<1>,
    step: MuonStep,
    fast: bool,
) -> Vec<[Tensor<1>; 2]> {
    #[cfg(feature = "cube")]
    if fast {
        use super::cube::muon;

        let lazy =
            |tensor: Tensor<1>| tensor.try_into_primitive::<Cube>().expect("a tensor on a GPU, without autodiff");
        let (mut weights, mut gradients, mut momenta) = (Vec::new(), Vec::new(), Vec::new());
        for tensors in tensors {
            let [weight, gradient, momentum] = tensors.map(lazy);
            weights.push(weight);
            gradients.push(gradient);
            momenta.push(momentum);
        }
        let control = || lazy(control.clone());
        let (momenta, batch) = muon::momentum(gradients, momenta, control(), tall.to_vec(), shape, MUON_MOMENTUM);
        let directions = orthogonal(Tensor::from_primitive::<Cube>(batch));
        let directions = directions.try_into_primitive::<Cube>().expect("a tensor on a GPU, without autodiff");
        let weights = muon::update(weights, directions, control(), tall.to_vec(), step);
        let plain = |(weight, momentum)| [weight, momentum].map(Tensor::from_primitive::<Cube>);
        return weights.into_iter().zip(momenta).map(plain).collect();
    }
    let _ = fast;
    let [rows, columns] = shape;
    let factor = control.clone().narrow(0, 2, 1); // [1]
    let taken = factor.clone().greater_equal_scalar(0.0); // [1]
    let wide = |flat: Tensor<1>, tall: bool| {
        if tall { flat.reshape([columns, rows]).transpose() } else { flat.reshape([rows, columns]) }
    };
    let (mut kept, mut batch) = (Vec::new(), Vec::new());
    for ([weight, gradient, before], &tall) in tensors.into_iter().zip(tall) {
        let gradient = gradient * factor.clone();
        let momentum = before.clone() * MUON_MOMENTUM + gradient.clone();
        batch.push(wide(gradient + momentum.clone() * MUON_MOMENTUM, tall));
        kept.push((weight, before, momentum));
    }
    let directions = orthogonal(Tensor::stack(batch, 0)); // [n, rows, columns]
    let update = |(index, ((weight, before, momentum), tall)): (usize, ((Tensor<1>, Tensor<1>, Tensor<1>), bool))| {
        let direction = directions.clone().narrow(0, index, 1).squeeze_dim::<2>(0); // [rows, columns]
        let direction = if tall { direction.transpose() } else { direction }.reshape([rows * columns]);
        let taken = taken.clone().expand(weight.dims());
        let moved = weight.clone() * step.keep - direction * step.rate;
        [weight.mask_where(taken.clone(), moved), before.mask_where(taken, momentum)]
    };
    kept.into_iter().zip(tall.iter().copied()).enumerate().map(update).collect()
}

/// The nearest matrices whose singular values are about one: `[n, rows, columns]`, rows <= columns.
fn orthogonal(x: Tensor<3>) -> Tensor<3> {
    let [a, b, c] = COEFFICIENTS;
    let norm = x.clone().square().sum_dim(2).sum_dim(1).sqrt().clamp_min(SMALLEST_NORM); // [n, 1, 1]
    let mut x = x / norm;
    for _ in 0..ITERATIONS {
        let square = x.clone().matmul(x.clone().swap_dims(1, 2)); // [n, rows, rows]
        let polynomial = square.clone() * b + square.clone().matmul(square) * c;
        x = x.clone() * a + polynomial.matmul(x);
    }
    x
}

//! Operations on many tensors in few launches: a model has dozens of parameters, most of them small. How many tensors a kernel may be
//! given, the device says.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::reduce::{cube_sum, sum_rows};
use super::{Lazy, UNITS, a_cube_each, dense, empty, queue_any};
use crate::ops::AdamWStep;
use crate::ops::adam_w::AdamWOp;
use crate::ops::update::StepLimits;

/// Numbers that a cube takes: enough that its sum is worth a memory access, few enough that small tensors keep a device busy.
const NUMBERS_OF_A_CUBE: usize = 4096;

/// Tensors in a launch, so that a kernel, which has code for each, does not grow without bound.
const MOST_AT_ONCE: usize = 16;

/// The largest number of f32.
const LARGEST: f32 = f32::MAX;

/// Tensors of a launch, and its cubes.
struct Group<const N: usize> {
    /// For each tensor its buffers.
    tensors: Vec<[CubeTensor; N]>,
    cubes: usize,
}

/// Cuts `tensors` into groups of as many as the device can bind, beside `others` buffers.
pub fn groups_of<const N: usize>(
    tensors: Vec<[CubeTensor; N]>,
    like: &CubeTensor,
    others: usize,
) -> Vec<Vec<[CubeTensor; N]>> {
    let bindings = like.client.properties().hardware.max_bindings as usize;
    let at_once = (bindings.saturating_sub(others) / N).clamp(1, MOST_AT_ONCE);
    let mut groups = Vec::new();
    let mut tensors = tensors.into_iter().peekable();
    while tensors.peek().is_some() {
        groups.push(tensors.by_ref().take(at_once).collect());
    }
    groups
}

/// [`groups_of`] with the cubes that each needs.
fn groups<const N: usize>(tensors: Vec<[CubeTensor; N]>, like: &CubeTensor, others: usize) -> Vec<Group<N>> {
    let with_cubes = |tensors: Vec<[CubeTensor; N]>| {
        let cubes = tensors.iter().map(|tensors| cubes_of(&tensors[0])).sum();
        Group { tensors, cubes }
    };
    groups_of(tensors, like, others).into_iter().map(with_cubes).collect()
}

fn cubes_of(tensor: &CubeTensor) -> usize {
    tensor.shape().num_elements().div_ceil(NUMBERS_OF_A_CUBE).max(1)
}

/// What a step's update depends on, in one tensor `[3]`: the loss, the norm of all gradients, and what the gradients are multiplied by.
/// The last is negative where nothing may be updated.
///
/// # Shapes
/// - `gradients`: any, at least one; `loss`: `[1]` -> `[3]`
pub fn step_control(gradients: Vec<Lazy>, loss: Lazy, limits: StepLimits) -> Lazy {
    let inputs = gradients.into_iter().chain([loss]).collect();
    let run = move |mut tensors: Vec<CubeTensor>| {
        let loss = dense(tensors.pop().expect("the loss"));
        let parts = parts_of_squares(tensors);
        let out = empty(&loss, [3]);
        let (count, dim) = a_cube_each(&loss, 1);
        let client = loss.client.clone();
        let [grad_clip, largest_loss, largest_norm] = limits.as_f32();
        control_kernel::launch(
            &client,
            count,
            dim,
            parts.into_buffer_arg(),
            loss.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            grad_clip,
            largest_loss,
            largest_norm,
        );
        vec![out]
    };
    queue_any("step_control", inputs, vec![Shape::new([3])], run).remove(0)
}

/// Parts of the sum of all squares.
fn parts_of_squares(tensors: Vec<CubeTensor>) -> CubeTensor {
    let like = tensors[0].clone();
    let groups = groups(tensors.into_iter().map(|tensor| [dense(tensor)]).collect(), &like, 1);
    let parts = empty(&like, [groups.iter().map(|group| group.cubes).sum::<usize>()]);
    let mut first_part = 0;
    for group in groups {
        let (count, dim) = a_cube_each(&like, group.cubes);
        let buffers = group.tensors.into_iter().map(|[tensor]| tensor.into_buffer_arg()).collect();
        let parts = parts.clone().into_buffer_arg();
        squares_kernel::launch(&like.client, count, dim, buffers, parts, first_part, group.cubes);
        first_part += group.cubes;
    }
    parts
}

#[cube(launch)]
fn squares_kernel(tensors: &Sequence<Box<[f32]>>, parts: &mut [f32], first_part: usize, cubes: usize) {
    let cube = CUBE_POS as usize;
    if cube < cubes {
        let mut sum = 0.0f32;
        let mut from = 0usize;
        #[unroll]
        for index in 0..tensors.len() {
            let tensor = tensors.index(index);
            let length = tensor.len();
            let until = from + max((length + NUMBERS_OF_A_CUBE - 1) / NUMBERS_OF_A_CUBE, 1);
            if cube >= from && cube < until {
                let begin = (cube - from) * NUMBERS_OF_A_CUBE;
                let end = min(begin + NUMBERS_OF_A_CUBE, length);
                let mut place = begin + UNIT_POS as usize;
                while place < end {
                    let value = tensor[place];
                    sum += value * value;
                    place += UNITS;
                }
            }
            from = until;
        }
        let sum = cube_sum(sum);
        if UNIT_POS == 0 {
            parts[first_part + cube] = sum;
        }
    }
}

#[cube(launch)]
fn control_kernel(parts: &[f32], loss: &[f32], out: &mut [f32], grad_clip: f32, largest_loss: f32, largest_norm: f32) {
    if CUBE_POS == 0 {
        let mut sum = 0.0f32;
        let mut place = UNIT_POS as usize;
        while place < parts.len() {
            sum += parts[place];
            place += UNITS;
        }
        let norm = cube_sum(sum).sqrt();
        if UNIT_POS == 0 {
            let loss = loss[0];
            let mut factor = 1.0f32;
            if grad_clip > 0.0f32 && norm > grad_clip {
                factor = grad_clip / norm;
            }
            // No comparison holds for what is not a number.
            let taken = loss <= largest_loss && loss >= -LARGEST && norm <= largest_norm;
            out[0] = loss;
            out[1] = norm;
            out[2] = select(taken, factor, -1.0f32);
        }
    }
}

/// A step of `AdamW` for each of `tensors`, which are weight, gradient and the running means of it and its square; without the gradient
/// they come back, changed in place where nobody else holds them. `control`: as of [`step_control`].
pub fn adam_w(tensors: Vec<[Lazy; 4]>, control: Lazy, steps: Vec<AdamWStep>) -> Vec<[Lazy; 3]> {
    let shapes: Vec<Shape> =
        tensors.iter().flat_map(|[weight, ..]| [weight.shape(), weight.shape(), weight.shape()]).collect();
    let inputs = tensors.into_iter().flatten().chain([control]).collect();
    let outputs = queue_any("adam_w", inputs, shapes, move |tensors| update(tensors, &steps));
    let mut outputs = outputs.into_iter();
    let mut next = || outputs.next();
    std::iter::from_fn(|| Some([next()?, next()?, next()?])).collect()
}

/// `tensor` itself if it may be changed, or a copy.
pub fn to_change(tensor: CubeTensor) -> CubeTensor {
    let tensor = dense(tensor);
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

fn update(mut tensors: Vec<CubeTensor>, steps: &[AdamWStep]) -> Vec<CubeTensor> {
    let control = dense(tensors.pop().expect("the control"));
    let client = control.client.clone();
    let mut all = Vec::with_capacity(steps.len());
    let mut left = tensors.into_iter();
    while let (Some(weight), Some(grad), Some(mean), Some(square)) =
        (left.next(), left.next(), left.next(), left.next())
    {
        all.push([to_change(weight), dense(grad), to_change(mean), to_change(square)]);
    }
    let outputs =
        all.iter().flat_map(|[weight, _, mean, square]| [weight, mean, square].map(CubeTensor::clone)).collect();
    let mut steps = steps.iter();
    for group in groups(all, &control, 1) {
        let (count, dim) = a_cube_each(&control, group.cubes);
        let [mut weights, mut grads, mut means, mut squares] = [(); 4].map(|()| SequenceArg::new());
        let [mut decays, mut means_shares, mut squares_shares] = [(); 3].map(|()| SequenceArg::new());
        let mut last = None;
        for ([weight, grad, mean, square], step) in group.tensors.into_iter().zip(steps.by_ref()) {
            weights.push(weight.into_buffer_arg());
            grads.push(grad.into_buffer_arg());
            means.push(mean.into_buffer_arg());
            squares.push(square.into_buffer_arg());
            let (beta1, beta2) = (step.beta1 as f32, step.beta2 as f32);
            decays.push((1.0 - step.learning_rate * f64::from(step.weight_decay as f32)) as f32);
            means_shares.push(1.0 - beta1.powi(step.time as i32));
            squares_shares.push(1.0 - beta2.powi(step.time as i32));
            last = Some(step);
        }
        let Some(step) = last else { break };
        adam_w_kernel::launch(
            &client,
            count,
            dim,
            weights,
            grads,
            means,
            squares,
            decays,
            means_shares,
            squares_shares,
            control.clone().into_buffer_arg(),
            step.learning_rate as f32,
            step.beta1 as f32,
            step.beta2 as f32,
            step.epsilon as f32,
            group.cubes,
        );
    }
    outputs
}

/// [`ops::adam_w::readable`](crate::ops::adam_w::readable); `decays` is what each weight keeps, the shares are those of real gradients in
/// the running means.
#[cube(launch)]
fn adam_w_kernel(
    weights: &mut Sequence<Box<[f32]>>,
    grads: &Sequence<Box<[f32]>>,
    means: &mut Sequence<Box<[f32]>>,
    squares: &mut Sequence<Box<[f32]>>,
    decays: Sequence<f32>,
    means_shares: Sequence<f32>,
    squares_shares: Sequence<f32>,
    control: &[f32],
    learning_rate: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    cubes: usize,
) {
    let cube = CUBE_POS as usize;
    let factor = control[2];
    if cube < cubes && factor >= 0.0f32 {
        let mut from = 0usize;
        #[unroll]
        for index in 0..grads.len() {
            let grad = grads.index(index);
            let length = grad.len();
            let until = from + max((length + NUMBERS_OF_A_CUBE - 1) / NUMBERS_OF_A_CUBE, 1);
            if cube >= from && cube < until {
                let begin = (cube - from) * NUMBERS_OF_A_CUBE;
                let end = min(begin + NUMBERS_OF_A_CUBE, length);
                let mut place = begin + UNIT_POS as usize;
                while place < end {
                    let gradient = grad[place] * factor;
                    let mean = means.index(index)[place] * beta1 + gradient * (1.0f32 - beta1);
                    let square = squares.index(index)[place] * beta2 + gradient * gradient * (1.0f32 - beta2);
                    let direction =
                        mean / *means_shares.index(index) / ((square / *squares_shares.index(index)).sqrt() + epsilon);
                    let weight = weights.index(index)[place];
                    means.index_mut(index)[place] = mean;
                    squares.index_mut(index)[place] = square;
                    weights.index_mut(index)[place] = weight * *decays.index(index) - direction * learning_rate;
                    place += UNITS;
                }
            }
            from = until;
        }
    }
}

impl AdamWOp for Cube {
    fn adam_w(weight: Lazy, grad: Lazy, mean: Lazy, square: Lazy, step: AdamWStep) -> (Lazy, Lazy, Lazy) {
        let control = number(&weight, step.grad_factor as f32);
        let [weight, mean, square] = adam_w(vec![[weight, grad, mean, square]], control, vec![step]).remove(0);
        (weight, mean, square)
    }

    fn sum_of_squares(x: Lazy) -> Lazy {
        let run = |tensors| {
            let parts = parts_of_squares(tensors);
            vec![sum_rows(parts, 1)]
        };
        queue_any("sum_of_squares", vec![x], vec![Shape::new([1])], run).remove(0)
    }
}

/// A control with nothing but a factor: `[3]`.
fn number(like: &Lazy, factor: f32) -> Lazy {
    Cube::float_from_data(TensorData::new(vec![0.0f32, 0.0, factor], [3]), &like.device())
}

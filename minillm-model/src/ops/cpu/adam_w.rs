//! One step of `AdamW` in one pass over memory: four numbers read and three written for each parameter.

use super::math::{sum_of, vectorised};
use super::parallel::{self, PIECE};
use crate::ops::AdamWStep;

/// Moves `weight` and the running means of its gradient and of the gradient's square, all flat and of one length.
pub fn adam_w(weight: &mut [f32], grad: &[f32], mean: &mut [f32], square: &mut [f32], step: &AdamWStep) {
    let time = step.time as i32;
    let (beta1, beta2) = (step.beta1 as f32, step.beta2 as f32);
    // Dividing m by 1 - beta1^t and v by 1 - beta2^t, as two factors for all numbers.
    let mean_factor = (step.learning_rate / (1.0 - step.beta1.powi(time))) as f32;
    let square_factor = (1.0 / (1.0 - step.beta2.powi(time))) as f32;
    let kept = (1.0 - step.learning_rate * step.weight_decay) as f32;
    let (epsilon, grad_factor) = (step.epsilon as f32, step.grad_factor as f32);

    let state = mean.chunks_mut(PIECE).zip(square.chunks_mut(PIECE));
    let pieces = weight.chunks_mut(PIECE).zip(grad.chunks(PIECE)).zip(state).collect();
    parallel::for_each(pieces, |((weight, grad), (mean, square))| {
        vectorised!({
            let numbers = weight.iter_mut().zip(grad).zip(mean.iter_mut().zip(square.iter_mut()));
            for ((weight, grad), (mean, square)) in numbers {
                let grad = grad * grad_factor;
                *mean = beta1 * *mean + (1.0 - beta1) * grad;
                *square = beta2 * *square + (1.0 - beta2) * grad * grad;
                *weight = *weight * kept - mean_factor * *mean / ((*square * square_factor).sqrt() + epsilon);
            }
        });
    });
}

/// The sum of the squares.
pub fn sum_of_squares(values: &[f32]) -> f32 {
    let parts =
        parallel::map(values.chunks(PIECE).collect(), |values| vectorised!(sum_of(values, values, |a, b| a * b)));
    parts.into_iter().sum()
}

//! The activations of [`GeluMlp`](crate::layers::gelu_mlp::GeluMlp) in one pass over memory, and their gradients in another.
//!
//! ```text
//! gelu(z) = z s,  s = sigmoid(2 u),  u = sqrt(2/pi) (z + 0.044715 z^3)        as (1 + tanh(u)) / 2 = sigmoid(2 u)
//! dz = g (s + z s (1 - s) 2 du/dz)
//! relu2(z) = max(z, 0)^2                                                      dz = g 2 max(z, 0)
//! ```

use super::math::{sigmoid, vectorised};
use super::parallel::{self, PIECE};
use crate::ops::activation::Activation;

/// sqrt(2 / pi)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// The coefficient of z^3 in GPT-2's approximation.
const CUBIC: f32 = 0.044_715;

/// # Shapes
/// - `z` -> the same
pub fn forward(z: &[f32], kind: Activation) -> Vec<f32> {
    match kind {
        Activation::GeluTanh => each(z, z, |z, _| z * gate(z)),
        Activation::Relu2 => each(z, z, |z, _| positive(z) * positive(z)),
    }
}

/// # Shapes
/// - `z`, `grad` -> the gradient of `z`
pub fn backward(z: &[f32], grad: &[f32], kind: Activation) -> Vec<f32> {
    match kind {
        Activation::GeluTanh => each(z, grad, |z, grad| {
            let gate = gate(z);
            let slope = 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * z * z);
            grad * (gate + z * gate * (1.0 - gate) * slope)
        }),
        Activation::Relu2 => each(z, grad, |z, grad| grad * 2.0 * positive(z)),
    }
}

#[inline(always)]
fn gate(z: f32) -> f32 {
    sigmoid(2.0 * SQRT_2_OVER_PI * (z + CUBIC * z * z * z))
}

#[inline(always)]
fn positive(z: f32) -> f32 {
    if z > 0.0 { z } else { z * 0.0 } // NaN stays NaN
}

/// `value(a, b)` at every place.
#[inline(always)]
fn each(a: &[f32], b: &[f32], value: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    parallel::for_each(out.chunks_mut(PIECE).zip(a.chunks(PIECE).zip(b.chunks(PIECE))).collect(), |(out, (a, b))| {
        vectorised!({
            for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
                *out = value(*a, *b);
            }
        });
    });
    out
}

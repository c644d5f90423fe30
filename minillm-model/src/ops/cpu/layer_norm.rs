//! [`LayerNorm`](crate::layers::layer_norm::LayerNorm) in one pass over memory, and its gradient in another.
//!
//! ```text
//! n = (x - mean(x)) s,  s = 1 / sqrt(var(x) + eps)        y = n w + b
//! dx = s (w g - mean(w g) - n mean(w g n))                dw = sum over rows of g n        db = sum over rows of g
//! ```

use super::math::{dot, sum_of, vectorised};
use super::parallel;

/// # Shapes
/// - `x`: rows of D, `weight` and `bias`: `[D]` -> as `x`
pub fn forward(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let d = weight.len();
    let mut y = vec![0.0; x.len()];
    let piece = parallel::rows_per_piece(d) * d;
    parallel::for_each(x.chunks(piece).zip(y.chunks_mut(piece)).collect(), |(x, y)| {
        vectorised!({
            for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
                normalise(x, y, eps);
                for (y, (weight, bias)) in y.iter_mut().zip(weight.iter().zip(bias)) {
                    *y = *y * weight + bias;
                }
            }
        });
    });
    y
}

/// # Shapes
/// - `x`, `grad`: rows of D, `weight`: `[D]` -> gradients of `x`, of `weight` and of `bias`
pub fn backward(x: &[f32], weight: &[f32], grad: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let d = weight.len();
    let mut dx = vec![0.0; x.len()];
    let piece = parallel::rows_per_piece(d) * d;
    let pieces = x.chunks(piece).zip(grad.chunks(piece)).zip(dx.chunks_mut(piece)).collect();
    let parts = parallel::map(pieces, |((x, grad), dx)| {
        let [mut dweight, mut dbias, mut weighted, mut normalised] = [(); 4].map(|()| vec![0.0; d]);
        vectorised!({
            for ((x, grad), dx) in x.chunks_exact(d).zip(grad.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
                let scale = normalise(x, &mut normalised, eps);
                for (((dweight, dbias), grad), normalised) in
                    dweight.iter_mut().zip(&mut dbias).zip(grad).zip(&normalised)
                {
                    *dweight += grad * normalised;
                    *dbias += grad;
                }
                for (weighted, (weight, grad)) in weighted.iter_mut().zip(weight.iter().zip(grad)) {
                    *weighted = weight * grad;
                }
                let mean = sum(&weighted) / d as f32;
                let along = dot(&weighted, &normalised) / d as f32;
                for (dx, (weighted, normalised)) in dx.iter_mut().zip(weighted.iter().zip(&normalised)) {
                    *dx = scale * (weighted - mean - along * normalised);
                }
            }
        });
        (dweight, dbias)
    });
    let (mut dweight, mut dbias) = (vec![0.0; d], vec![0.0; d]);
    for (weight, bias) in parts {
        dweight.iter_mut().zip(weight).for_each(|(sum, part)| *sum += part);
        dbias.iter_mut().zip(bias).for_each(|(sum, part)| *sum += part);
    }
    (dx, dweight, dbias)
}

/// Writes `x` with mean zero and variance one into `out`; returns what its distance from the mean was multiplied by.
#[inline(always)]
fn normalise(x: &[f32], out: &mut [f32], eps: f32) -> f32 {
    let mean = sum(x) / x.len() as f32;
    for (out, x) in out.iter_mut().zip(x) {
        *out = x - mean;
    }
    let scale = 1.0 / (dot(out, out) / x.len() as f32 + eps).sqrt();
    for out in out.iter_mut() {
        *out *= scale;
    }
    scale
}

#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    sum_of(values, values, |value, _| value)
}

//! [`RmsNorm`](crate::layers::rms_norm::RmsNorm) in one pass over memory, and its gradient in another.
//!
//! ```text
//! s = 1 / sqrt(mean(x^2) + eps)        y = x s w
//! dx = s (w g) - x s^3 mean(w g x)     dw = sum over rows of g x s
//! ```

use super::math::{dot, vectorised};
use super::parallel;

/// # Shapes
/// - `x`: rows of D, `weight`: `[D]` -> as `x`
pub fn forward(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let d = weight.len();
    let mut y = vec![0.0; x.len()];
    let piece = parallel::rows_per_piece(d) * d;
    parallel::for_each(x.chunks(piece).zip(y.chunks_mut(piece)).collect(), |(x, y)| {
        vectorised!({
            for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
                let scale = scale(x, eps);
                for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                    *y = x * scale * weight;
                }
            }
        });
    });
    y
}

/// # Shapes
/// - `x`, `grad`: rows of D, `weight`: `[D]` -> gradients of `x` and of `weight`
pub fn backward(x: &[f32], weight: &[f32], grad: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let d = weight.len();
    let mut dx = vec![0.0; x.len()];
    let piece = parallel::rows_per_piece(d) * d;
    let pieces = x.chunks(piece).zip(grad.chunks(piece)).zip(dx.chunks_mut(piece)).collect();
    let parts = parallel::map(pieces, |((x, grad), dx)| {
        let mut dweight = vec![0.0; d];
        let mut weighted = vec![0.0; d];
        vectorised!({
            for ((x, grad), dx) in x.chunks_exact(d).zip(grad.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
                let scale = scale(x, eps);
                for (((weighted, dweight), weight), (x, grad)) in
                    weighted.iter_mut().zip(&mut dweight).zip(weight).zip(x.iter().zip(grad))
                {
                    *weighted = weight * grad;
                    *dweight += grad * x * scale;
                }
                let along = dot(&weighted, x) / d as f32 * scale * scale * scale;
                for ((dx, weighted), x) in dx.iter_mut().zip(&weighted).zip(x) {
                    *dx = scale * weighted - along * x;
                }
            }
        });
        dweight
    });
    let mut dweight = vec![0.0; d];
    for part in parts {
        dweight.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    (dx, dweight)
}

/// What a vector is multiplied by to have length sqrt(D).
#[inline(always)]
fn scale(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

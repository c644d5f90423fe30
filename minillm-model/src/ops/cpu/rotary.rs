//! [`Rotation::apply`](crate::layers::rope::Rotation::apply) in one pass over memory.
//!
//! ```text
//! (a, b) -> (a cos - b sin, b cos + a sin)        gradient: the same with -sin, the rotation back
//! ```

use super::math::vectorised;
use super::parallel;
use super::view::{Heads, tokens_per_piece};
use crate::ops::rotary::Direction;

/// # Shapes
/// - `x`: `[B, heads, T, E]`, `cos` and `sin`: `[T, E]` as in [`Rotation`](crate::layers::rope::Rotation)
///   -> `[B, T, heads, E]`
pub fn rotate(x: Heads, cos: &[f32], sin: &[f32], direction: Direction) -> Vec<f32> {
    let [b, heads, t, e] = x.shape;
    let half = e / 2;
    let turn = if direction == Direction::Forward { 1.0 } else { -1.0 };
    let mut out = vec![0.0; b * t * heads * e];
    let tokens = tokens_per_piece(heads, e);
    parallel::for_each(out.chunks_mut(tokens * heads * e).enumerate().collect(), |(piece, out)| {
        vectorised!({
            for (index, out) in out.chunks_exact_mut(e).enumerate() {
                let (token, head) = (piece * tokens + index / heads, index % heads);
                let (b, t) = (token / t, token % t);
                let (first, second) = x.vector(b, head, t).split_at(half);
                let (out_first, out_second) = out.split_at_mut(half);
                // Both halves of a table's row are equal but for the sign of the first sines.
                let cos = &cos[t * e..t * e + half];
                let sin = &sin[t * e + half..(t + 1) * e];
                for i in 0..half {
                    let sin = sin[i] * turn;
                    out_first[i] = first[i] * cos[i] - second[i] * sin;
                    out_second[i] = second[i] * cos[i] + first[i] * sin;
                }
            }
        });
    });
    out
}

//! The gate of [`Swiglu`](crate::layers::swiglu::Swiglu) in one pass over memory, and its gradient in another.
//!
//! ```text
//! h = g s u                            s = sigmoid(g)
//! dg = dh u s (1 + g (1 - s))          du = dh g s
//! ```

use super::math::{sigmoid, vectorised};
use super::parallel::{self, PIECE};

/// # Shapes
/// - `gate`, `up` -> the same
pub fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; gate.len()];
    parallel::for_each(
        out.chunks_mut(PIECE).zip(gate.chunks(PIECE).zip(up.chunks(PIECE))).collect(),
        |(out, (gate, up))| {
            vectorised!({
                for (out, (gate, up)) in out.iter_mut().zip(gate.iter().zip(up)) {
                    *out = gate * sigmoid(*gate) * up;
                }
            });
        },
    );
    out
}

/// # Shapes
/// - `gate`, `up`, `grad` -> gradients of `gate` and of `up`
pub fn backward(gate: &[f32], up: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dgate, mut dup) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    let inputs = gate.chunks(PIECE).zip(up.chunks(PIECE)).zip(grad.chunks(PIECE));
    let outputs = dgate.chunks_mut(PIECE).zip(dup.chunks_mut(PIECE));
    parallel::for_each(inputs.zip(outputs).collect(), |(((gate, up), grad), (dgate, dup))| {
        vectorised!({
            for (((gate, up), grad), (dgate, dup)) in
                gate.iter().zip(up).zip(grad).zip(dgate.iter_mut().zip(dup.iter_mut()))
            {
                let sigmoid = sigmoid(*gate);
                *dgate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
                *dup = grad * gate * sigmoid;
            }
        });
    });
    (dgate, dup)
}

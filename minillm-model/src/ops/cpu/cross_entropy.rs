//! [`summed_loss`](crate::decoder::LanguageModel::summed_loss) from hidden states: output matrix, softmax and
//! logarithm together, a few rows at a time (after Hsu et al. 2024, arXiv:2410.10989).
//!
//! The loss is a sum over rows, so its gradient is known up to one factor as soon as the logits are. It is computed on the
//! spot, while they are in the cache; the backward pass only multiplies. Logits are computed once and never kept.
//!
//! ```text
//! z = h W      loss = ln(sum of exp z) - z_target      dz = softmax(z) - 1 at the target      dh = dz W^T      dW = h^T dz
//! ```

use super::math::{exponentials, largest, vectorised};
use super::parallel::{self, PIECE};
use super::product::{Matrix, Store, product};

/// Logits held at once, in numbers: 8 MiB a thread.
const CHUNK: usize = 2 * 1024 * 1024;

/// The gradients of the summed loss.
#[derive(Debug)]
pub struct LossGradients {
    /// The gradient of the hidden states, of their shape.
    pub hidden: Vec<f32>,
    /// `[D, V]`, or `[V, D]` if tied.
    pub output: Vec<f32>,
}

/// What is computed beside the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Loss,
    /// The gradient of the hidden states: the output matrix is not trained.
    Hidden,
    /// Both gradients.
    Both,
}

/// The loss summed over the rows whose target is not negative, and the gradients that are wanted; one that is not is empty. Nothing is
/// computed for other rows: of conversations most tokens are not learned.
///
/// # Shapes
/// - `hidden`: `[N, D]`, `output`: `[D, V]`, of the embedding's `[V, D]` if `tied`, `targets`: `[N]`
pub fn cross_entropy(
    hidden: &[f32],
    output: Matrix,
    tied: bool,
    targets: &[i32],
    wanted: Wanted,
) -> (f32, Option<LossGradients>) {
    let [d, _] = output.shape();
    let scored: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] >= 0).collect();
    if scored.len() == targets.len() {
        return of_all_rows(hidden, output, tied, targets, wanted);
    }
    let rows: Vec<f32> = scored.iter().flat_map(|row| &hidden[row * d..(row + 1) * d]).copied().collect();
    let ids: Vec<i32> = scored.iter().map(|&row| targets[row]).collect();
    let (loss, gradients) = of_all_rows(&rows, output, tied, &ids, wanted);
    let gradients = gradients.map(|LossGradients { hidden: of_scored, output }| {
        let mut of_all = vec![0.0; hidden.len()];
        for (&row, gradient) in scored.iter().zip(of_scored.chunks_exact(d)) {
            of_all[row * d..(row + 1) * d].copy_from_slice(gradient);
        }
        LossGradients { hidden: of_all, output }
    });
    (loss, gradients)
}

fn of_all_rows(
    hidden: &[f32],
    output: Matrix,
    tied: bool,
    targets: &[i32],
    wanted: Wanted,
) -> (f32, Option<LossGradients>) {
    let [d, v] = output.shape();
    let with_gradients = wanted != Wanted::Loss;
    let of_output = if wanted == Wanted::Both { d * v } else { 0 };
    let mut gradients =
        with_gradients.then(|| LossGradients { hidden: vec![0.0; hidden.len()], output: vec![0.0; of_output] });
    let rows_at_once = (CHUNK / v).clamp(1, targets.len().max(1));
    let mut logits = vec![0.0; rows_at_once * v];
    let mut total = 0.0;
    for (chunk, targets) in targets.chunks(rows_at_once).enumerate() {
        let rows = targets.len();
        let first = chunk * rows_at_once * d;
        let hidden = Matrix::new(&hidden[first..first + rows * d], rows, d, d);
        let logits = &mut logits[..rows * v];
        product(logits, v, Store::Replace, 1.0, hidden, output);
        total += losses_and_gradients(logits, targets, v, with_gradients);
        if let Some(gradients) = &mut gradients {
            let dlogits = Matrix::new(logits, rows, v, v);
            let dhidden = &mut gradients.hidden[first..first + rows * d];
            product(dhidden, d, Store::Replace, 1.0, dlogits, output.transposed());
            if wanted == Wanted::Hidden {
                continue;
            }
            if tied {
                product(&mut gradients.output, d, Store::Add, 1.0, dlogits.transposed(), hidden);
            } else {
                product(&mut gradients.output, v, Store::Add, 1.0, hidden.transposed(), dlogits);
            }
        }
    }
    (total as f32, gradients)
}

/// `gradient` times `factor`.
pub fn scale(gradient: &mut [f32], factor: f32) {
    parallel::for_each(gradient.chunks_mut(PIECE).collect(), |piece| {
        vectorised!(for number in piece {
            *number *= factor;
        });
    });
}

/// The summed loss of some rows, whose logits become the gradients with respect to them if wanted.
fn losses_and_gradients(logits: &mut [f32], targets: &[i32], v: usize, with_gradients: bool) -> f64 {
    let rows = parallel::rows_per_piece(v);
    let pieces = logits.chunks_mut(rows * v).zip(targets.chunks(rows)).collect();
    let losses = parallel::map(pieces, |(logits, targets)| {
        let mut loss = 0.0;
        vectorised!({
            for (logits, &target) in logits.chunks_exact_mut(v).zip(targets) {
                if target < 0 {
                    logits.fill(0.0);
                    continue;
                }
                let target = target as usize;
                let target_logit = logits[target];
                let shift = largest(logits);
                let sum = exponentials(logits, shift);
                loss += f64::from(shift - target_logit) + f64::from(sum).ln();
                if with_gradients {
                    let scale = 1.0 / sum;
                    for weight in logits.iter_mut() {
                        *weight *= scale;
                    }
                    logits[target] -= 1.0;
                }
            }
        });
        loss
    });
    losses.into_iter().sum()
}

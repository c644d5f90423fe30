//! What training minimises: how surprised the model is by the next token, in nats.
//!
//! ```text
//! loss = -ln p(target) = ln(sum over v of exp(logit_v)) - logit_target
//! ```

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

use crate::decoder::LanguageModel;

/// Target of a position that is not scored (padding).
pub const IGNORED: i32 = -1;

/// Logits held at once, in numbers: 64 MiB of f32. Some GPUs refuse buffers above 128 MiB, and B T V passes that soon.
const LARGEST_CHUNK: usize = 16 * 1024 * 1024;

impl LanguageModel {
    /// The summed surprise of all scored targets, in nats: `[1]`. Divide by their number for the mean.
    ///
    /// # Shapes
    /// - `hidden`: `[B, T, D]`, what [`Decoder::forward`](crate::decoder::Decoder::forward) returned
    /// - `targets`: `[B, T]`, each the token after the position, or [`IGNORED`]
    pub fn summed_loss(&self, hidden: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
        let [b, t, d] = hidden.dims();
        let rows = b * t;
        let rows_at_once = (LARGEST_CHUNK / self.vocab_size()).clamp(1, rows);
        let hidden = hidden.reshape([1, rows, d]); // [1, B T, D]
        let targets = targets.reshape([rows]); // [B T]

        let chunks = (0..rows).step_by(rows_at_once).map(|start| {
            let count = rows_at_once.min(rows - start);
            let logits = self.logits(hidden.clone().narrow(1, start, count)).squeeze_dim(0); // [count, V]
            summed_cross_entropy(logits, targets.clone().narrow(0, start, count)) // [1]
        });
        Tensor::cat(chunks.collect(), 0).sum() // [1]
    }

    fn vocab_size(&self) -> usize {
        self.model.embed_tokens.weight.lazy_shape()[0]
    }
}

/// Summed over the targets that are not [`IGNORED`].
///
/// # Shapes
/// - `logits`: `[N, V]`, `targets`: `[N]` -> `[1]`
pub fn summed_cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let scored = targets.clone().greater_equal_scalar(0).float(); // [N], 1 or 0
    let targets = targets.clamp_min(0).unsqueeze_dim(1); // [N, 1], any valid id where nothing is scored
    let log_probabilities = log_softmax(logits, 1).gather(1, targets).squeeze_dim(1); // [N]
    -(log_probabilities * scored).sum()
}

//! What training minimises: the negative log-likelihood of the next token, in nats.
//!
//! ```text
//! loss = -ln p(target) = ln(sum over v of exp(logit_v)) - logit_target
//! ```

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

use crate::decoder::LanguageModel;
use crate::layers::documents::Documents;
use crate::layers::dropout::Dropout;
use crate::ops;
pub use crate::ops::cross_entropy::LARGEST_CHUNK;

/// Target of a position that is not scored (padding).
pub const IGNORED: i32 = -1;

impl LanguageModel {
    /// [`LanguageModel::hidden_states`] of rows that hold several documents, of which none sees another.
    ///
    /// # Shapes
    /// - `ids`: `[B, T]` -> `[B, T, D]`
    pub fn hidden_states_of(&self, ids: Tensor<2, Int>, documents: Option<Documents>, dropout: Dropout) -> Tensor<3> {
        let context = self.context(0, ids.dims()[1], dropout).with_documents(documents);
        self.pass(context, ids, None)
    }

    /// The summed negative log-likelihood of all scored targets, in nats: `[1]`. Divide by their number for the mean.
    ///
    /// # Shapes
    /// - `hidden`: `[B, T, D]`, what [`Decoder::forward`](crate::decoder::Decoder::forward) returned
    /// - `targets`: `[B, T]`, each the token after the position, or [`IGNORED`]
    pub fn summed_loss(&self, hidden: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
        let in_8_bits = self.quantized.is_some() || self.lm_head.as_ref().is_some_and(|head| head.quantized.is_some());
        if self.compute.cross_entropy && !in_8_bits {
            return self.fused_loss(hidden, targets);
        }
        self.summed_loss_in_chunks(hidden, targets, LARGEST_CHUNK / self.vocab_size())
    }

    /// [`LanguageModel::summed_loss`] in its fast form.
    fn fused_loss(&self, hidden: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
        let [b, t, d] = hidden.dims();
        let (output, tied) = match &self.lm_head {
            Some(lm_head) => (lm_head.weight.val(), false),       // [D, V]
            None => (self.model.embed_tokens.weight.val(), true), // [V, D]
        };
        let [hidden, output] = [hidden.reshape([b * t, d]), output].map(|x| self.compute.precision.round(x));
        ops::cross_entropy::cross_entropy(hidden, output, targets.reshape([b * t]), tied)
    }

    /// [`LanguageModel::summed_loss`] with the logits of `rows_at_once` positions in memory at a time.
    fn summed_loss_in_chunks(&self, hidden: Tensor<3>, targets: Tensor<2, Int>, rows_at_once: usize) -> Tensor<1> {
        let [b, t, d] = hidden.dims();
        let rows = b * t;
        let rows_at_once = rows_at_once.clamp(1, rows);
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::config::ModelOptions;
    use crate::init::initialize;

    #[test]
    fn chunks_change_neither_the_loss_nor_its_gradients() {
        let device = Device::flex().autodiff();
        for tie_word_embeddings in [false, true] {
            let options = ModelOptions {
                hidden_size: Some(8),
                num_attention_heads: Some(2),
                num_hidden_layers: Some(1),
                tie_word_embeddings: Some(tie_word_embeddings),
                ..ModelOptions::default()
            };
            let config = options.resolve(11, 5);
            let model = initialize(LanguageModel::new(&config, &device).unwrap(), 1);
            let ids = |ids: [i32; 10]| Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), [2, 5]), &device);
            let inputs = ids([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
            let targets = ids([2, 3, 4, 5, IGNORED, 7, 8, 9, 10, IGNORED]);
            let run = |rows_at_once| {
                let hidden = model.hidden_states(inputs.clone(), None, Dropout::default());
                let loss = model.summed_loss_in_chunks(hidden, targets.clone(), rows_at_once);
                let gradient = model.model.embed_tokens.weight.val().grad(&loss.backward()).unwrap();
                (loss.into_scalar::<f32>(), gradient)
            };
            let (whole, gradient) = run(10);
            for rows_at_once in [0, 1, 3, 4, 99] {
                let (loss, other) = run(rows_at_once);
                // f32 sums in another order
                assert!((loss - whole).abs() < 1e-5 * whole, "{rows_at_once}: {loss} {whole}");
                let difference: f32 = (other - gradient.clone()).abs().max().into_scalar();
                assert!(difference < 1e-6, "{rows_at_once}: {difference}");
            }
        }
    }
}

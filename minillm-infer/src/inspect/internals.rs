//! What a model computes on the way from a text to its predictions.
//!
//! The residual stream is taken where the decoder hands it from block to block; attention's weights come from the function
//! that the readable attention computes with. Nothing is computed in a second way here, except that a fast form of attention
//! never holds the weights and this module asks for them.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::layers::context::ForwardContext;
use minillm_model::layers::dropout::Dropout;
use minillm_model::tokenizer::Tokenizer;
use serde::Serialize;

use super::label;
use crate::error::{Error, Result};
use crate::generate::{check_prompt, ids_tensor, read};

/// A page of more tokens is no longer read.
const MOST_TOKENS: usize = 256;
/// Of attention, summed over heads: about 25 MB of page.
const MOST_WEIGHTS: usize = 1 << 23;
/// Alternatives that are kept of each prediction.
const CHOICES: usize = 8;
/// Positions whose logits are held at once: 40 MB with a vocabulary of 150,000.
const ROWS: usize = 64;

/// How many tokens of a text are followed, so that attention, T² L H / 2 numbers, still fits a page.
pub fn most_tokens(config: &ModelConfig) -> usize {
    let each = MOST_WEIGHTS / (config.num_hidden_layers * config.num_attention_heads); // T (T + 1) / 2
    let most = (2.0 * each as f64).sqrt() as usize;
    most.clamp(1, MOST_TOKENS.min(config.context()))
}

/// What was computed for T tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Internals {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Every id that appears here, as people can read it.
    pub labels: BTreeMap<u32, String>,
    /// Of block, head and query: its weights over the keys from the first to itself, `[L][H][T][1..=T]`.
    pub attention: Vec<Vec<Vec<Vec<f32>>>>,
    /// What would be predicted after each token if the model ended there: at the embedding, then after each block. The last
    /// row is the model's own prediction. `[L + 1][T]`
    pub logit_lens: Vec<Vec<Prediction>>,
    /// Euclidean norm of each token's vector in the residual stream, at the same places, `[L + 1][T]`.
    pub norms: Vec<Vec<f32>>,
    /// What the model gave each token before it came; nothing for the first.
    pub probabilities: Vec<Option<f64>>,
}

/// What is expected after a token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The likeliest tokens, best first.
    pub top: Vec<Choice>,
    /// The token that really follows; nothing at the end of the text.
    pub next: Option<Next>,
}

/// A token and its probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// The token.
    pub id: u32,
    /// Its probability, from 0 to 1.
    pub probability: f64,
}

/// How the token that really follows was rated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Next {
    /// Its probability, from 0 to 1.
    pub probability: f64,
    /// 1 if no other token is likelier.
    pub rank: usize,
}

impl Internals {
    /// Follows `ids` through the model. Fails if there are none or more than the context, or if a number is not finite.
    pub fn new(model: &LanguageModel, tokenizer: Option<&Tokenizer>, ids: &[u32]) -> Result<Self> {
        check_prompt(model.config(), ids)?;
        let mut internals = model.compute().run(|| follow(model, ids))?;
        let choices = internals.logit_lens.iter().flatten().flat_map(|prediction| &prediction.top);
        let shown: BTreeSet<u32> = choices.map(|choice| choice.id).chain(ids.iter().copied()).collect();
        internals.labels = shown.into_iter().map(|id| (id, label(tokenizer, id))).collect();
        Ok(internals)
    }

    /// Mean negative log-likelihood of the tokens after the first, in nats; `None` for a single token.
    pub fn nats_per_token(&self) -> Option<f64> {
        let nats: Vec<f64> = self.probabilities.iter().flatten().map(|probability| -probability.ln()).collect();
        (!nats.is_empty()).then(|| nats.iter().sum::<f64>() / nats.len() as f64)
    }
}

fn follow(model: &LanguageModel, ids: &[u32]) -> Result<Internals> {
    let (decoder, context) = (&model.model, model.context(0, ids.len(), Dropout::default()));
    let mut x = decoder.embed(ids_tensor(ids, &model.device()), 0, &context); // [1, T, D]
    let mut attention = Vec::new();
    let (mut logit_lens, mut norms) = (vec![predictions(model, x.clone(), ids)?], vec![lengths(x.clone())?]);
    for block in &decoder.layers {
        attention.push(causal_rows(block.attention_weights(x.clone(), &context))?);
        x = block.forward(x, None, &context); // [1, T, D]
        logit_lens.push(predictions(model, x.clone(), ids)?);
        norms.push(lengths(x.clone())?);
    }
    let last = logit_lens.last().into_iter().flatten();
    let probabilities = last.map(|prediction| prediction.next.map(|next| next.probability));
    let probabilities = std::iter::once(None).chain(probabilities).take(ids.len()).collect();
    Ok(Internals { ids: ids.to_vec(), labels: BTreeMap::new(), attention, logit_lens, norms, probabilities })
}

/// Of each head and query, the weights of the keys that exist by then.
///
/// # Shapes
/// - `weights`: `[1, H, T, T]` -> `[H][T][1..=T]`
fn causal_rows(weights: Tensor<4>) -> Result<Vec<Vec<Vec<f32>>>> {
    let [_, _, t, _] = weights.dims();
    let weights = finite(read(weights)?, "the weights of attention are")?;
    let rows = |head: &[f32]| head.chunks(t).enumerate().map(|(query, row)| row[..=query].to_vec()).collect();
    Ok(weights.chunks(t * t).map(rows).collect())
}

/// Length of each token's vector.
///
/// # Shapes
/// - `x`: `[1, T, D]` -> `[T]`
fn lengths(x: Tensor<3>) -> Result<Vec<f32>> {
    finite(read(x.square().sum_dim(2).sqrt())?, "the residual stream is") // [1, T, 1]
}

/// The logit lens: the model's end, put behind any block.
///
/// # Shapes
/// - `x`: `[1, T, D]` -> `[T]`
fn predictions(model: &LanguageModel, x: Tensor<3>, ids: &[u32]) -> Result<Vec<Prediction>> {
    let [_, t, _] = x.dims();
    let hidden = model.model.norm.forward(x, &ForwardContext::new(model.compute())); // [1, T, D]
    let mut predictions = Vec::with_capacity(t);
    for start in (0..t).step_by(ROWS) {
        let logits = model.logits(hidden.clone().narrow(1, start, ROWS.min(t - start))); // [1, rows, V]
        let [_, _, v] = logits.dims();
        for row in finite(read(logits)?, "the logits are")?.chunks(v) {
            predictions.push(Prediction::new(row, ids.get(predictions.len() + 1).copied()));
        }
    }
    Ok(predictions)
}

impl Prediction {
    /// Of one position's logits, `[V]`, all finite.
    fn new(logits: &[f32], next: Option<u32>) -> Self {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
        let probability = |id: u32| (f64::from(logits[id as usize]) - largest).exp() / sum;
        // Equal logits in the order of their ids.
        let better = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        if ids.len() > CHOICES {
            ids.select_nth_unstable_by(CHOICES - 1, better);
            ids.truncate(CHOICES);
        }
        ids.sort_unstable_by(better);
        let rank = |id: u32| 1 + logits.iter().filter(|&&logit| logit > logits[id as usize]).count();
        Self {
            top: ids.into_iter().map(|id| Choice { id, probability: probability(id) }).collect(),
            next: next.map(|id| Next { probability: probability(id), rank: rank(id) }),
        }
    }
}

fn finite(numbers: Vec<f32>, what: &'static str) -> Result<Vec<f32>> {
    if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(Error::NotFinite { what }) }
}

#[cfg(test)]
mod tests {
    use minillm_model::config::ModelOptions;

    use super::*;

    #[test]
    fn a_prediction_is_the_softmax_of_its_logits() {
        let logits: Vec<f32> = [1_f32, 2.0, 4.0, 1.0].iter().map(|odds| odds.ln() + 100.0).collect();
        let Prediction { top, next } = Prediction::new(&logits, Some(3));
        let ids: Vec<u32> = top.iter().map(|choice| choice.id).collect();
        assert_eq!(ids, [2, 1, 0, 3]);
        for (choice, expected) in top.iter().zip([0.5, 0.25, 0.125, 0.125]) {
            assert!((choice.probability - expected).abs() < 1e-6, "{choice:?}");
        }
        let next = next.unwrap();
        assert!((next.probability - 0.125).abs() < 1e-6);
        assert_eq!(next.rank, 3, "a tie is not a defeat");
        assert_eq!(Prediction::new(&logits, None).next, None);
    }

    #[test]
    fn only_the_best_are_kept() {
        let logits: Vec<f32> = (0..100).map(|id| ((id * 37) % 100) as f32).collect();
        let top = Prediction::new(&logits, None).top;
        let kept: Vec<f32> = top.iter().map(|choice| logits[choice.id as usize]).collect();
        assert_eq!(kept, [99.0, 98.0, 97.0, 96.0, 95.0, 94.0, 93.0, 92.0]);
    }

    #[test]
    fn large_models_show_fewer_tokens() {
        let of = |num_hidden_layers, heads, context| {
            let options = ModelOptions {
                num_hidden_layers: Some(num_hidden_layers),
                num_attention_heads: Some(heads),
                hidden_size: Some(heads * 2),
                ..ModelOptions::default()
            };
            most_tokens(&options.resolve(9, context))
        };
        assert_eq!(of(2, 4, 64), 64);
        assert_eq!(of(12, 12, 1024), 256);
        assert_eq!(of(32, 32, 4096), 128);
        assert_eq!(of(4096, 4096, 4096), 1);
    }
}

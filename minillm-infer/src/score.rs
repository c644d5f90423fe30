//! How well a model predicts a given text: nats per token, perplexity, bits per byte.
//!
//! Bits per byte compares models with different tokenizers: nats per token falls when tokens get shorter, the
//! information in a byte of text does not.

use burn::tensor::{Device, Int, Tensor, TensorData};
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::layers::dropout::Dropout;
use minillm_model::loss::IGNORED;

use crate::error::{Error, Result};
use crate::generate::check_ids;

/// The summed surprise of some tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Summed over the tokens.
    pub nats: f64,
    /// How many tokens were scored.
    pub tokens: u64,
    /// UTF-8 bytes of the text that they stand for.
    pub bytes: u64,
}

impl Score {
    /// Mean surprise of a token.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// e to the nats per token: among how many equally likely tokens the model is undecided.
    pub fn perplexity(&self) -> f64 {
        self.nats_per_token().exp()
    }

    /// Mean surprise of a byte, in bits.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }
}

/// A rectangle of tokens to predict.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Row-major `[B, T]`.
    pub inputs: &'a [i32],
    /// The token after each input, or [`IGNORED`].
    pub targets: &'a [i32],
    /// B.
    pub rows: usize,
}

/// Summed nats of the scored targets of a window; NaN if the device fails.
pub fn window_nats(model: &LanguageModel, device: &Device, window: Window) -> f64 {
    let shape = [window.rows, window.inputs.len() / window.rows];
    let tensor = |ids: &[i32]| Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), shape), device);
    let hidden = model.model.forward(tensor(window.inputs), None, &Dropout::off()); // [B, T, D]
    let nats = model.summed_loss(hidden, tensor(window.targets)).try_into_vec_as::<f64>();
    nats.map_or(f64::NAN, |nats| nats.iter().sum())
}

/// Scores `ids`, all but the first, in windows of the model's context. `bytes` is the size of the text they stand for.
pub fn score(model: &LanguageModel, config: &ModelConfig, device: &Device, ids: &[u32], bytes: u64) -> Result<Score> {
    if ids.len() < 2 {
        return Err(Error::Request {
            problem: "the text is too short: it has no token to predict".to_owned(),
            hint: "give a longer text".to_owned(),
        });
    }
    check_ids(config, ids)?;
    let context = config.context();
    let mut nats = 0.0;
    for start in (0..ids.len() - 1).step_by(context) {
        let end = (start + context).min(ids.len() - 1);
        let inputs: Vec<i32> = ids[start..end].iter().map(|&id| id as i32).collect();
        let targets: Vec<i32> = ids[start + 1..=end].iter().map(|&id| id as i32).collect();
        debug_assert!(!targets.contains(&IGNORED));
        nats += window_nats(model, device, Window { inputs: &inputs, targets: &targets, rows: 1 });
    }
    if !nats.is_finite() {
        return Err(Error::NotFinite { what: "the loss is" });
    }
    Ok(Score { nats, tokens: ids.len() as u64 - 1, bytes })
}

//! How well a model predicts a given text: nats per token, perplexity, bits per byte.
//!
//! Bits per byte compares models with different tokenizers: nats per token falls when tokens get shorter, the
//! information in a byte of text does not.

use burn::tensor::{Int, Tensor, TensorData};
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::error::Error as ModelError;
use minillm_model::layers::documents::Documents;
use minillm_model::layers::dropout::Dropout;
use minillm_model::loss::IGNORED;
use minillm_model::tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::failures;

/// The summed negative log-likelihood of some tokens.
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
    /// Mean negative log-likelihood of a token.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// e to the nats per token: among how many equally likely tokens the model is undecided.
    pub fn perplexity(&self) -> f64 {
        self.nats_per_token().exp()
    }

    /// Mean negative log-likelihood of a byte, in bits.
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
    /// Where documents begin that do not see each other.
    pub documents: Option<&'a Documents>,
}

/// Summed nats of the scored targets of a window.
pub fn window_nats(model: &LanguageModel, window: Window) -> Result<f64> {
    let device = model.device();
    let shape = [window.rows, window.inputs.len() / window.rows];
    let tensor = |ids: &[i32]| Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), shape), &device);
    let hidden = model.hidden_states_of(tensor(window.inputs), window.documents.cloned(), Dropout::default()); // [B, T, D]
    let nats = model.summed_loss(hidden, tensor(window.targets)).try_into_vec_as::<f64>();
    Ok(nats.map_err(|error| ModelError::Device(error.to_string()))?.iter().sum())
}

/// The windows in which a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    context: usize,
    stride: usize,
}

impl Windows {
    /// Windows of `context` tokens, by default all that the model sees at once, each beginning `stride` tokens after the one
    /// before, by default where that ends.
    pub fn new(config: &ModelConfig, context: Option<usize>, stride: Option<usize>) -> Result<Self> {
        let refuse = |problem: String, hint: String| Err(Error::Request { problem, hint });
        let most = config.context();
        let context = context.unwrap_or(most);
        if context == 0 || context > most {
            let problem = format!("`--context` is {context}, and the model sees {most} tokens at once");
            return refuse(problem, format!("choose 1 to {most}"));
        }
        let stride = stride.unwrap_or(context);
        if stride == 0 || stride > context {
            let problem = format!("`--stride` is {stride}, and a window has {context} tokens");
            return refuse(problem, format!("choose 1 to {context}; a longer step would leave tokens out"));
        }
        Ok(Self { context, stride })
    }

    /// Tokens in a window.
    pub fn context(self) -> usize {
        self.context
    }

    /// Tokens from the start of a window to that of the next.
    pub fn stride(self) -> usize {
        self.stride
    }
}

/// A text as token ids, of which all but the first are predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedText {
    /// The ids.
    pub ids: Vec<u32>,
    /// UTF-8 bytes of the text that the predicted ids stand for.
    pub bytes: u64,
}

impl EncodedText {
    /// One document is encoded as a prompt is; several as in training, where an end-of-text token follows each. Before the
    /// first token stands end-of-text, if the tokenizer has it and puts no token of its own there.
    pub fn new(tokenizer: &Tokenizer, documents: impl Iterator<Item = Result<String>>) -> Result<Self> {
        let mut text = Self { ids: Vec::new(), bytes: 0 };
        let end_of_text = tokenizer.end_of_text();
        let mut count = 0;
        for document in documents {
            let document = document?;
            if count == 0 {
                text.ids = tokenizer.encode_prompt(&document)?;
            } else {
                text.ids.extend(end_of_text);
                text.ids.extend(tokenizer.encode(&document)?);
            }
            text.bytes += document.len() as u64;
            count += 1;
        }
        if count > 1 {
            text.ids.extend(end_of_text);
        }
        let first = text.ids.first().map_or(&[][..], |&id| tokenizer.token_bytes(id));
        match end_of_text {
            // The first token is given, not predicted. Best is one that stands before every text.
            Some(end_of_text) if !first.is_empty() => text.ids.insert(0, end_of_text),
            _ => text.bytes -= first.len() as u64,
        }
        Ok(text)
    }
}

/// Scores all ids of `text` but the first, each once: of a window that begins before the one before it ends, only the tokens
/// behind that end. They are predicted from `context - stride` tokens or more, as in Hugging Face's guide to perplexity.
pub fn score(model: &LanguageModel, text: &EncodedText, windows: Windows) -> Result<Score> {
    let EncodedText { ids, bytes } = text;
    if ids.len() < 2 {
        return Err(Error::Request {
            problem: "the text is too short: it has no token to predict".to_owned(),
            hint: "give a longer text".to_owned(),
        });
    }
    let vocabulary = model.config().vocab_size;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
        return Err(Error::Request {
            problem: format!("the text has token id {id}, past the model's vocabulary of {vocabulary}"),
            hint: "the tokenizer must be the one that the model was trained with".to_owned(),
        });
    }
    let last = ids.len() - 1; // predicted from all before it
    let mut nats = 0.0;
    let mut scored = 0;
    for start in (0..last).step_by(windows.stride) {
        let end = (start + windows.context).min(last);
        let inputs: Vec<i32> = ids[start..end].iter().map(|&id| id as i32).collect();
        let mut targets: Vec<i32> = ids[start + 1..=end].iter().map(|&id| id as i32).collect();
        debug_assert!(!targets.contains(&IGNORED));
        targets[..scored - start].fill(IGNORED);
        nats += window_nats(model, Window { inputs: &inputs, targets: &targets, rows: 1, documents: None })?;
        scored = end;
        if end == last {
            break;
        }
    }
    if let Some(problem) = failures::first() {
        return Err(ModelError::Device(problem).into());
    }
    if !nats.is_finite() {
        return Err(Error::NotFinite { what: "the loss is" });
    }
    Ok(Score { nats, tokens: last as u64, bytes: *bytes })
}

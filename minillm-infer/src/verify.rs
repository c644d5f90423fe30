//! Whether two models are one: same logits, same greedy tokens, same tokenizer.

use minillm_model::checkpoint::Checkpoint;

use crate::error::{Error, Result};
use crate::generate::{Tokens, logits};
use crate::sampling::Sampling;

/// Tokens of the fixed prompt.
const PROMPT_TOKENS: usize = 32;
/// How many greedy tokens are compared after it.
const GREEDY_TOKENS: usize = 64;

/// Texts whose token ids are compared. What a character vocabulary lacks, both must lack.
pub(crate) const TEXTS: [&str; 8] = [
    "The end",
    " two  spaces, a\ttab\n\nand lines\r\n",
    "it's IT'S 1234567 3.14",
    "fn main() { println!(\"{}\", 0x1F); }",
    "caf\u{e9} cafe\u{301} \u{4f60}\u{597d} \u{645}\u{631}\u{62d}\u{628}\u{627}",
    "\u{1f469}\u{200d}\u{1f680}\u{1f1e9}\u{1f1ea} \u{fffd}\u{0}\u{7}",
    "<|endoftext|> between texts",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// The differences between two models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The largest difference of two logits over the fixed prompt.
    pub largest: f32,
    /// The root mean square of the differences, as a share of the logits' own spread at a position.
    pub relative: f64,
    /// How many greedy tokens are the same before the first that differs.
    pub greedy_equal: usize,
    /// How many greedy tokens were compared.
    pub greedy: usize,
    /// How many texts have the same ids, if both have a tokenizer.
    pub texts_equal: Option<usize>,
    /// How many texts were compared.
    pub texts: usize,
}

impl Comparison {
    /// Whether tokens and tokenizers are the same and no logit differs by more than `tolerance`.
    pub fn is_equal(&self, tolerance: f32) -> bool {
        self.is_equal_but_for_texts(tolerance) && self.has_equal_texts()
    }

    /// Whether tokens are the same and no logit differs by more than `tolerance`.
    pub fn is_equal_but_for_texts(&self, tolerance: f32) -> bool {
        self.largest <= tolerance && self.greedy_equal == self.greedy
    }

    /// Whether all texts have the same ids, if both have a tokenizer.
    pub fn has_equal_texts(&self) -> bool {
        self.texts_equal.is_none_or(|equal| equal == self.texts)
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { largest, relative, greedy_equal, greedy, texts_equal, texts } = self;
        write!(f, "largest difference of a logit {largest:.1e} ({:.3} % of their spread), ", 100.0 * relative)?;
        write!(f, "greedy tokens equal {greedy_equal} of {greedy}, ")?;
        match texts_equal {
            Some(equal) => write!(f, "texts tokenised alike {equal} of {texts}"),
            None => write!(f, "no tokenizers to compare"),
        }
    }
}

/// A prompt of any vocabulary: ids that jump about, always the same.
pub fn fixed_prompt(vocab_size: usize, context: usize) -> Vec<u32> {
    // Half the context is left for what is generated.
    (0..PROMPT_TOKENS.min(context.div_ceil(2))).map(|i| ((7 * i * i + 3 * i + 1) % vocab_size) as u32).collect()
}

/// Compares two models on the same device. Another vocabulary is an error: there is nothing to compare then.
pub fn compare(a: &Checkpoint, b: &Checkpoint) -> Result<Comparison> {
    let (config_a, config_b) = (a.model.config(), b.model.config());
    let vocab_size = config_a.vocab_size;
    if vocab_size != config_b.vocab_size {
        return Err(Error::Differ {
            problem: format!("the vocabularies have {vocab_size} and {} tokens", config_b.vocab_size),
        });
    }
    let context = config_a.context().min(config_b.context());
    let prompt = fixed_prompt(vocab_size, context);
    let count = GREEDY_TOKENS.min(context - prompt.len());
    // One model after the other: on a CPU, a model that lies as in training is copied for this.
    let says = |checkpoint: &Checkpoint| -> Result<(Vec<f32>, Vec<u32>)> {
        let model = checkpoint.model.clone().for_generation();
        let logits = logits(&model, &prompt)?;
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let greedy = Tokens::new(&model, &prompt, count, &sampling)?.collect::<Result<_>>()?;
        Ok((logits, greedy))
    };
    let ((ours, greedy_a), (theirs, greedy_b)) = (says(a)?, says(b)?);
    let difference = |(a, b): (&f32, &f32)| (a - b).abs();
    let largest = ours.iter().zip(&theirs).map(difference).fold(0.0, f32::max);
    let greedy_equal = greedy_a.iter().zip(&greedy_b).take_while(|(a, b)| a == b).count();
    let (mut texts_equal, mut texts) = (None, 0);
    if let (Some(a), Some(b)) = (&a.tokenizer, &b.tokenizer) {
        // The models' own text is in every vocabulary, whatever its characters.
        let own = [a.decode(&greedy_a), a.decode(&prompt)];
        let all = TEXTS.into_iter().chain(own.iter().map(String::as_str));
        let is_equal = |text: &&str| a.encode_prompt(text).ok() == b.encode_prompt(text).ok();
        texts = TEXTS.len() + own.len();
        texts_equal = Some(all.filter(is_equal).count());
    }
    let relative = spread_of_differences(&ours, &theirs, vocab_size);
    Ok(Comparison { largest, relative, greedy_equal, greedy: count, texts_equal, texts })
}

/// RMS of the differences over RMS of the logits about their mean, position by position.
fn spread_of_differences(a: &[f32], b: &[f32], vocab_size: usize) -> f64 {
    let (mut differences, mut spread) = (0.0, 0.0);
    for (a, b) in a.chunks(vocab_size).zip(b.chunks(vocab_size)) {
        let mean = a.iter().map(|&logit| f64::from(logit)).sum::<f64>() / vocab_size as f64;
        differences += a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        spread += a.iter().map(|&logit| (f64::from(logit) - mean).powi(2)).sum::<f64>();
    }
    if differences == 0.0 { 0.0 } else { (differences / spread).sqrt() }
}

//! Generation with the cache: one token at a time and in chunks it gives the logits of one pass, and no later token
//! changes what was said before it.

use burn::tensor::Device;
use minillm_model::cases::inputs::{SEED, ids};
use minillm_model::config::ModelConfig;
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::kv_cache::KvCache;
use minillm_model::ops::ComputeOptions;

use super::check::{Check, Computed, Group, Part, Setting};
use super::training::{gpt2, qwen3};

/// Tokens of the text.
const LENGTH: usize = 12;
/// Tokens of it that are a prompt, in greedy generation.
const PROMPT: usize = 4;
/// Tokens that go through the model at once, where they go in chunks; the last chunk is shorter.
const CHUNK: usize = 5;
/// Position of the token that is changed.
const CHANGED: usize = 7;

/// Both presets; the second block of `qwen3` has a window, the first looks at everything.
pub fn checks() -> Vec<Check> {
    let check = |name, config: fn() -> ModelConfig| {
        let compute = move |setting: &Setting| decoding(&config(), setting);
        let has_fast = |compute: &ComputeOptions| *compute != ComputeOptions::READABLE;
        // The largest logits are about 3; where two passes are subtracted, nothing is left to be measured by.
        Check { smallest: 1.0, ..Check::new(Group::Cache, name, has_fast, compute).for_generation() }
    };
    vec![check("cache qwen3", windowed), check("cache gpt2", gpt2)]
}

/// The architecture of the first of them.
pub fn windowed() -> ModelConfig {
    ModelConfig { sliding_window: Some(5), max_window_layers: 1, ..qwen3() }
}

fn decoding(config: &ModelConfig, setting: &Setting) -> Computed {
    let reader = Reader::new(config, setting)?;
    let (text, vocabulary) = (text(config), config.vocab_size);
    let mut changed = text.clone();
    changed[CHANGED] = (text[CHANGED] + 1) % vocabulary as i32;
    let before = |logits: Vec<f32>| logits[..CHANGED * vocabulary].to_vec();
    let part = |what: &str, values| Part { what: what.to_owned(), values };
    Ok(vec![
        part("logits of one pass", reader.logits(&text, None)?),
        part("logits of one token at a time", reader.in_chunks(&text, 1)?),
        part("logits of chunks", reader.in_chunks(&text, CHUNK)?),
        part("logits before a changed token", before(reader.logits(&changed, None)?)),
        part("greedy decoding minus one pass", reader.greedy_minus_one_pass(&text[..PROMPT])?),
    ])
}

/// The tokens that are read.
pub fn text(config: &ModelConfig) -> Vec<i32> {
    (0..LENGTH).map(|index| (index * 7 % config.vocab_size) as i32).collect()
}

/// A model that reads.
pub struct Reader {
    model: LanguageModel,
    config: ModelConfig,
    device: Device,
}

impl Reader {
    /// With the initial weights of `config`. Fails, in words, if it cannot be built.
    pub fn new(config: &ModelConfig, setting: &Setting) -> Result<Self, String> {
        let model = LanguageModel::new(config, &setting.place.plain).map_err(|error| error.to_string())?;
        let model = init::initialize(model.with_compute(setting.place.compute), SEED);
        Ok(Self { model, config: config.clone(), device: setting.place.plain.clone() })
    }

    /// An empty cache that a whole text fits into.
    pub fn cache(&self) -> KvCache {
        KvCache::new(&self.config, 1, LENGTH, &self.device)
    }

    /// `[T, V]` of the tokens given. Fails, in words, if the device does.
    pub fn logits(&self, tokens: &[i32], cache: Option<&mut KvCache>) -> Result<Vec<f32>, String> {
        let logits = self.model.forward(ids(tokens, 1, &self.device), cache);
        Ok(Part::read("logits", logits)?.values)
    }

    fn in_chunks(&self, text: &[i32], size: usize) -> Result<Vec<f32>, String> {
        let mut cache = self.cache();
        let chunks: Result<Vec<_>, _> = text.chunks(size).map(|chunk| self.logits(chunk, Some(&mut cache))).collect();
        Ok(chunks?.concat())
    }

    /// The logits of every token that was chosen for being likeliest, less those of one pass over the text so made. Zero,
    /// whichever tokens a device chose between two equally likely ones.
    fn greedy_minus_one_pass(&self, prompt: &[i32]) -> Result<Vec<f32>, String> {
        let (mut cache, mut text) = (self.cache(), prompt.to_vec());
        let mut logits = self.logits(prompt, Some(&mut cache))?;
        while text.len() < LENGTH {
            let last = &logits[logits.len() - self.config.vocab_size..];
            let best = last.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(id, _)| id as i32);
            text.push(best);
            logits.extend(self.logits(&[best], Some(&mut cache))?);
        }
        let whole = self.logits(&text, None)?;
        Ok(logits.iter().zip(whole).map(|(step, whole)| step - whole).collect())
    }
}

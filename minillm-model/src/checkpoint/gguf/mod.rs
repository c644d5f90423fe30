//! GGUF version 3, the one-file format of llama.cpp and Ollama
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! ```text
//! "GGUF", version, number of tensors, number of keys
//! keys      name, type, value: architecture, sizes, tokenizer
//! tensors   name, dimensions (fastest first), type, offset
//! data      the tensors, each at a multiple of the alignment
//! ```
//!
//! All little endian. [`read`] takes a file apart without believing it, [`mod@write`] makes one; [`config`] says a model's
//! architecture in GGUF's keys, [`vocabulary`] its tokenizer; [`load`] and [`save`] put them together.

pub mod config;
mod hyperparameters;
pub mod read;
pub mod vocabulary;
pub mod write;

/// The first bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written; 2 differs only in that nobody writes it any more.
const VERSION: u32 = 3;
/// Where tensors begin, unless the key [`ALIGNMENT_KEY`] says otherwise.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// Types of values.
mod value_type {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

use std::path::Path;

use burn::tensor::Device;

use super::naming::Naming;
use super::weights::{self, HostTensors};
use super::{Checkpoint, Contents, TextFiles};
use crate::config::ModelConfig;
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::stats;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::llama_cpp::LlamaCpp;

/// Reads the model in the file at `path` onto `device`.
pub fn load(path: &Path, device: &Device) -> Result<Checkpoint> {
    let (keys, tensors) = read::open(path)?;
    let (architecture, config) = config::read(&keys, &tensors)?;
    let tokenizer = vocabulary::read(&keys, config.vocab_size)?;
    let model = weights::load_from(&tensors, Naming::gguf(&architecture, &config), &config, device)?;
    Ok(Checkpoint {
        path: path.to_owned(),
        model,
        tokenizer,
        begin_id: vocabulary::begin_id(&keys)?,
        end_ids: vocabulary::end_ids(&keys)?,
        tokenizer_config: None,
        chat_template: vocabulary::chat_template(&keys)?.map(str::to_owned),
        warnings: Vec::new(),
    })
}

/// Reads the architecture alone.
pub fn load_config(path: &Path) -> Result<ModelConfig> {
    let (keys, tensors) = read::open(path)?;
    config::read(&keys, &tensors).map(|(_, config)| config)
}

/// Reads the tokenizer alone; `None` if the file has none.
pub fn load_tokenizer(path: &Path) -> Result<Option<Tokenizer>> {
    let (keys, tensors) = read::open(path)?;
    let (_, config) = config::read(&keys, &tensors)?;
    vocabulary::read(&keys, config.vocab_size)
}

/// Reads how the model is given texts.
pub fn load_text_files(path: &Path) -> Result<TextFiles> {
    let (keys, tensors) = read::open(path)?;
    let (_, config) = config::read(&keys, &tensors)?;
    let tokenizer = vocabulary::read(&keys, config.vocab_size)?;
    let name = |id: Option<u32>| tokenizer.as_ref()?.name(id?);
    let bos = name(vocabulary::begin_id(&keys)?);
    let eos = name(vocabulary::end_ids(&keys)?.first().copied());
    let chat_template = vocabulary::chat_template(&keys)?.map(str::to_owned);
    Ok(TextFiles::new(tokenizer, chat_template, [bos, eos]))
}

/// llama.cpp's way from text to ids for the vocabulary in the file at `path`, or why it is not known.
pub fn llama_cpp(path: &Path) -> Result<std::result::Result<LlamaCpp, String>> {
    let (keys, _) = read::open(path)?;
    vocabulary::llama_cpp(&keys)
}

/// Writes a model to the file `path`, as `name`. What llama.cpp cannot compute is an error that names the switch.
pub fn save(path: &Path, name: &str, contents: &Contents, tensors: HostTensors, encoding: Encoding) -> Result<()> {
    let Contents { config, tokenizer, begin_id, end_ids, chat_template, .. } = *contents;
    let architecture = config::architecture(config).map_err(|switches| cannot_express(config, &switches))?;
    let parameters = stats::parameters(config).total();
    let text = |key: &str, value: &str| (key.to_owned(), Value::Text(value.to_owned()));
    let int = |key: &str, value: i128| (key.to_owned(), Value::Int(value));
    let mut keys = vec![
        text("general.architecture", architecture),
        text("general.type", "model"),
        text("general.name", name),
        text("general.size_label", &size_label(parameters)),
        int("general.file_type", file_type(encoding)),
        int("general.quantization_version", 2),
    ];
    keys.extend(config::keys(architecture, config));
    keys.extend(vocabulary::keys(tokenizer, config.vocab_size, begin_id, end_ids, chat_template)?);
    let mut tensors = Naming::gguf(architecture, config).to_foreign(tensors);
    tensors.extend(config::rope_factors(config).map(|factors| (config::ROPE_FACTORS.to_owned(), factors)));
    write::write(path, &keys, &tensors, encoding)
}

/// The format's custom for names: `Name-850K-F32.gguf`.
pub fn file_name(name: &str, config: &ModelConfig, encoding: Encoding) -> String {
    format!("{name}-{}-{}.gguf", size_label(stats::parameters(config).total()), encoding.name())
}

/// 850K, 124M, 1.2B.
fn size_label(parameters: usize) -> String {
    let count = parameters as f64;
    match parameters {
        1_000_000_000.. => format!("{:.1}B", count / 1e9),
        1_000_000.. => format!("{:.0}M", count / 1e6),
        _ => format!("{:.0}K", count / 1e3),
    }
}

fn cannot_express(config: &ModelConfig, switches: &[&'static str]) -> Error {
    let values = serde_json::to_value(config).unwrap_or_default();
    let others: Vec<_> = switches[1..].iter().map(|field| format!("`{field}` = {}", values[field])).collect();
    let others = if others.is_empty() { String::new() } else { format!(", nor does {}", others.join(", ")) };
    let field = switches[0];
    Error::InvalidConfig {
        field,
        problem: format!("= {} has no place in GGUF, as llama.cpp does not compute it{others}", values[field]),
        hint:
            "export with `--to hf`: transformers reads it if config.json names one of its classes, MiniLLM in any case"
                .to_owned(),
    }
}

/// llama.cpp's number for a file whose matrices have this encoding.
fn file_type(encoding: Encoding) -> i128 {
    match encoding {
        Encoding::F32 => 0,
        Encoding::F16 => 1,
        Encoding::Q8_0 => 7,
        Encoding::Bf16 => 32,
    }
}

/// The number of a tensor format in ggml's list.
fn tensor_type(encoding: Encoding) -> u32 {
    match encoding {
        Encoding::F32 => 0,
        Encoding::F16 => 1,
        Encoding::Q8_0 => 8,
        Encoding::Bf16 => 30,
    }
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any of the whole numbers.
    Int(i128),
    /// f32 or f64.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// A list of texts.
    Texts(Texts),
    /// A list of whole numbers.
    Ints(Vec<i64>),
    /// A list of f32 or f64.
    Floats(Vec<f32>),
    /// A list of true and false.
    Bools(Vec<bool>),
}

/// A list of texts in one piece: a vocabulary has hundreds of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    all: String,
    ends: Vec<u32>,
}

impl Texts {
    /// Adds a text at the end.
    pub fn push(&mut self, text: &str) {
        self.all.push_str(text);
        self.ends.push(self.all.len() as u32);
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.all[start as usize..end as usize])
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut list = Self::default();
        texts.into_iter().for_each(|text| list.push(text.as_ref()));
        list
    }
}

//! The sections `[data]` and `[tokenizer]` of a configuration file.

use std::path::PathBuf;

use minillm_model::tokenizer::LARGEST_VOCABULARY;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where the text comes from, how it is split and in which order it is read: `[data]`.
///
/// At most one of `source` and `url` is set; `files`, where not empty, replaces both (so that
/// `--set data.files=["my.txt"]` works with every configuration). With none of the three it is [`Source::Tales`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A corpus that is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The address of one text file, downloaded once into the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// SHA-256 of the file at `url`, 64 hexadecimal digits; anything else is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Text files: `.txt` (documents separated by `<|endoftext|>`) or `.jsonl` (one object a line, field `text`), each
    /// plain or with `.gz` or `.zst` behind. Relative paths start at the current directory.
    pub files: Vec<PathBuf>,
    /// The share of the text that is held out to be scored, above 0 and below 1. Of a single document it is the tail,
    /// counted in characters; of several, every n-th document with n = round(1 / fraction), but at least 2.
    /// `tales` has a validation set of its own and ignores it.
    pub validation_fraction: f64,
    /// How batches are drawn; by default `documents` for `tales` and `random` for everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// A corpus that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Generated little stories whose entropy is known, see [`crate::tales`]. Never exhausted.
    Tales,
    /// Conversations about them whose answers are known, see [`crate::tales::chat`]. Never exhausted; the only one for `objective.kind = "chat"`.
    #[serde(rename = "tales-chat")]
    TalesChat,
}

/// How the rows of a batch are drawn from the training text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Crops at random places, with replacement (nanoGPT).
    Random,
    /// Windows side by side, each once an epoch, in a new order every epoch.
    Shuffled,
    /// Whole documents, each read from its first token, in a new order every epoch.
    Documents,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { source: None, url: None, sha256: None, files: Vec::new(), validation_fraction: 0.1, order: None }
    }
}

impl DataConfig {
    /// Whether this is the built-in corpus rather than a file.
    pub fn is_tales(&self) -> bool {
        self.files.is_empty() && self.url.is_none()
    }

    /// `order`, or its default for this source.
    pub fn order(&self) -> Order {
        self.order.unwrap_or(if self.is_tales() { Order::Documents } else { Order::Random })
    }

    /// Rejects values that no text could make right, naming the field.
    pub fn validate(&self) -> Result<()> {
        if !(self.validation_fraction > 0.0 && self.validation_fraction < 1.0) {
            return Err(invalid(
                "data.validation_fraction",
                format!("is {}, but must be above 0 and below 1", self.validation_fraction),
                "0.1 holds out a tenth of the text",
            ));
        }
        if !self.files.is_empty() {
            return Ok(()); // `files` replaces the rest, which may then be anything
        }
        if self.source.is_some() && self.url.is_some() {
            return Err(invalid(
                "data.source",
                "and `data.url` are both set".into(),
                "keep the one to train on; `data.files` may stand beside either and replaces it",
            ));
        }
        if self.sha256.is_some() && self.url.is_none() {
            return Err(invalid(
                "data.sha256",
                "belongs to `data.url`, which is not set".into(),
                "set it or remove both",
            ));
        }
        if let Some(sha256) = &self.sha256
            && !(sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(invalid(
                "data.sha256",
                format!("is `{sha256}`, which is not 64 hexadecimal digits"),
                "`sha256sum FILE` prints it; without the field the first download's hash is kept",
            ));
        }
        if self.is_tales() && self.order() != Order::Documents {
            return Err(invalid(
                "data.order",
                "must be `documents` for `tales`: it is generated without end, there is nothing to crop".into(),
                "remove the field",
            ));
        }
        Ok(())
    }
}

/// How text becomes token ids: `[tokenizer]`.
///
/// ```toml
/// [tokenizer]
/// kind = "bpe"
/// vocab_size = 4096
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", try_from = "TokenizerFields")]
pub enum TokenizerConfig {
    /// One token per distinct character of the text (nanoGPT's first example). The default.
    #[default]
    Char,
    /// Byte-level byte-pair encoding, trained on the training text.
    Bpe {
        /// Tokens in the vocabulary, the 256 bytes, end-of-text and the two around a turn of a conversation included.
        vocab_size: usize,
    },
    /// A tokenizer that exists already, for example GPT-2's.
    File {
        /// A `tokenizer.json`.
        path: PathBuf,
    },
}

impl TokenizerConfig {
    /// Rejects values that no text could make right, naming the field.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Bpe { vocab_size } if *vocab_size < 259 => Err(invalid(
                "tokenizer.vocab_size",
                format!(
                    "is {vocab_size}, but 256 bytes, end-of-text and the two tokens around a turn already make 259"
                ),
                "1024 suits a megabyte of text, 4096 some hundred",
            )),
            Self::Bpe { vocab_size } if *vocab_size > LARGEST_VOCABULARY as usize => Err(invalid(
                "tokenizer.vocab_size",
                format!("is {vocab_size}"),
                "32000 is common, 250000 the most in use",
            )),
            _ => Ok(()),
        }
    }
}

/// [`TokenizerConfig`] as it is read. serde's own reading of a tagged enum would let `kind = "char"` pass with any
/// other keys beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenizerFields {
    kind: TokenizerKind,
    vocab_size: Option<usize>,
    path: Option<PathBuf>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TokenizerKind {
    Char,
    Bpe,
    File,
}

impl TryFrom<TokenizerFields> for TokenizerConfig {
    type Error = &'static str;

    fn try_from(fields: TokenizerFields) -> Result<Self, Self::Error> {
        match (fields.kind, fields.vocab_size, fields.path) {
            (TokenizerKind::Char, None, None) => Ok(Self::Char),
            (TokenizerKind::Char, ..) => Err("`kind = \"char\"` takes no other field: the text decides the vocabulary"),
            (TokenizerKind::Bpe, Some(vocab_size), None) => Ok(Self::Bpe { vocab_size }),
            (TokenizerKind::Bpe, ..) => Err("`kind = \"bpe\"` takes `vocab_size` and no other field"),
            (TokenizerKind::File, None, Some(path)) => Ok(Self::File { path }),
            (TokenizerKind::File, ..) => Err("`kind = \"file\"` takes `path` and no other field"),
        }
    }
}

/// A [`Error::Config`] about a field of these sections. Which file or `--set` the value came from is not known here.
pub(super) fn invalid(field: &str, problem: String, hint: &str) -> Error {
    Error::Config { origin: "configuration".into(), field: field.into(), problem, hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> DataConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn files_replace_the_other_sources() {
        let config = data("source = 'tales'\nurl = 'http://x/y.txt'\nfiles = ['a.txt']");
        assert!(config.validate().is_ok() && !config.is_tales());
        assert_eq!(config.order(), Order::Random);
        assert_eq!(data("").order(), Order::Documents);
        assert!(data("").is_tales());
    }

    #[test]
    fn each_impossible_value_names_its_field() {
        for (text, field) in [
            ("validation_fraction = 0.0", "data.validation_fraction"),
            ("validation_fraction = 1.0", "data.validation_fraction"),
            ("validation_fraction = nan", "data.validation_fraction"),
            ("source = 'tales'\nurl = 'http://x/y.txt'", "data.source"),
            ("url = 'http://x/y.txt'\nsha256 = 'abc'", "data.sha256"),
            ("sha256 = '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed'", "data.sha256"),
            ("order = 'random'", "data.order"),
        ] {
            let error = data(text).validate().unwrap_err();
            assert!(error.to_string().contains(field), "{text}: {error}");
            assert_eq!(error.exit_code(), 2);
            assert!(error.hint().is_some());
        }
        assert!(toml::from_str::<DataConfig>("file = ['a.txt']").is_err());
    }

    #[test]
    fn tokenizer_sections_are_read_strictly_and_written_back() {
        for (text, expected) in [
            ("kind = \"char\"\n", TokenizerConfig::Char),
            ("kind = \"bpe\"\nvocab_size = 512\n", TokenizerConfig::Bpe { vocab_size: 512 }),
            ("kind = \"file\"\npath = \"t.json\"\n", TokenizerConfig::File { path: "t.json".into() }),
        ] {
            let config: TokenizerConfig = toml::from_str(text).unwrap();
            assert_eq!(config, expected);
            assert_eq!(toml::to_string(&config).unwrap(), text);
        }
        for text in ["kind = 'char'\nvocab_size = 9", "kind = 'bpe'", "kind = 'file'", "kind = 'word'", "vocab = 1"] {
            assert!(toml::from_str::<TokenizerConfig>(text).is_err(), "{text}");
        }
        assert!(TokenizerConfig::Bpe { vocab_size: 256 }.validate().is_err());
    }
}

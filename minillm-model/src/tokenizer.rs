//! Text to token ids and back, as a `tokenizer.json` that the whole ecosystem reads.
//!
//! Two kinds are made here. A *character* tokenizer has one token per distinct character, sorted by code point: nanoGPT's
//! numbers. A *byte-level BPE* (Sennrich et al. 2016, arXiv:1508.07909; GPT-2's byte alphabet) starts from the 256
//! bytes and merges the most frequent neighbours, so that every text can be written. Its words are cut by exactly Qwen2's
//! pattern, because llama.cpp and Ollama must know the pattern to cut alike. Any other `tokenizer.json` can be read.
//!
//! The work is done by Hugging Face's `tokenizers` library.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, ModelWrapper, SplitDelimiterBehavior, Tokenizer as Inner};

use crate::error::{Error, Result};

/// Stands between texts: the model reads it before the first token of a text and writes it after the last.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// What other tokenizers call it; the first one present counts.
const END_OF_TEXT_NAMES: [&str; 5] = [END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>"];

/// Qwen2's pattern: contractions, words with the space before them, single digits, punctuation, runs of white space.
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The largest `tokenizer.json` that is read: vocabularies of a quarter million tokens need about 35 MB.
const LARGEST_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// A tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    end_of_text: Option<u32>,
    vocab_size: usize,
}

impl Tokenizer {
    /// One token per character. `end_of_text` adds [`END_OF_TEXT`] as the last id, for texts of several documents.
    pub fn char_level(characters: &BTreeSet<char>, end_of_text: bool) -> Result<Self> {
        let ids = (0_u32..).zip(characters).map(|(id, character)| (character.to_string(), id));
        // The library wants a name for the unknown token; it is not in the vocabulary, so that unknown is an error.
        let model = WordLevel::builder().vocab(ids.collect()).unk_token("<unk>".to_owned()).build().map_err(failed)?;
        let mut inner = Inner::new(ModelWrapper::WordLevel(model));
        inner.with_pre_tokenizer(Some(split("(?s).")?)); // any character, line breaks included
        inner.with_decoder(Some(Fuse::new()));
        if end_of_text {
            inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true)]).map_err(failed)?;
        }
        Ok(Self::new(inner))
    }

    /// A byte-level BPE of `vocab_size` tokens: [`END_OF_TEXT`] as id 0, the 256 bytes, and merges learned from `texts`.
    pub fn train_bpe<I>(vocab_size: usize, texts: I) -> Result<Self>
    where
        I: Iterator<Item = String> + Send,
    {
        const SMALLEST: usize = 257;
        if vocab_size < SMALLEST {
            return Err(Error::Tokenizer {
                problem: format!("a vocabulary of {vocab_size} cannot hold the 256 bytes and `{END_OF_TEXT}`"),
                hint: format!("set `vocab_size` to {SMALLEST} or more"),
            });
        }
        let byte_level = ByteLevel::new(false, false, false); // no space in front, no offsets, no pattern of its own
        let words = Sequence::new(vec![split(QWEN2_PATTERN)?, PreTokenizerWrapper::ByteLevel(byte_level)]);
        let mut inner = Inner::new(ModelWrapper::BPE(BPE::default()));
        inner.with_pre_tokenizer(Some(words));
        inner.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab_size)
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        inner.train(&mut TrainerWrapper::BpeTrainer(trainer), texts).map_err(failed)?;
        Ok(Self::new(inner.into()))
    }

    /// Reads a `tokenizer.json`. Truncation and padding that it may ask for are left out: a text is encoded whole.
    pub fn from_file(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "read", what: "the tokenizer", source };
        if fs::metadata(path).map_err(io)?.len() > LARGEST_FILE_BYTES {
            return Err(invalid(path, format!("is larger than {LARGEST_FILE_BYTES} bytes")));
        }
        let text = fs::read(path).map_err(io)?;
        let mut fields: Value =
            serde_json::from_slice(&text).map_err(|error| invalid(path, format!("is not JSON: {error}")))?;
        let Some(object) = fields.as_object_mut() else {
            return Err(invalid(path, "is not a JSON object".to_owned()));
        };
        object.insert("truncation".to_owned(), Value::Null);
        object.insert("padding".to_owned(), Value::Null);
        // The library panics on some malformed files; that is the file's fault, not ours.
        let read = catch_unwind(AssertUnwindSafe(|| Inner::from_bytes(fields.to_string())));
        match read {
            Ok(Ok(inner)) => Ok(Self::new(inner)),
            Ok(Err(error)) => Err(invalid(path, format!("is not a tokenizer: {error}"))),
            Err(_) => Err(invalid(path, "is not a tokenizer: its parts contradict each other".to_owned())),
        }
    }

    fn new(inner: Inner) -> Self {
        let vocabulary = inner.get_vocab(true);
        Self {
            end_of_text: END_OF_TEXT_NAMES.iter().find_map(|name| inner.token_to_id(name)),
            vocab_size: vocabulary.values().max().map_or(0, |&largest| largest as usize + 1),
            inner,
        }
    }

    /// The text of `tokenizer.json`. The same tokenizer always gives the same bytes.
    pub fn to_json(&self) -> String {
        // Serialising plain data to a string cannot fail.
        self.inner.to_string(true).unwrap_or_default() + "\n"
    }

    /// The text of `tokenizer_config.json`, for a model of this context.
    pub fn config_json(&self, model_max_length: usize) -> String {
        let end_of_text = self.end_of_text.and_then(|id| self.inner.id_to_token(id));
        let fields = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end_of_text,
            "eos_token": end_of_text,
            "model_max_length": model_max_length,
            "clean_up_tokenization_spaces": false,
        });
        format!("{fields:#}\n")
    }

    /// Token ids of `text`, with nothing added. A special token spelled out in the text becomes that token. A character
    /// that the vocabulary lacks is an error that names it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(self.unknown_character(text).unwrap_or_else(|| failed(error))),
        }
    }

    fn unknown_character(&self, text: &str) -> Option<Error> {
        let unknown = text.chars().find(|character| self.inner.token_to_id(&character.to_string()).is_none())?;
        Some(Error::Tokenizer {
            problem: format!("the character {unknown:?} is not in the vocabulary"),
            hint: "use only characters of the training text, or train with `tokenizer.kind = \"bpe\"`".to_owned(),
        })
    }

    /// The text of `ids`. Special tokens are left out; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(Error::Tokenizer {
                problem: format!("token id {id} is past the vocabulary of {}", self.vocab_size),
                hint: "ids count from 0".to_owned(),
            });
        }
        self.inner.decode(ids, true).map_err(failed)
    }

    /// How many tokens there are: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token between texts, if the tokenizer has one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// SHA-256 of [`Tokenizer::to_json`], in hexadecimal.
    pub fn fingerprint(&self) -> String {
        Sha256::digest(self.to_json()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Every match of `pattern` is a word by itself.
fn split(pattern: &str) -> Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    Ok(PreTokenizerWrapper::Split(split))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer { problem: error.to_string(), hint: String::new() }
}

fn invalid(path: &Path, problem: String) -> Error {
    Error::InvalidFile { path: path.to_owned(), problem, hint: "copy the model's tokenizer.json again".to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bpe() -> Tokenizer {
        let texts = ["Once upon a time there was a little fox.", "The fox said: \"I'm 12 years old!\"\n\nThe end."];
        Tokenizer::train_bpe(300, texts.iter().cycle().take(40).map(|text| (*text).to_owned())).unwrap()
    }

    fn saved(json: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, json).unwrap();
        (folder, path)
    }

    #[test]
    fn characters_are_numbered_by_code_point() {
        let tokenizer = Tokenizer::char_level(&"hello\n wörld".chars().collect(), false).unwrap();
        assert_eq!(tokenizer.vocab_size(), 10); // \n, space, d, e, h, l, o, r, w, ö
        let ids = tokenizer.encode("\n dö").unwrap();
        assert_eq!(ids, [0, 1, 2, 9]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "\n dö");
        assert_eq!(tokenizer.end_of_text(), None);
    }

    #[test]
    fn a_character_that_is_not_there_is_named() {
        let tokenizer = Tokenizer::char_level(&"ab".chars().collect(), false).unwrap();
        let error = tokenizer.encode("abc").unwrap_err();
        assert!(error.to_string().contains("'c'"), "{error}");
    }

    #[test]
    fn end_of_text_comes_last_among_characters_and_first_in_bpe() {
        let characters = Tokenizer::char_level(&"ab".chars().collect(), true).unwrap();
        assert_eq!((characters.end_of_text(), characters.vocab_size()), (Some(2), 3));
        assert_eq!(characters.encode("a<|endoftext|>b").unwrap(), [0, 2, 1]);
        assert_eq!(bpe().end_of_text(), Some(0));
        assert_eq!(bpe().decode(&[0]).unwrap(), "");
    }

    #[test]
    fn training_twice_gives_the_same_bytes() {
        assert_eq!(bpe().to_json(), bpe().to_json());
        assert_eq!(bpe().vocab_size(), 300);
        assert_eq!(bpe().fingerprint().len(), 64);
    }

    #[test]
    fn a_saved_tokenizer_reads_back() {
        for tokenizer in [bpe(), Tokenizer::char_level(&" aeflnort".chars().collect(), true).unwrap()] {
            let (_folder, path) = saved(&tokenizer.to_json());
            let read = Tokenizer::from_file(&path).unwrap();
            assert_eq!(read.encode("on a fan at noon").unwrap(), tokenizer.encode("on a fan at noon").unwrap());
            assert_eq!(read.fingerprint(), tokenizer.fingerprint());
        }
    }

    #[test]
    fn difficult_texts_survive_bpe() {
        let tokenizer = bpe();
        for text in [
            "你好，世界",
            "مرحبا بالعالم",
            "👩‍👩‍👧‍👦 e\u{301}",
            "1234567",
            "if (x) {\n\t\treturn;\n}",
            "a    b\r\n\r\n",
            "\u{0}\u{7f}\u{feff}",
            "",
        ] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }

    #[test]
    fn truncation_and_padding_in_a_file_are_ignored() {
        let mut json: Value = serde_json::from_str(&bpe().to_json()).unwrap();
        json["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5});
        let (_folder, path) = saved(&json.to_string());
        assert!(Tokenizer::from_file(&path).unwrap().encode("Once upon a time").unwrap().len() > 2);
    }

    #[test]
    fn files_that_are_no_tokenizers_are_named() {
        for (text, part) in [
            ("", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "not a tokenizer"),
            ("{\"model\": 3}", "not a tokenizer"),
        ] {
            let (_folder, path) = saved(text);
            let error = Tokenizer::from_file(&path).unwrap_err().to_string();
            assert!(error.contains("tokenizer.json") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn too_small_a_vocabulary_is_refused() {
        let error = Tokenizer::train_bpe(256, std::iter::empty()).unwrap_err();
        assert!(error.hint().unwrap().contains("257"));
    }

    proptest! {
        #[test]
        fn any_text_survives_bpe(text in "\\PC{0,40}") {
            let tokenizer = bpe();
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
        }
    }
}

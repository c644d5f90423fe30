//! Text to token ids and back, as a `tokenizer.json` that the whole ecosystem reads.
//!
//! Two kinds are made here. A *character* tokenizer has one token per distinct character, sorted by code point: nanoGPT's
//! numbers. A *byte-level BPE* (Sennrich et al. 2016, arXiv:1508.07909; GPT-2's byte alphabet) starts from the 256
//! bytes and merges the most frequent neighbours, so that every text can be written. Its words are cut by exactly Qwen2's
//! pattern, because llama.cpp and Ollama must know the pattern to cut alike. Any other `tokenizer.json` can be read.
//!
//! Text to ids is the work of Hugging Face's `tokenizers` library. Ids to text needs no library: every token spells some
//! bytes, and a text is these bytes one after the other.

mod check;
mod make;
mod spelling;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::{ModelWrapper, PostProcessorWrapper, Tokenizer as Inner};

use self::check::LARGEST_FILE_BYTES;
use self::make::character_tokenizer;
pub use self::make::{LLAMA3_PATTERN, QWEN2_PATTERN};
pub(crate) use self::spelling::byte_symbols;
use self::spelling::{Spelling, spell};
use crate::error::{Error, Result};

/// Stands between texts: the model reads it before the first token of a text and writes it after the last.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// What other tokenizers call it; the first one present counts.
const END_OF_TEXT_NAMES: [&str; 5] = [END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>"];

/// No id is this large: a file that claims more would have us allocate for ids that no token has.
pub const LARGEST_VOCABULARY: u32 = 1 << 22;

/// A tokenizer. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    /// The library's tokenizer, without the parts that cut, pad or add to a text.
    inner: Arc<Inner>,
    /// The file as it was read, those parts included.
    json: Arc<str>,
    /// By id.
    spellings: Arc<[Spelling]>,
    /// Whether a text loses the space that its first token begins with, as in Llama's `▁Once`.
    drops_first_space: bool,
    /// The sorted vocabulary, if this is a character tokenizer of ours: a character's place is its id.
    characters: Option<Arc<[char]>>,
    end_of_text: Option<u32>,
    /// What stands before a text that is a prompt: Llama's `<s>`, and the end of another text for tokenizers of ours.
    prompt_prefix: Arc<[u32]>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. What the file says about truncation, padding, BPE dropout and special tokens to be added
    /// is kept for those who read the file after us, but not obeyed: here a text is encoded whole, as it stands, and
    /// always alike. Only [`Tokenizer::encode_prompt`] adds what belongs before a text.
    pub fn from_file(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "read", what: "the tokenizer", source };
        let invalid = |problem| Error::InvalidFile {
            path: path.to_owned(),
            problem,
            hint: "copy the model's tokenizer.json again".to_owned(),
        };
        let mut bytes = Vec::new();
        fs::File::open(path).map_err(io)?.take(LARGEST_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        let json = String::from_utf8(bytes).map_err(|_| invalid("is not UTF-8".to_owned()))?;
        Self::parse(&json).map_err(invalid)
    }

    /// The same for the text of a `tokenizer.json`.
    pub fn from_json(json: &str) -> Result<Self> {
        Self::parse(json).map_err(|problem| Error::Tokenizer {
            problem: format!("tokenizer.json {problem}"),
            hint: "take the model's tokenizer.json as it is".to_owned(),
        })
    }

    /// Errors continue the file's name.
    fn parse(json: &str) -> Result<Self, String> {
        check::size(json)?;
        let file: Value = serde_json::from_str(json).map_err(|error| format!("is not JSON: {error}"))?;
        check::parts(&file)?;
        let [added_tokens, post_processor] = ["added_tokens", "post_processor"].map(|part| file[part].clone());
        let words = (file["model"]["type"] == "WordLevel").then(|| file.clone());
        let not_a_tokenizer = |problem| format!("is not a tokenizer: {problem}");
        // From what was checked: in the text a part may stand twice.
        let mut inner: Inner = contain(|| Ok(serde_json::from_value(file)?)).map_err(not_a_tokenizer)?;
        check_added_tokens(&added_tokens, &inner)?;
        drop_what_changes_texts(&mut inner).map_err(not_a_tokenizer)?;
        let (spellings, drops_first_space) = contain(|| Ok(spell(&inner)?)).map_err(not_a_tokenizer)?;
        let prompt_prefix = template_prefix(&post_processor);
        if let Some(id) = prompt_prefix.iter().find(|id| !matches!(spellings.get(**id as usize), Some(Some(_)))) {
            return Err(format!("has a `post_processor` that begins a text with the id {id}, which no token has"));
        }
        Ok(Self {
            characters: words.and_then(|file| characters_of(&inner, &file)).map(Arc::from),
            end_of_text: END_OF_TEXT_NAMES.iter().find_map(|name| special_token(&inner, name)),
            prompt_prefix: prompt_prefix.into(),
            inner: Arc::new(inner),
            json: json.into(),
            spellings: spellings.into(),
            drops_first_space,
        })
    }

    /// The text of `tokenizer.json`, byte for byte as it was read or made.
    pub fn to_json(&self) -> String {
        self.json.to_string()
    }

    /// SHA-256 of [`Tokenizer::to_json`], in hexadecimal.
    pub fn fingerprint(&self) -> String {
        format!("{:x}", Sha256::digest(self.json.as_bytes()))
    }

    /// The text of `tokenizer_config.json`, for a model of this context.
    pub fn config_json(&self, model_max_length: usize) -> String {
        let name = self.end_of_text.and_then(|id| self.inner.id_to_token(id));
        // GPT-2's token is the beginning, too. Others have one of their own, which tokenizer.json does not tell.
        let begins = name.clone().filter(|name| name == END_OF_TEXT);
        let fields: [(&str, Value); 5] = [
            ("tokenizer_class", "PreTrainedTokenizerFast".into()),
            ("bos_token", begins.into()),
            ("eos_token", name.into()),
            ("model_max_length", model_max_length.into()),
            ("clean_up_tokenization_spaces", false.into()),
        ];
        let lines =
            fields.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| format!("  \"{key}\": {value}"));
        format!("{{\n{}\n}}\n", lines.collect::<Vec<_>>().join(",\n"))
    }

    /// How many tokens there are: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.spellings.len()
    }

    /// The token between texts, if the tokenizer has one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// Whether each character is a token, wherever a text is cut: a character tokenizer made here.
    pub fn is_character_level(&self) -> bool {
        self.characters.is_some()
    }

    /// Token ids of `text`, with nothing added. As everywhere with this file format, a special token that the text spells
    /// out becomes that token. A character that a character vocabulary lacks is an error that names it.
    ///
    /// The library needs some 50 bytes for a byte of text: give long texts in pieces.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if let Some(characters) = &self.characters {
            return self.encode_characters(characters, text);
        }
        let encoding = contain(|| self.inner.encode_fast(text, false)).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text` as a prompt: as [`Tokenizer::encode`], behind what the file's template puts first (Llama's `<s>`;
    /// [`END_OF_TEXT`] in tokenizers made here). That is how the model was trained to see a text begin.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        Ok([&self.prompt_prefix[..], &self.encode(text)?].concat())
    }

    /// What [`Tokenizer::encode_prompt`] puts before a text.
    pub fn prompt_prefix(&self) -> &[u32] {
        &self.prompt_prefix
    }

    /// What the library would give, a hundred times as fast: it takes every character for a word.
    fn encode_characters(&self, characters: &[char], text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len());
        let parts: Vec<_> = if self.end_of_text.is_some() { text.split(END_OF_TEXT).collect() } else { vec![text] };
        for (index, part) in parts.into_iter().enumerate() {
            if index > 0 {
                ids.extend(self.end_of_text);
            }
            for character in part.chars() {
                let id = characters.binary_search(&character).map_err(|_| unknown(character))?;
                ids.push(id as u32);
            }
        }
        Ok(ids)
    }

    /// The text of `ids`. Special tokens are left out; bytes that are no UTF-8 become U+FFFD. An id that no token has is
    /// an error.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.spelling(id)?);
        }
        let bytes = if self.drops_first_space { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The bytes that a token adds to a text: none if it is special, and not always whole characters.
    pub fn spelling(&self, id: u32) -> Result<&[u8]> {
        match self.spellings.get(id as usize) {
            Some(Some(bytes)) => Ok(bytes),
            Some(None) => Err(Error::Tokenizer {
                problem: format!("no token has the id {id}"),
                hint: "the vocabulary has gaps; use ids of its tokens".to_owned(),
            }),
            None => Err(Error::Tokenizer {
                problem: format!("token id {id} is past the vocabulary of {}", self.vocab_size()),
                hint: "ids count from 0".to_owned(),
            }),
        }
    }

    /// What the file calls a token, special ones too: `<|endoftext|>`. In a byte-level file it is not what the token spells.
    pub fn name(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether [`Tokenizer::decode`] takes away the space that a text begins with, as Llama's tokenizers do.
    pub fn drops_first_space(&self) -> bool {
        self.drops_first_space
    }
}

/// The characters, if the file is what [`character_tokenizer`] makes, however it is laid out.
fn characters_of(inner: &Inner, file: &Value) -> Option<Vec<char>> {
    let ModelWrapper::WordLevel(_) = inner.get_model() else { return None };
    let only = |token: &String| {
        let mut characters = token.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    let characters: BTreeSet<char> = inner.get_vocab(false).keys().map(only).collect::<Option<_>>()?;
    let ours = character_tokenizer(&characters, special_token(inner, END_OF_TEXT).is_some()).ok()?;
    (serde_json::to_value(&ours).ok()? == *file).then(|| characters.into_iter().collect())
}

/// The library counts added tokens on from the vocabulary, whatever ids the file gives them.
fn check_added_tokens(tokens: &Value, inner: &Inner) -> Result<(), String> {
    for token in tokens.as_array().into_iter().flatten() {
        let (content, id) = (token["content"].as_str().unwrap_or_default(), token["id"].as_u64());
        let read = inner.token_to_id(content).map(u64::from);
        if read != id {
            let [id, read] = [id, read].map(|id| id.map_or("none".to_owned(), |id| id.to_string()));
            return Err(format!("gives the added token `{content}` the id {id}, where {read} is its turn"));
        }
    }
    Ok(())
}

/// What a template puts before a text: `<s>` in `[<s>, text, </s>]`.
fn template_prefix(processor: &Value) -> Vec<u32> {
    match processor["type"].as_str() {
        Some("Sequence") => {
            processor["processors"].as_array().into_iter().flatten().flat_map(template_prefix).collect()
        }
        Some("TemplateProcessing") => {
            let pieces = processor["single"].as_array().into_iter().flatten();
            let names = pieces.map_while(|piece| piece["SpecialToken"]["id"].as_str());
            let ids = names.filter_map(|name| processor["special_tokens"][name]["ids"].as_array()).flatten();
            ids.filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
        }
        _ => Vec::new(),
    }
}

fn drop_what_changes_texts(inner: &mut Inner) -> Result<(), String> {
    inner.with_truncation(None).map_err(|error| error.to_string())?;
    inner.with_padding(None);
    inner.with_post_processor(None::<PostProcessorWrapper>);
    if let ModelWrapper::BPE(bpe) = inner.get_model()
        && bpe.dropout.is_some()
    {
        let mut certain = bpe.clone();
        certain.dropout = None;
        inner.with_model(certain);
    }
    Ok(())
}

fn special_token(inner: &Inner, name: &str) -> Option<u32> {
    inner.token_to_id(name).filter(|_| inner.get_added_vocabulary().is_special_token(name))
}

/// Turns the library's panics into errors: on a malformed file they are the file's fault, not ours. (What the panic says
/// still goes to stderr.)
fn contain<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its parts contradict each other".to_owned()),
    }
}

fn unknown(character: char) -> Error {
    Error::Tokenizer {
        problem: format!("the character {character:?} is not in the vocabulary"),
        hint: "use only characters of the training text, or train with `tokenizer.kind = \"bpe\"`".to_owned(),
    }
}

fn failed(error: impl fmt::Display) -> Error {
    Error::Tokenizer { problem: error.to_string(), hint: String::new() }
}

//! Text to token ids and back, as a `tokenizer.json` that the whole ecosystem reads.
//!
//! Two kinds are made here. A *character* tokenizer has one token per distinct character, sorted by code point: nanoGPT's
//! numbers. A *byte-level BPE* (Sennrich et al. 2016, arXiv:1508.07909; GPT-2's byte alphabet) starts from the 256
//! bytes and merges the most frequent neighbours, so that every text can be written. Its words are cut by exactly Qwen2's
//! pattern, because llama.cpp and Ollama must know the pattern to cut alike. Any other `tokenizer.json` can be read.
//!
//! Text to ids is the work of Hugging Face's `tokenizers` library, except where a GGUF file of another program asks for
//! llama.cpp's rules ([`llama_cpp`]). Ids to text needs no library: every token has some bytes, and a text is these bytes
//! one after the other.

mod added_tokens;
mod check;
mod directory;
pub mod llama_cpp;
mod make;
mod prompt_prefix;
#[cfg(test)]
mod tests;
mod token_bytes;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::{AddedToken, ModelWrapper, PostProcessorWrapper, Tokenizer as Inner};

use self::check::LARGEST_FILE_BYTES;
use self::llama_cpp::LlamaCpp;
use self::make::character_tokenizer;
pub use self::make::{LLAMA3_PATTERN, QWEN2_PATTERN};
use self::prompt_prefix::prompt_prefix;
pub(crate) use self::token_bytes::byte_symbols;
use self::token_bytes::{TokenBytes, token_bytes};
use crate::error::{Error, Result};

/// Stands between texts: the model reads it before the first token of a text and writes it after the last.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The tokens around a turn of a conversation, as in [`CHATML`](crate::chat::CHATML). A BPE made here has them from the start, so that a
/// model can learn to talk without new rows in its embedding.
pub const TURN_TOKENS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

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
    /// The bytes of each token, by id.
    token_bytes: Arc<[TokenBytes]>,
    /// Whether a text loses the space that its first token begins with, as in Llama's `▁Once`.
    drops_first_space: bool,
    encoder: Encoder,
    /// How many rows the model's embedding has, if that is fewer than there are tokens.
    rows: Option<usize>,
    /// What the files say and is not followed.
    warnings: Arc<[String]>,
    end_of_text: Option<u32>,
    /// What stands before a text that is a prompt: Llama's `<s>`, and the end of another text for tokenizers of ours.
    prompt_prefix: Arc<[u32]>,
}

/// A token that is no word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlToken {
    /// Its id.
    pub id: u32,
    /// How a text spells it: `<|im_end|>`.
    pub text: String,
    /// Whether spaces before it are part of it.
    pub takes_spaces_before: bool,
    /// And behind it.
    pub takes_spaces_behind: bool,
}

/// The rules by which a text becomes ids.
#[derive(Clone)]
enum Encoder {
    /// The rules of the `tokenizers` library.
    Library,
    /// A character tokenizer of ours, with its sorted vocabulary: a character's place is its id.
    Characters(Arc<[char]>),
    /// As llama.cpp does it.
    LlamaCpp(Arc<LlamaCpp>),
    /// Not at all, for this reason: ids can be read, texts cannot.
    None(Arc<str>),
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
        let mut inner: Inner = catch_panic(|| Ok(serde_json::from_value(file)?)).map_err(not_a_tokenizer)?;
        check_added_tokens(&added_tokens, &inner)?;
        drop_what_changes_texts(&mut inner).map_err(not_a_tokenizer)?;
        let (token_bytes, drops_first_space) = catch_panic(|| Ok(token_bytes(&inner)?)).map_err(not_a_tokenizer)?;
        let prompt_prefix = prompt_prefix(&post_processor);
        if let Some(id) = prompt_prefix.iter().find(|id| !matches!(token_bytes.get(**id as usize), Some(Some(_)))) {
            return Err(format!("has a `post_processor` that begins a text with the id {id}, which no token has"));
        }
        Ok(Self {
            encoder: match words.and_then(|file| characters_of(&inner, &file)) {
                Some(characters) => Encoder::Characters(characters.into()),
                None => Encoder::Library,
            },
            rows: None,
            warnings: Arc::default(),
            end_of_text: END_OF_TEXT_NAMES.iter().find_map(|name| special_token(&inner, name)),
            prompt_prefix: prompt_prefix.into(),
            inner: Arc::new(inner),
            json: json.into(),
            token_bytes: token_bytes.into(),
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

    /// The same tokens, with llama.cpp's way from text to ids.
    pub(crate) fn with_rules(self, rules: LlamaCpp) -> Self {
        Self { encoder: Encoder::LlamaCpp(rules.into()), ..self }
    }

    /// The same tokens without a way from text to ids; `problem` says why.
    pub(crate) fn without_encoder(self, problem: &str) -> Self {
        Self { encoder: Encoder::None(problem.into()), ..self }
    }

    /// The same tokenizer with warnings for the user.
    pub(crate) fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings: warnings.into(), ..self }
    }

    /// For a model whose embedding has `rows` rows: a text that needs a token without a row is an error, any other is not.
    #[must_use]
    pub fn for_rows(self, rows: usize) -> Self {
        if rows >= self.token_bytes.len() {
            return self;
        }
        let end_of_text = self.end_of_text.filter(|id| (*id as usize) < rows);
        Self { rows: Some(rows), end_of_text, ..self }
    }

    /// Why no text can be encoded, if that is so.
    pub fn encoding_problem(&self) -> Option<&str> {
        if let Encoder::None(problem) = &self.encoder { Some(problem) } else { None }
    }

    /// Whether texts are encoded by llama.cpp's rules, which [`Tokenizer::to_json`] can say only nearly: of two merges one
    /// comes first there, even if their tokens have the same score.
    pub fn follows_llama_cpp(&self) -> bool {
        self.rules().is_some()
    }

    /// llama.cpp's rules, if texts are encoded by them.
    pub(crate) fn rules(&self) -> Option<&LlamaCpp> {
        if let Encoder::LlamaCpp(rules) = &self.encoder { Some(rules) } else { None }
    }

    /// A warning if [`Tokenizer::to_json`] is not all that is to be said of texts: where texts have been seen to differ, or
    /// several tokens have the same score.
    pub fn json_problem(&self, has_equal_texts: bool) -> Option<String> {
        let has_equal_scores = self.rules()?.has_equal_scores();
        (has_equal_scores || !has_equal_texts).then(|| {
            let cause =
                if has_equal_scores { "gives several tokens the same score" } else { "orders merges by tokens" };
            format!(
                "`tokenizer.ggml.scores` {cause}, which tokenizer.json cannot say: some texts get other ids from it"
            )
        })
    }

    /// The names of the tokens that are found in a text before anything else.
    pub fn added_tokens(&self) -> Vec<String> {
        let mut tokens: Vec<_> = self.inner.get_added_tokens_decoder().into_iter().collect();
        tokens.sort_by_key(|(id, _)| *id);
        tokens.into_iter().map(|(_, token)| token.content).collect()
    }

    /// The same tokenizer for words: a control token that a text spells out stays the text that it is.
    #[must_use]
    pub fn for_words(&self) -> Self {
        let mut inner = Inner::clone(&self.inner);
        inner.set_encode_special_tokens(true);
        let encoder = match &self.encoder {
            Encoder::LlamaCpp(rules) => Encoder::LlamaCpp(Arc::new(rules.for_words())),
            other => other.clone(),
        };
        // A character tokenizer looks for this one only.
        Self { inner: Arc::new(inner), encoder, end_of_text: None, ..self.clone() }
    }

    /// The tokens that are no words: ends of texts and turns.
    pub fn control_tokens(&self) -> Vec<ControlToken> {
        let mut tokens: Vec<_> = self.inner.get_added_tokens_decoder().into_iter().collect();
        tokens.sort_by_key(|(id, _)| *id);
        let control = |(id, token): (u32, AddedToken)| ControlToken {
            id,
            text: token.content,
            takes_spaces_before: token.lstrip,
            takes_spaces_behind: token.rstrip,
        };
        tokens.into_iter().filter(|(_, token)| token.special && !token.content.is_empty()).map(control).collect()
    }

    /// What the files say of the tokenizer and is not followed, for the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many ids [`Tokenizer::encode`] gives at most: one more than the largest.
    pub fn vocab_size(&self) -> usize {
        self.rows.unwrap_or(self.token_bytes.len())
    }

    /// The token between texts, if the tokenizer has one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// Whether each character is a token, wherever a text is cut: a character tokenizer made here.
    pub fn is_character_level(&self) -> bool {
        matches!(self.encoder, Encoder::Characters(_))
    }

    /// Token ids of `text`, with nothing added. As everywhere with this file format, a special token that the text spells
    /// out becomes that token. A character that a character vocabulary lacks is an error that names it.
    ///
    /// The library needs some 50 bytes for a byte of text: give long texts in pieces.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = match &self.encoder {
            Encoder::Library => {
                let encoding = catch_panic(|| self.inner.encode_fast(text, false)).map_err(failed)?;
                encoding.get_ids().to_vec()
            }
            Encoder::Characters(characters) => self.encode_characters(characters, text)?,
            Encoder::LlamaCpp(rules) => rules.tokenize(text).map_err(failed)?,
            Encoder::None(problem) => {
                let hint = "give token ids, or use a model whose tokenizer is known".to_owned();
                return Err(Error::Tokenizer { problem: problem.to_string(), hint });
            }
        };
        self.check_rows(&ids)?;
        Ok(ids)
    }

    fn check_rows(&self, ids: &[u32]) -> Result<()> {
        let Some(rows) = self.rows else { return Ok(()) };
        let Some(&id) = ids.iter().find(|id| **id as usize >= rows) else { return Ok(()) };
        Err(Error::Tokenizer {
            problem: format!(
                "the text needs the token `{}`, whose id {id} is past the model's vocabulary of {rows}",
                self.name(id).unwrap_or_default()
            ),
            hint: "leave it out of the text: the model was trained without it".to_owned(),
        })
    }

    /// Token ids of `text` as a prompt: as [`Tokenizer::encode`], behind what the file's template puts first (Llama's `<s>`;
    /// [`END_OF_TEXT`] in tokenizers made here). That is how the model was trained to see a text begin.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.check_rows(&self.prompt_prefix)?;
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

    /// The text of `ids`. Special tokens and ids without a token are left out; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        let bytes = if self.drops_first_space { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// The text of `ids` with special tokens under their names, for people to read.
    pub fn spelled(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            match self.token_bytes(id) {
                [] => bytes.extend(self.name(id).unwrap_or_default().into_bytes()),
                of_token => bytes.extend_from_slice(of_token),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes that a token adds to a text, not always whole characters: none if it is special, or if no token has the id,
    /// as with the rows that make a vocabulary's size a round number.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.token_bytes.get(id as usize).and_then(Option::as_deref).unwrap_or_default()
    }

    /// Whether there is a token with this id.
    pub fn has_token(&self, id: u32) -> bool {
        self.token_bytes.get(id as usize).is_some_and(Option::is_some)
    }

    /// What the file calls a token, special ones too: `<|endoftext|>`. In a byte-level file it is not the token's text.
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
fn catch_panic<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
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

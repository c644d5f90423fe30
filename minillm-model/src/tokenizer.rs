//! Text to token ids and back, as a `tokenizer.json` that the whole ecosystem reads.
//!
//! Two kinds are made here. A *character* tokenizer has one token per distinct character, sorted by code point: nanoGPT's
//! numbers. A *byte-level BPE* (Sennrich et al. 2016, arXiv:1508.07909; GPT-2's byte alphabet) starts from the 256
//! bytes and merges the most frequent neighbours, so that every text can be written. Its words are cut by exactly Qwen2's
//! pattern, because llama.cpp and Ollama must know the pattern to cut alike. Any other `tokenizer.json` can be read.
//!
//! Text to ids is the work of Hugging Face's `tokenizers` library. Ids to text needs no library: every token spells some
//! bytes, and a text is these bytes one after the other.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, Decoder, DecoderWrapper, ModelWrapper, OffsetReferential, OffsetType, PostProcessorWrapper,
    PreTokenizedString, PreTokenizer, SplitDelimiterBehavior, Tokenizer as Inner, Trainer,
};

use crate::error::{Error, Result};

/// Stands between texts: the model reads it before the first token of a text and writes it after the last.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// What other tokenizers call it; the first one present counts.
const END_OF_TEXT_NAMES: [&str; 5] = [END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>"];

/// Qwen2's pattern: contractions, words with the space before them, single digits, punctuation, runs of white space.
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The largest `tokenizer.json` that is read: vocabularies of a quarter million tokens need about 35 MB.
const LARGEST_FILE_BYTES: u64 = 256 << 20;

/// Longer words (a line of base64, a text without spaces) are learned from in parts: the library's time grows with the
/// square of a word's length.
const LONGEST_WORD_BYTES: usize = 512;

/// No id is this large: a file that claims more would have us allocate for ids that no token has.
const LARGEST_VOCABULARY: u32 = 1 << 22;

/// The bytes of a token; `None` for an id that no token has.
type Spelling = Option<Box<[u8]>>;

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
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// One token per character. `end_of_text` adds [`END_OF_TEXT`] as the last id, for texts of several documents.
    pub fn char_level(characters: &BTreeSet<char>, end_of_text: bool) -> Result<Self> {
        if characters.is_empty() {
            return Err(Error::Tokenizer {
                problem: "no characters make no vocabulary".to_owned(),
                hint: "give it a text that is not empty".to_owned(),
            });
        }
        Self::made(&character_tokenizer(characters, end_of_text)?)
    }

    /// A byte-level BPE of `vocab_size` tokens: [`END_OF_TEXT`] as id 0, the 256 bytes, and merges learned from `texts`.
    ///
    /// It has fewer tokens if the texts run out of neighbours to merge. The same texts give the same tokenizer, whatever
    /// their order and the number of threads.
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
        if vocab_size > LARGEST_VOCABULARY as usize {
            return Err(Error::Tokenizer {
                problem: format!("a vocabulary of {vocab_size} is too large"),
                hint: "set `vocab_size` to some thousands: 32000 is common".to_owned(),
            });
        }
        let byte_level = ByteLevel::new(false, false, false); // no space in front, no offsets, no pattern of its own
        let cutter = Sequence::new(vec![split(QWEN2_PATTERN)?, PreTokenizerWrapper::ByteLevel(byte_level)]);
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab_size)
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        trainer.feed(texts, |text| words(&cutter, text)).map_err(failed)?;
        let mut model = BPE::default();
        let special = trainer.train(&mut model).map_err(failed)?;
        let mut inner = Inner::new(ModelWrapper::BPE(model));
        inner.with_pre_tokenizer(Some(cutter));
        inner.with_decoder(Some(byte_level));
        inner.add_special_tokens(special).map_err(failed)?;
        Self::made(&inner)
    }

    /// What was made here goes through the same door as what is read.
    fn made(inner: &Inner) -> Result<Self> {
        Self::from_json(&(inner.to_string(true).map_err(failed)? + "\n"))
    }

    /// Reads a `tokenizer.json`. What the file says about truncation, padding, BPE dropout and special tokens to be added
    /// is kept for those who read the file after us, but not obeyed: here a text is encoded whole, as it stands, and
    /// always alike.
    pub fn from_file(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "read", what: "the tokenizer", source };
        let invalid = |problem| Error::InvalidFile {
            path: path.to_owned(),
            problem,
            hint: "copy the model's tokenizer.json again".to_owned(),
        };
        let mut bytes = Vec::new();
        fs::File::open(path).map_err(io)?.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > LARGEST_FILE_BYTES {
            return Err(invalid(format!("is larger than {LARGEST_FILE_BYTES} bytes")));
        }
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
        let file: Value = serde_json::from_str(json).map_err(|error| format!("is not JSON: {error}"))?;
        check_merges(&file["model"])?;
        let not_a_tokenizer = |problem| format!("is not a tokenizer: {problem}");
        let mut inner: Inner = contain(|| json.parse()).map_err(not_a_tokenizer)?;
        check_added_tokens(&file["added_tokens"], &inner)?;
        drop_what_changes_texts(&mut inner).map_err(not_a_tokenizer)?;
        let (spellings, drops_first_space) = contain(|| Ok(spell(&inner)?)).map_err(not_a_tokenizer)?;
        Ok(Self {
            characters: characters_of(&inner, &file).map(Arc::from),
            end_of_text: END_OF_TEXT_NAMES.iter().find_map(|name| special_token(&inner, name)),
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

    /// Whether [`Tokenizer::decode`] takes away the space that a text begins with, as Llama's tokenizers do.
    pub fn drops_first_space(&self) -> bool {
        self.drops_first_space
    }
}

/// The library's form of a character tokenizer.
fn character_tokenizer(characters: &BTreeSet<char>, end_of_text: bool) -> Result<Inner> {
    let ids = (0_u32..).zip(characters).map(|(id, character)| (character.to_string(), id));
    // The library wants a name for the unknown token; it is not in the vocabulary, so that unknown is an error.
    let model = WordLevel::builder().vocab(ids.collect()).unk_token("<unk>".to_owned()).build().map_err(failed)?;
    let mut inner = Inner::new(ModelWrapper::WordLevel(model));
    inner.with_pre_tokenizer(Some(split(r"[\s\S]")?)); // any character, line breaks included, in every regex dialect
    inner.with_decoder(Some(Fuse::new()));
    if end_of_text {
        inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true)]).map_err(failed)?;
    }
    Ok(inner)
}

/// The words of a text to learn from.
fn words(cutter: &Sequence, text: &str) -> tokenizers::Result<Vec<String>> {
    let mut words = Vec::new();
    // Where a text spells out the special token there is nothing to learn: it will be that token.
    for part in text.split(END_OF_TEXT) {
        let mut cut = PreTokenizedString::from(part);
        cutter.pre_tokenize(&mut cut)?;
        for (word, ..) in cut.get_splits(OffsetReferential::Original, OffsetType::None) {
            if word.len() <= LONGEST_WORD_BYTES {
                words.push(word.to_owned());
            } else {
                let symbols: Vec<char> = word.chars().collect();
                words.extend(symbols.chunks(LONGEST_WORD_BYTES).map(|part| part.iter().collect::<String>()));
            }
        }
    }
    Ok(words)
}

/// Every match of `pattern` is a word by itself.
fn split(pattern: &str) -> Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    Ok(PreTokenizerWrapper::Split(split))
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

/// The library takes it for granted that a merge makes a token: it writes past a buffer where one is too long, and cuts
/// characters apart where one lacks the prefix.
fn check_merges(model: &Value) -> Result<(), String> {
    let (Some(vocabulary), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return Ok(()); // not a BPE
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for (rank, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(line) if line.starts_with("#version") => continue,
            Value::String(line) => line.split_once(' '), // the older form
            _ => merge[0].as_str().zip(merge[1].as_str()),
        };
        let makes_a_token = pair.is_some_and(|(left, right)| {
            let whole = right.strip_prefix(prefix).map(|rest| format!("{left}{rest}"));
            whole.is_some_and(|whole| [left, right, &whole].into_iter().all(|token| vocabulary.contains_key(token)))
        });
        if !makes_a_token {
            return Err(format!("has the merge {rank}, {merge}, that makes no token of `model.vocab`"));
        }
    }
    Ok(())
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

/// The bytes of each token, and whether a text loses its first space.
fn spell(inner: &Inner) -> Result<(Vec<Spelling>, bool), String> {
    let mut tokens: Vec<_> = inner.get_vocab(true).into_iter().map(|(content, id)| (id, content)).collect();
    tokens.sort_unstable();
    let Some(&(largest, _)) = tokens.last() else { return Err("it has no tokens".to_owned()) };
    if largest >= LARGEST_VOCABULARY {
        return Err(format!("a token has the id {largest}, and no vocabulary is that large"));
    }
    let speller = Speller::new(inner);
    let mut spellings = vec![None; largest as usize + 1];
    let mut drops_first_space = None;
    for (id, content) in tokens {
        let bytes = speller.spell(id, &content);
        if drops_first_space.is_none() && bytes.starts_with(b" ") {
            drops_first_space = Some(speller.drops_space(&content));
        }
        if spellings[id as usize].replace(bytes.into_boxed_slice()).is_some() {
            return Err(format!("two tokens have the id {id}"));
        }
    }
    Ok((spellings, drops_first_space.unwrap_or(false)))
}

/// Finds out what tokens spell by asking the file's decoder.
struct Speller<'a> {
    inner: &'a Inner,
    is_byte_level: bool,
    falls_back_to_bytes: bool,
    /// For GPT-2's symbols: the byte of each, by code point.
    bytes: Vec<Option<u8>>,
}

impl<'a> Speller<'a> {
    fn new(inner: &'a Inner) -> Self {
        let decoders = match inner.get_decoder() {
            Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
            Some(decoder) => std::slice::from_ref(decoder),
            None => &[],
        };
        Self {
            inner,
            is_byte_level: decoders.iter().any(|decoder| matches!(decoder, DecoderWrapper::ByteLevel(_))),
            falls_back_to_bytes: decoders.iter().any(|decoder| matches!(decoder, DecoderWrapper::ByteFallback(_))),
            bytes: byte_symbols(),
        }
    }

    fn spell(&self, id: u32, content: &str) -> Vec<u8> {
        let added = self.inner.get_added_vocabulary();
        if added.is_special_token(content) {
            Vec::new()
        } else if self.is_byte_level {
            let byte = |symbol: char| self.bytes.get(symbol as usize).copied().flatten();
            let bytes: Option<_> = content.chars().map(byte).collect();
            // An added token stands for itself.
            bytes.filter(|_| !added.get_added_tokens_decoder().contains_key(&id)).unwrap_or_else(|| content.into())
        } else if let Some(byte) = byte_token(content).filter(|_| self.falls_back_to_bytes) {
            vec![byte]
        } else {
            self.between(content).unwrap_or_else(|| content.to_owned()).into()
        }
    }

    /// What `token` adds between two others, for the kinds of decoders (Llama's, BERT's) that say it in whole characters.
    fn between(&self, token: &str) -> Option<String> {
        const OTHER: &str = "a";
        let (one, two) = (self.decode(&[OTHER])?, self.decode(&[OTHER, OTHER])?);
        let all = self.decode(&[OTHER, token, OTHER])?;
        all.strip_prefix(&one)?.strip_suffix(two.strip_prefix(&one)?).map(str::to_owned)
    }

    /// Whether `token`, which spells a space first, does not at the beginning of a text.
    fn drops_space(&self, token: &str) -> bool {
        !self.is_byte_level && self.decode(&[token]).is_some_and(|text| !text.starts_with(' '))
    }

    fn decode(&self, tokens: &[&str]) -> Option<String> {
        match self.inner.get_decoder() {
            Some(decoder) => decoder.decode(tokens.iter().map(|&token| token.to_owned()).collect()).ok(),
            None => Some(tokens.join(" ")), // the library's rule
        }
    }
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on, in their order.
fn byte_symbols() -> Vec<Option<u8>> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut bytes: Vec<_> = (0..=u8::MAX).map(|byte| Some(byte).filter(is_printable)).collect();
    bytes.extend((0..=u8::MAX).filter(|byte| !is_printable(byte)).map(Some));
    bytes
}

/// The byte of a token like `<0x0A>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    static BPE_300: LazyLock<Tokenizer> = LazyLock::new(bpe);

    fn bpe() -> Tokenizer {
        let texts = ["Once upon a time there was a little fox.", "The fox said: \"I'm 12 years old!\"\n\nThe end."];
        Tokenizer::train_bpe(300, texts.iter().cycle().take(40).map(|text| (*text).to_owned())).unwrap()
    }

    fn characters(text: &str, end_of_text: bool) -> Tokenizer {
        Tokenizer::char_level(&text.chars().collect(), end_of_text).unwrap()
    }

    /// As Llama 2: `▁` for the space, bytes for what has no token, the first space dropped.
    fn llama() -> Value {
        json!({
            "version": "1.0",
            "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "byte_fallback": true, "unk_token": null, "merges": ["▁ a"],
                "vocab": {"<s>": 0, "<0xC3>": 1, "<0xA9>": 2, "▁": 3, "a": 4, "▁a": 5, "b": 6}},
        })
    }

    #[test]
    fn characters_are_numbered_by_code_point() {
        let tokenizer = characters("hello\n wörld", false);
        assert_eq!(tokenizer.vocab_size(), 10); // \n, space, d, e, h, l, o, r, w, ö
        let ids = tokenizer.encode("\n dö").unwrap();
        assert_eq!(ids, [0, 1, 2, 9]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "\n dö");
        assert_eq!(tokenizer.end_of_text(), None);
    }

    #[test]
    fn the_fast_way_of_characters_is_the_librarys() {
        let tokenizer = characters("a\r\n\t  \u{301}é👋<|>", true);
        assert!(tokenizer.characters.is_some());
        for text in ["", "a \r\n é👋", "a<|endoftext|>\u{301}\n<|endoftext|>", "<||>"] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(ids, tokenizer.inner.encode_fast(text, false).unwrap().get_ids());
            assert_eq!(tokenizer.decode(&ids).unwrap(), tokenizer.inner.decode(&ids, true).unwrap());
        }
        assert!(tokenizer.inner.encode_fast("b", false).is_err());
    }

    #[test]
    fn a_character_that_is_not_there_is_named() {
        let error = characters("ab", false).encode("abc").unwrap_err();
        assert!(error.to_string().contains("'c'"), "{error}");
        assert!(error.hint().unwrap().contains("bpe"));
    }

    #[test]
    fn end_of_text_comes_last_among_characters_and_first_in_bpe() {
        let tokenizer = characters("ab", true);
        assert_eq!((tokenizer.end_of_text(), tokenizer.vocab_size()), (Some(2), 3));
        assert_eq!(tokenizer.encode("a<|endoftext|>b").unwrap(), [0, 2, 1]);
        assert_eq!(bpe().end_of_text(), Some(0));
        assert_eq!(bpe().decode(&[0]).unwrap(), "");
        assert!(bpe().config_json(64).contains("\"eos_token\": \"<|endoftext|>\",\n  \"model_max_length\": 64,"));
        let nameless = serde_json::from_str::<Value>(&characters("ab", false).config_json(8)).unwrap();
        assert_eq!(nameless.get("eos_token"), None);
    }

    #[test]
    fn training_depends_on_neither_run_nor_order() {
        assert_eq!(bpe().to_json(), bpe().to_json());
        assert_eq!(bpe().vocab_size(), 300);
        assert_eq!(bpe().fingerprint().len(), 64);
        let trained =
            |texts: [&str; 3]| Tokenizer::train_bpe(270, texts.map(str::to_owned).into_iter()).unwrap().to_json();
        assert_eq!(trained(["ab ab", "cd", "abc<|endoftext|>"]), trained(["abc", "cd", "ab ab"]));
    }

    #[test]
    fn vocabularies_of_no_use_are_refused() {
        assert!(Tokenizer::train_bpe(256, std::iter::empty()).unwrap_err().hint().unwrap().contains("257"));
        assert!(Tokenizer::train_bpe(usize::MAX, std::iter::empty()).unwrap_err().to_string().contains("too large"));
        assert!(Tokenizer::char_level(&BTreeSet::new(), true).unwrap_err().to_string().contains("no characters"));
    }

    #[test]
    fn a_text_without_spaces_does_not_take_for_ever() {
        let tokenizer = Tokenizer::train_bpe(300, std::iter::once("ab".repeat(1 << 18))).unwrap();
        assert_eq!(tokenizer.decode(&tokenizer.encode("ababa").unwrap()).unwrap(), "ababa");
        assert!(tokenizer.encode(&"ab".repeat(256)).unwrap().len() < 4);
    }

    #[test]
    fn a_saved_tokenizer_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        for tokenizer in [bpe(), characters(" aeflnort", true), Tokenizer::from_json(&llama().to_string()).unwrap()] {
            fs::write(&path, tokenizer.to_json()).unwrap();
            let read = Tokenizer::from_file(&path).unwrap();
            assert_eq!(read.encode("a").unwrap(), tokenizer.encode("a").unwrap());
            assert_eq!(read.fingerprint(), tokenizer.fingerprint());
            assert_eq!(read.characters, tokenizer.characters);
        }
        fs::write(&path, b"\xff").unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(error.ends_with("tokenizer.json`: is not UTF-8"), "{error}");
        assert!(matches!(Tokenizer::from_file(&folder.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn difficult_texts_survive_bpe() {
        let tokenizer = &*BPE_300;
        let spaces = " ".repeat(100_000) + "x";
        for text in [
            "你好，世界",
            "مرحبا بالعالم",
            "👩‍👩‍👧‍👦 e\u{301}",
            "1234567",
            "if (x) {\n\t\treturn;\n}",
            "a    b\r\n\r\n",
            "\u{0}\u{7f}\u{feff}\u{fffd}",
            "",
            &spaces,
        ] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            assert_eq!(tokenizer.inner.decode(&ids, true).unwrap(), text);
        }
    }

    #[test]
    fn llamas_bytes_and_spaces_come_out_as_text() {
        let tokenizer = Tokenizer::from_json(&llama().to_string()).unwrap();
        for (ids, text) in
            [(&[0, 5, 5, 3][..], "a a "), (&[3, 5], " a"), (&[6, 5], "b a"), (&[1, 2, 6], "éb"), (&[], "")]
        {
            assert_eq!(tokenizer.decode(ids).unwrap(), text);
            assert_eq!(tokenizer.inner.decode(ids, true).unwrap(), text);
        }
        assert_eq!(tokenizer.decode(&[1, 6]).unwrap(), "\u{fffd}b");
    }

    #[test]
    fn ids_that_no_token_has_are_named() {
        let error = BPE_300.decode(&[5, 300]).unwrap_err().to_string();
        assert_eq!(error, "tokenizer: token id 300 is past the vocabulary of 300");
        let mut file = llama();
        file["model"]["vocab"]["b"] = 9.into();
        let error = Tokenizer::from_json(&file.to_string()).unwrap().decode(&[7]).unwrap_err().to_string();
        assert_eq!(error, "tokenizer: no token has the id 7");
    }

    #[test]
    fn what_would_change_texts_is_kept_but_not_obeyed() {
        let mut file: Value = serde_json::from_str(&BPE_300.to_json()).unwrap();
        file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5});
        file["padding"] = json!({"strategy": {"Fixed": 90}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "x"});
        let piece = json!([{"SpecialToken": {"id": "missing", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]);
        file["post_processor"] =
            json!({"type": "TemplateProcessing", "single": piece, "pair": piece, "special_tokens": {}});
        file["model"]["dropout"] = 0.9.into();
        let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
        let text = "Once upon a time there was a fox";
        assert_eq!(tokenizer.encode(text).unwrap(), BPE_300.encode(text).unwrap());
        assert!(tokenizer.to_json().contains("missing"));
    }

    #[test]
    fn files_that_are_no_tokenizers_say_why() {
        let with = |path: &str, value: Value| {
            let mut file = llama();
            *file.pointer_mut(path).unwrap() = value;
            file.to_string()
        };
        let strip = json!({"type": "Strip", "content": "a", "start": 0, "stop": 9});
        for (json, part) in [
            (String::new(), "is not JSON"),
            ("[]".to_owned(), "is not a tokenizer"),
            ("{}".to_owned(), "is not a tokenizer"),
            (json!({"model": 3}).to_string(), "is not a tokenizer"),
            (json!({"model": {"type": "BPE", "vocab": {}, "merges": []}}).to_string(), "no tokens"),
            (with("/model/merges/0", "▁a ▁a".into()), r#"the merge 0, "▁a ▁a", that makes no token"#),
            (with("/model/merges/0", json!(["▁", "<0xC3><0xC3>"])), "makes no token"),
            (with("/model/merges/0", 1.into()), "makes no token"),
            (with("/model/vocab/b", 4.into()), "two tokens have the id 4"),
            (with("/model/vocab/b", u32::MAX.into()), "no vocabulary is that large"),
            (with("/added_tokens/0/id", 9.into()), "added token `<s>` the id 9, where 0 is its turn"),
            (with("/added_tokens/0/content", "new".into()), "`new` the id 0, where 7"),
            (with("/decoder/decoders/3", strip), "contradict"),
        ] {
            let error = Tokenizer::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(part), "{error}, not {part}");
        }
        let mut prefixed = llama();
        prefixed["model"]["continuing_subword_prefix"] = "é".into();
        assert!(Tokenizer::from_json(&prefixed.to_string()).unwrap_err().to_string().contains("merge 0"));
    }

    proptest! {
        #[test]
        fn any_text_survives_bpe(text in any::<String>()) {
            let tokenizer = &*BPE_300;
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn any_ids_decode_as_in_the_library(ids in prop::collection::vec(0_u32..300, 0..30)) {
            let tokenizer = &*BPE_300;
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), tokenizer.inner.decode(&ids, true).unwrap());
        }
    }
}

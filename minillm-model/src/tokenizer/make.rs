//! The two kinds of tokenizer that are made here: one token per character, and byte-level BPE.

use std::collections::BTreeSet;

use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, ModelWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
    Tokenizer as Inner, Trainer,
};

use super::{END_OF_TEXT, LARGEST_VOCABULARY, TURN_TOKENS, Tokenizer, failed};
use crate::error::{Error, Result};

/// Qwen2's pattern: contractions, words with the space before them, single digits, punctuation, runs of white space.
pub const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Llama 3's: the same with up to three digits in a word.
pub const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Longer words (a line of base64, a text without spaces) are learned from in parts: the library's time grows with the
/// square of a word's length.
const LONGEST_WORD_BYTES: usize = 512;

impl Tokenizer {
    /// One token per character. `end_of_text` adds [`END_OF_TEXT`] as the last id, for texts of several documents.
    pub fn char_level(characters: &BTreeSet<char>, end_of_text: bool) -> Result<Self> {
        if characters.is_empty() {
            return Err(Error::Tokenizer {
                problem: "the text has no characters".to_owned(),
                hint: "give it a text that is not empty".to_owned(),
            });
        }
        Self::made(&character_tokenizer(characters, end_of_text)?)
    }

    /// A byte-level BPE of `vocab_size` tokens: [`END_OF_TEXT`] as id 0, the 256 bytes, merges learned from `texts`, and behind them
    /// [`TURN_TOKENS`].
    ///
    /// It has fewer tokens if the texts run out of neighbours to merge. The same texts give the same tokenizer, whatever
    /// their order and the number of threads.
    pub fn train_bpe<I>(vocab_size: usize, texts: I) -> Result<Self>
    where
        I: Iterator<Item = String> + Send,
    {
        const SMALLEST: usize = 1 + 256 + TURN_TOKENS.len();
        if vocab_size < SMALLEST {
            return Err(Error::Tokenizer {
                problem: format!(
                    "a vocabulary of {vocab_size} cannot hold the 256 bytes, `{END_OF_TEXT}` and the two tokens around a turn"
                ),
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
            .vocab_size(vocab_size - TURN_TOKENS.len())
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
        inner.add_special_tokens(TURN_TOKENS.map(|token| AddedToken::from(token, true))).map_err(failed)?;
        begin_with_end_of_text(&mut inner)?;
        Self::made(&inner)
    }

    /// The same tokenizer with control tokens of these names, new ones behind all others.
    pub fn with_control_tokens(self, names: &[&str]) -> Result<Self> {
        let known = self.control_tokens();
        let is_new = |name: &&&str| !known.iter().any(|token| token.text == **name);
        let new: Vec<_> = names.iter().filter(is_new).map(|name| AddedToken::from(*name, true)).collect();
        if new.is_empty() {
            return Ok(self);
        }
        let mut inner: Inner = serde_json::from_str(&self.to_json()).map_err(failed)?;
        inner.add_special_tokens(new).map_err(failed)?;
        Self::made(&inner)
    }

    /// What was made here goes through the same door as what is read.
    fn made(inner: &Inner) -> Result<Self> {
        Self::from_json(&(inner.to_string(true).map_err(failed)? + "\n"))
    }
}

/// The library's form of a character tokenizer.
pub(super) fn character_tokenizer(characters: &BTreeSet<char>, end_of_text: bool) -> Result<Inner> {
    let ids = (0_u32..).zip(characters).map(|(id, character)| (character.to_string(), id));
    // The library wants a name for the unknown token; it is not in the vocabulary, so that unknown is an error.
    let model = WordLevel::builder().vocab(ids.collect()).unk_token("<unk>".to_owned()).build().map_err(failed)?;
    let mut inner = Inner::new(ModelWrapper::WordLevel(model));
    inner.with_pre_tokenizer(Some(split(r"[\s\S]")?)); // any character, line breaks included, in every regex dialect
    inner.with_decoder(Some(Fuse::new()));
    if end_of_text {
        inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true)]).map_err(failed)?;
        begin_with_end_of_text(&mut inner)?;
    }
    Ok(inner)
}

/// For readers that add special tokens: a text begins behind the end of another, as in training.
fn begin_with_end_of_text(inner: &mut Inner) -> Result<()> {
    let id = inner.token_to_id(END_OF_TEXT).unwrap_or_default();
    let mut template = TemplateProcessing::builder();
    template.try_single(format!("{END_OF_TEXT} $A")).map_err(failed)?;
    template.special_tokens(vec![(END_OF_TEXT, id)]);
    inner.with_post_processor(Some(template.build().map_err(failed)?));
    Ok(())
}

/// The words of a text to learn from.
fn words(cutter: &Sequence, text: &str) -> tokenizers::Result<Vec<String>> {
    let mut words = Vec::new();
    // Where a special token is written out there is nothing to learn: it will be that token.
    let parts = text.split(END_OF_TEXT).flat_map(|part| {
        TURN_TOKENS
            .into_iter()
            .fold(vec![part], |parts, token| parts.into_iter().flat_map(|part| part.split(token)).collect())
    });
    for part in parts {
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
pub(super) fn split(pattern: &str) -> Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    Ok(PreTokenizerWrapper::Split(split))
}

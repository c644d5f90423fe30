//! llama.cpp's way from a text to ids, from nothing but what a GGUF file says of its vocabulary.
//!
//! ```text
//! text -> cut at special tokens, the longest name first
//!      -> SentencePiece: a space in front, spaces as `▁`; neighbours merged by the score of the token they make
//!         byte-level BPE: cut into words by patterns; neighbours merged by the rank of their merge
//!         longest match: the longest token that fits, one after the other
//! ```
//!
//! It differs in details from the `tokenizers` library: special tokens neither take spaces away nor ask for word
//! boundaries, every piece of text gets its space, and of equal scores the leftmost pair is merged first. So a GGUF file
//! of other programs is read by these rules, and an export is compared with them.

mod merge;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashMap;

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use self::merge::merge;
use super::make::split;
use super::{byte_symbols, catch_panic};

/// SentencePiece's space.
pub const SPACE: &str = "\u{2581}";

/// What a token is: the values of `tokenizer.ggml.token_type`.
pub mod token_type {
    /// A piece of text.
    pub const NORMAL: i64 = 1;
    /// Stands for what has no token.
    pub const UNKNOWN: i64 = 2;
    /// No text, such as the end of one.
    pub const CONTROL: i64 = 3;
    /// Text that is one token wherever it is found.
    pub const USER_DEFINED: i64 = 4;
    /// A row without a token.
    pub const UNUSED: i64 = 5;
    /// One byte: `<0x0A>`.
    pub const BYTE: i64 = 6;
}

/// Names that llama.cpp takes for control tokens, whatever type the file gives them.
pub const CONTROL_NAMES: [&str; 16] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
];

/// How a piece of text between special tokens becomes ids.
pub enum Rules {
    /// `llama`: SentencePiece's BPE.
    SentencePiece {
        /// Of each token, by id; all are 0 if there are none.
        scores: Vec<f32>,
        /// Whether a piece of text gets a space in front.
        adds_space: bool,
    },
    /// `gpt2`: byte-level BPE.
    ByteLevel {
        /// Each cuts further what the one before has left.
        patterns: Vec<String>,
        /// `left right`, the first the most important.
        merges: Vec<String>,
        /// Whether a word that is a token is one, merges or not.
        ignores_merges: bool,
    },
    /// `rwkv`: the longest token that fits.
    LongestMatch,
}

/// A vocabulary with llama.cpp's rules.
#[derive(Clone)]
pub struct LlamaCpp {
    tokens: Vec<(Box<str>, i64)>,
    ids: HashMap<Box<str>, u32>,
    /// The longest first.
    special: Vec<(Box<str>, u32)>,
    method: Method,
}

/// [`Rules`], ready to be used.
#[derive(Clone)]
enum Method {
    SentencePiece { scores: Vec<f32>, adds_space: bool, bytes: Vec<Option<u32>> },
    ByteLevel { words: Box<Sequence>, ranks: HashMap<Box<str>, u32>, ignores_merges: bool },
    LongestMatch { longest: usize },
}

/// A piece of a text that is cut at special tokens.
enum Fragment<'a> {
    Text(&'a str),
    Token(u32),
}

impl LlamaCpp {
    /// From all tokens in the order of their ids, and their types; those without one are normal. Errors say what is wrong
    /// with the rules.
    pub fn new<'a>(tokens: impl Iterator<Item = &'a str>, types: &[i64], rules: Rules) -> Result<Self, String> {
        let types = types.iter().copied().chain(std::iter::repeat(token_type::NORMAL));
        let tokens: Vec<(Box<str>, i64)> = tokens.map(Box::from).zip(types).collect();
        let ids: HashMap<_, _> = tokens.iter().map(|(token, _)| token.clone()).zip(0_u32..).collect();
        let is_special = |(token, kind): &&(Box<str>, i64)| {
            [token_type::CONTROL, token_type::USER_DEFINED, token_type::UNKNOWN].contains(kind)
                || CONTROL_NAMES.contains(&&**token)
        };
        let special = tokens.iter().filter(is_special).filter(|(token, _)| !token.is_empty());
        let mut special: Vec<_> = special.map(|(token, _)| (token.clone(), ids[token])).collect();
        special.sort_by_key(|(token, _)| Reverse(token.len()));
        let method = match rules {
            Rules::SentencePiece { scores, adds_space } => {
                if scores.iter().any(|score| score.is_nan()) {
                    return Err("has a score that is not a number".to_owned());
                }
                let bytes = (0..=u8::MAX).map(|byte| {
                    let alone = byte.is_ascii().then(|| char::from(byte).to_string());
                    let named = ids.get(format!("<0x{byte:02X}>").as_str());
                    named.or(alone.as_deref().and_then(|alone| ids.get(alone))).copied()
                });
                Method::SentencePiece { scores, adds_space, bytes: bytes.collect() }
            }
            Rules::ByteLevel { patterns, merges, ignores_merges } => {
                let mut steps = Vec::new();
                for pattern in patterns {
                    steps.push(split(&pattern).map_err(|error| error.to_string())?);
                }
                steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
                let mut ranks = HashMap::new();
                for (merge, rank) in merges.into_iter().zip(0..) {
                    ranks.entry(merge.into_boxed_str()).or_insert(rank);
                }
                Method::ByteLevel { words: Box::new(Sequence::new(steps)), ranks, ignores_merges }
            }
            Rules::LongestMatch => {
                Method::LongestMatch { longest: tokens.iter().map(|(token, _)| token.len()).max().unwrap_or(0) }
            }
        };
        Ok(Self { tokens, ids, special, method })
    }

    /// Token ids of a text, without what belongs before or after it.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut ids = Vec::new();
        // The beginning of a text counts as the place behind a special token.
        let mut is_behind_special = true;
        for fragment in self.fragments(text) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(piece) => self.piece_ids(piece, is_behind_special, &mut ids)?,
            }
            is_behind_special = matches!(fragment, Fragment::Token(_));
        }
        Ok(ids)
    }

    /// The same rules for words: no special token is looked for.
    #[must_use]
    pub fn for_words(&self) -> Self {
        Self { special: Vec::new(), ..self.clone() }
    }

    /// The bytes that a token adds to a text; special tokens and those without a row of their own add none.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some((token, kind)) = self.tokens.get(id as usize) else { return Vec::new() };
        match *kind {
            token_type::NORMAL | token_type::BYTE if CONTROL_NAMES.contains(&&**token) => Vec::new(),
            token_type::USER_DEFINED => token.as_bytes().to_vec(),
            token_type::BYTE => {
                let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).unwrap_or_default();
                u8::from_str_radix(digits, 16).into_iter().collect()
            }
            token_type::NORMAL => match &self.method {
                Method::SentencePiece { .. } => token.replace(SPACE, " ").into_bytes(),
                Method::ByteLevel { .. } => {
                    let symbols = byte_symbols();
                    let byte = |symbol: char| symbols.get(symbol as usize).copied().flatten();
                    let bytes: Option<_> = token.chars().map(byte).collect();
                    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
                }
                Method::LongestMatch { .. } => token.as_bytes().to_vec(),
            },
            _ => Vec::new(),
        }
    }

    /// Whether neighbours are merged by the score of the token that they make, and not by a list of merges.
    pub fn merges_by_score(&self) -> bool {
        matches!(self.method, Method::SentencePiece { .. })
    }

    /// The scores of all tokens, if there are scores.
    pub fn scores(&self) -> Option<Vec<f32>> {
        let Method::SentencePiece { scores, .. } = &self.method else { return None };
        let all = scores.iter().copied().chain(std::iter::repeat(0.0));
        Some(all.take(self.tokens.len()).collect())
    }

    /// Whether two tokens of several characters have the same score.
    pub fn has_equal_scores(&self) -> bool {
        let Some(scores) = self.scores() else { return false };
        let is_merged = |(token, kind): &(Box<str>, i64)| *kind == token_type::NORMAL && token.chars().nth(1).is_some();
        let merged = self.tokens.iter().zip(scores).filter(|(token, _)| is_merged(token));
        let mut seen = std::collections::HashSet::new();
        merged.map(|(_, score)| by_size(score)).any(|score| !seen.insert(score))
    }

    /// The number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// Special tokens are looked for one after the other, the longest first, each in what those before have left.
    fn fragments<'a>(&self, text: &'a str) -> Vec<Fragment<'a>> {
        let mut fragments = vec![Fragment::Text(text)];
        for (token, id) in &self.special {
            if !text.contains(&**token) {
                continue;
            }
            let mut cut = Vec::new();
            for fragment in fragments {
                let Fragment::Text(piece) = fragment else {
                    cut.push(fragment);
                    continue;
                };
                for (index, part) in piece.split(&**token).enumerate() {
                    cut.extend((index > 0).then_some(Fragment::Token(*id)));
                    cut.push(Fragment::Text(part));
                }
            }
            fragments = cut;
        }
        fragments.retain(|fragment| !matches!(fragment, Fragment::Text("")));
        fragments
    }

    fn piece_ids(&self, piece: &str, is_behind_special: bool, ids: &mut Vec<u32>) -> Result<(), String> {
        match &self.method {
            Method::SentencePiece { scores, adds_space, bytes } => {
                let space = if *adds_space && is_behind_special { SPACE } else { "" };
                let text = space.to_owned() + &piece.replace(' ', SPACE);
                let score = |left: &str, right: &str| {
                    let id = *self.ids.get([left, right].concat().as_str())? as usize;
                    Some(by_size(scores.get(id).copied().unwrap_or(0.0)))
                };
                for symbol in merge(&text, score) {
                    if let Some(&id) = self.ids.get(symbol) {
                        ids.push(id);
                        continue;
                    }
                    for byte in symbol.bytes() {
                        let Some(id) = bytes[usize::from(byte)] else {
                            return Err(format!("there is no token for {symbol:?}, nor one for its byte {byte:#04X}"));
                        };
                        ids.push(id);
                    }
                }
            }
            Method::ByteLevel { words, ranks, ignores_merges } => {
                let mut cut = PreTokenizedString::from(piece);
                catch_panic(|| words.pre_tokenize(&mut cut))?;
                for (word, ..) in cut.get_splits(OffsetReferential::Original, OffsetType::None) {
                    match self.ids.get(word) {
                        Some(&id) if *ignores_merges => ids.push(id),
                        _ => {
                            let rank = |left: &str, right: &str| {
                                ranks.get(format!("{left} {right}").as_str()).map(|&rank| Reverse(rank))
                            };
                            // What has no token is left out.
                            ids.extend(merge(word, rank).into_iter().filter_map(|symbol| self.ids.get(symbol)));
                        }
                    }
                }
            }
            Method::LongestMatch { longest } => {
                let mut rest = piece;
                while let Some(first) = rest.chars().next() {
                    let fits = |length: &usize| rest.get(..*length).is_some_and(|part| self.ids.contains_key(part));
                    let Some(length) = (1..=rest.len().min(*longest)).rev().find(fits) else {
                        return Err(format!("there is no token for {first:?}"));
                    };
                    ids.push(self.ids[&rest[..length]]);
                    rest = &rest[length..];
                }
            }
        }
        Ok(())
    }
}

/// A number that is ordered as the score is; both zeros are one.
fn by_size(score: f32) -> i32 {
    let bits = (score + 0.0).to_bits() as i32;
    bits ^ ((bits >> 31) & i32::MAX)
}

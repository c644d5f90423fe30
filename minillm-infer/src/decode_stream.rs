//! Text from tokens as they come, never splitting a character.
//!
//! The bytes of one character may lie in several tokens, and what a token says may depend on the one before it (a
//! tokenizer may drop the space in front of a text's first word). So a few tokens are kept as context: the new text is
//! what decoding (context + new tokens) adds to decoding the context alone, as soon as it does not end in the middle of
//! a character.

use minillm_model::tokenizer::Tokenizer;

use crate::error::Result;

/// What an unfinished character decodes to.
const REPLACEMENT: char = '\u{fffd}';

/// A character is at most four bytes, so at most four tokens: after these many a replacement is no longer a beginning.
const LONGEST_CHARACTER_TOKENS: usize = 4;

/// Decodes a stream of tokens.
#[derive(Clone, Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens already written, kept as context, then tokens not yet written.
    ids: Vec<u32>,
    /// How many of them are context.
    context: usize,
}

impl<'a> DecodeStream<'a> {
    /// At the beginning of a text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), context: 0 }
    }

    /// Takes a token; returns the text that is certain now.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.ids.push(id);
        let is_waiting = self.ids.len() - self.context < LONGEST_CHARACTER_TOKENS;
        let (known, whole) = self.decode()?;
        if whole.ends_with(REPLACEMENT) && is_waiting {
            return Ok(None);
        }
        // The tokens just written become the context of the next.
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        Ok(new_text(&known, &whole))
    }

    /// What is left at the end: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> Result<String> {
        let (known, whole) = self.decode()?;
        self.ids.clear();
        self.context = 0;
        Ok(new_text(&known, &whole).unwrap_or_default())
    }

    /// Text of the context, and of the context with the new tokens.
    fn decode(&self) -> Result<(String, String)> {
        Ok((self.tokenizer.decode(&self.ids[..self.context])?, self.tokenizer.decode(&self.ids)?))
    }
}

fn new_text(known: &str, whole: &str) -> Option<String> {
    whole.strip_prefix(known).filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes only: every character beyond ASCII is spread over several tokens.
    fn bytes() -> Tokenizer {
        Tokenizer::train_bpe(257, std::iter::empty()).unwrap()
    }

    fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
        let mut stream = DecodeStream::new(tokenizer);
        let mut pieces: Vec<_> = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn a_character_comes_whole() {
        let tokenizer = bytes();
        let ids = tokenizer.encode("aé👋").unwrap();
        assert_eq!(ids.len(), 7);
        assert_eq!(streamed(&tokenizer, &ids), ["a", "é", "👋", ""]);
    }

    #[test]
    fn an_unfinished_character_is_replaced_at_the_end() {
        let tokenizer = bytes();
        let ids = tokenizer.encode("a👋").unwrap();
        assert_eq!(streamed(&tokenizer, &ids[..3]).concat(), "a\u{fffd}");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(text in "\\PC{0,30}") {
            let tokenizer = bytes();
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(streamed(&tokenizer, &ids).concat(), text);
        }

        #[test]
        fn tokens_of_a_learned_vocabulary_too(text in "[a-f é👋\\n]{0,40}") {
            let texts = ["abc abc é é 👋 abc\n\nfed", "fed fed abc 👋👋"];
            let tokenizer = Tokenizer::train_bpe(280, texts.iter().cycle().take(20).map(|t| (*t).to_owned())).unwrap();
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(streamed(&tokenizer, &ids).concat(), text);
        }
    }
}

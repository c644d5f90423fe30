//! A rendered conversation as tokens, with those marked that the model said.
//!
//! Texts are cut where the model begins to speak and where it ends, and nowhere else: no token lies across, so training sees the tokens
//! that the model is given and writes. (transformers encodes the whole and marks a token if any of its characters is the model's; the two
//! differ where the model's first character and the one before it are one token.)

use super::Rendered;
use crate::error::{Error, Result};
use crate::tokenizer::{ControlToken, Tokenizer};

/// The tokens of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatTokens {
    /// What the model is given. Nothing is added: what begins a text is in the template.
    pub ids: Vec<u32>,
    /// For each, whether the model said it: what training on conversations is about.
    pub is_trained: Vec<bool>,
}

/// Encodes conversations for one tokenizer.
#[derive(Clone, Debug)]
pub struct ChatEncoder {
    tokenizer: Tokenizer,
    /// For what messages say.
    words: Tokenizer,
    control: Vec<ControlToken>,
}

impl ChatEncoder {
    /// For this tokenizer.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { tokenizer: tokenizer.clone(), words: tokenizer.for_words(), control: tokenizer.control_tokens() }
    }

    /// The tokens of a conversation.
    pub fn encode(&self, rendered: &Rendered) -> Result<ChatTokens> {
        if self.tokenizer.drops_first_space() {
            // Such a tokenizer puts a space before every text it is given: it must be given the whole.
            return self.encode_whole(rendered);
        }
        let mut tokens = ChatTokens::default();
        for (text, is_trained) in rendered.parts() {
            let ids = self.encode_part(text, rendered.text_mark())?;
            tokens.is_trained.extend(std::iter::repeat_n(is_trained, ids.len()));
            tokens.ids.extend(ids);
        }
        Ok(tokens)
    }

    /// Encodes the whole text and finds the place of each token in it; one with any character of the model's is the model's.
    fn encode_whole(&self, rendered: &Rendered) -> Result<ChatTokens> {
        let tokenizer = &self.tokenizer;
        if rendered.parts().any(|(text, _)| text.contains(rendered.text_mark())) {
            return Err(Error::Chat {
                problem: "a message spells a control token, which this tokenizer cannot encode as words".to_owned(),
                hint: "leave it out of the message".to_owned(),
            });
        }
        let text = rendered.text();
        let ids = tokenizer.encode(&text)?;
        let mut ends = Vec::new(); // of each part, and whether the model said it
        for (part, is_trained) in rendered.parts() {
            ends.push((ends.last().map_or(0, |(end, _)| *end) + part.len(), is_trained));
        }
        let mut is_trained = Vec::with_capacity(ids.len());
        let mut place = 0;
        for &id in &ids {
            let name = tokenizer.name(id).unwrap_or_default();
            let bytes = tokenizer.token_bytes(id);
            let bytes = if bytes.is_empty() { name.as_bytes() } else { bytes };
            let rest = &text.as_bytes()[place..];
            // A space that is not in the text.
            let bytes = if rest.starts_with(bytes) { bytes } else { bytes.strip_prefix(b" ").unwrap_or(bytes) };
            if !rest.starts_with(bytes) {
                return Err(Error::Chat {
                    problem: format!("the token `{name}` is not found in the text, which the tokenizer has changed"),
                    hint: "a conversation can only be marked with a tokenizer that keeps texts as they are".to_owned(),
                });
            }
            let end = place + bytes.len();
            let mut begin = 0;
            is_trained.push(ends.iter().any(|&(part_end, is_trained)| {
                let overlaps = begin < end && place < part_end;
                begin = part_end;
                is_trained && overlaps
            }));
            place = end;
        }
        Ok(ChatTokens { ids, is_trained })
    }

    /// Encodes a text in which `mark` stands inside what only looks like a control token.
    fn encode_part(&self, text: &str, mark: char) -> Result<Vec<u32>> {
        if !text.contains(mark) {
            return self.tokenizer.encode(text);
        }
        let words = |text: &str| self.words.encode(&text.replace(mark, ""));
        let (mut ids, mut from, mut at) = (Vec::new(), 0, 0);
        while let Some(character) = text[at..].chars().next() {
            let found = self
                .control
                .iter()
                .filter(|token| text[at..].starts_with(&*token.text))
                .max_by_key(|token| token.text.len());
            match found {
                Some(token) if !text[..at].ends_with(mark) => {
                    let before = &text[from..at];
                    ids.extend(words(if token.takes_spaces_before { before.trim_end() } else { before })?);
                    ids.push(token.id);
                    at += token.text.len();
                    if token.takes_spaces_behind {
                        at = text.len() - text[at..].trim_start().len();
                    }
                    from = at;
                }
                _ => at += character.len_utf8(),
            }
        }
        ids.extend(words(&text[from..])?);
        Ok(ids)
    }
}

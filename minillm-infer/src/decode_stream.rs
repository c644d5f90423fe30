//! Text from tokens as they come, never splitting a character.
//!
//! A token has bytes, and the bytes of one character may be in several tokens. So what is handed out ends where a
//! character ends; the one to three bytes of a character that has begun wait for the rest:
//!
//! ```text
//! tokens    "caf"  C3   A9   "!"
//! text      "caf"  -    "é"  "!"
//! ```

use minillm_model::tokenizer::Tokenizer;

/// Decodes a stream of tokens. All that it hands out, put together, is what [`Tokenizer::decode`] gives for all ids.
#[derive(Clone, Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The beginning of a character: at most three bytes, between calls.
    pending: Vec<u8>,
    /// Whether the next byte is the first of the text, where some tokenizers drop a space.
    is_at_start: bool,
}

impl<'a> DecodeStream<'a> {
    /// A stream that starts at the beginning of a text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, pending: Vec::new(), is_at_start: true }
    }

    /// Behind `prompt`: the first word keeps its space, unless the prompt has no text.
    pub fn after(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Self {
        let is_at_start = prompt.iter().all(|&id| tokenizer.token_bytes(id).is_empty());
        Self { is_at_start, ..Self::new(tokenizer) }
    }

    /// Takes a token; returns the text that is certain now, if there is any. An id without a token adds nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let mut bytes = self.tokenizer.token_bytes(id);
        if self.is_at_start && !bytes.is_empty() {
            self.is_at_start = false;
            if self.tokenizer.drops_first_space() {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
        }
        self.pending.extend_from_slice(bytes);
        let text = self.take(self.pending.len() - unfinished_bytes(&self.pending));
        Some(text).filter(|text| !text.is_empty())
    }

    /// What is left at the end: a character that was not finished becomes U+FFFD. Another text may follow.
    pub fn finish(&mut self) -> String {
        self.is_at_start = true;
        self.take(self.pending.len())
    }

    fn take(&mut self, length: usize) -> String {
        let text = String::from_utf8_lossy(&self.pending[..length]).into_owned();
        self.pending.drain(..length);
        text
    }
}

/// How many bytes at the end begin a character that more bytes could still finish.
fn unfinished_bytes(bytes: &[u8]) -> usize {
    let tail = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    // No `error_len`: there is no error but the early end.
    let is_beginning = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
    if is_beginning { tail.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// Bytes only: every character beyond ASCII is spread over several tokens.
    static BYTES: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::train_bpe(259, std::iter::empty()).unwrap());

    /// With tokens that end, and begin, in the middle of a character.
    static LEARNED: LazyLock<Tokenizer> = LazyLock::new(|| {
        let texts = ["abc abc é é 👋 abc\n\nfed", "fed fed abc 👋👋 ä ö"];
        Tokenizer::train_bpe(285, texts.iter().cycle().take(20).map(|text| (*text).to_owned())).unwrap()
    });

    /// Drops the first space, as Llama's do: tokens `<s>`, `▁`, `a`, `▁b`.
    static LLAMA: LazyLock<Tokenizer> = LazyLock::new(|| {
        let json = r#"{"added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "vocab": {"<s>": 0, "▁": 1, "a": 2, "▁b": 3}, "merges": []}}"#;
        Tokenizer::from_json(json).unwrap()
    });

    fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
        let mut stream = DecodeStream::new(tokenizer);
        let mut pieces: Vec<_> = ids.iter().filter_map(|&id| stream.push(id)).collect();
        pieces.push(stream.finish());
        pieces
    }

    #[test]
    fn a_character_comes_whole() {
        let tokenizer = &*BYTES;
        let ids = tokenizer.encode("aé👋").unwrap();
        assert_eq!(ids.len(), 7);
        assert_eq!(streamed(tokenizer, &ids), ["a", "é", "👋", ""]);
    }

    #[test]
    fn an_unfinished_character_is_replaced_at_the_end() {
        let tokenizer = &*BYTES;
        let ids = tokenizer.encode("a👋").unwrap();
        assert_eq!(streamed(tokenizer, &ids[..3]), ["a", "\u{fffd}"]);
    }

    #[test]
    fn what_cannot_become_a_character_does_not_wait() {
        let tokenizer = &*BYTES;
        let continuation = tokenizer.encode("👋").unwrap()[1];
        let mut stream = DecodeStream::new(tokenizer);
        assert_eq!(stream.push(continuation).unwrap(), "\u{fffd}");
        assert!(stream.pending.is_empty());
    }

    #[test]
    fn an_id_without_a_token_adds_nothing() {
        let tokenizer = &*LLAMA;
        // Neither does it count as the beginning of the text, nor does it break a character in two.
        assert_eq!(streamed(tokenizer, &[9_999, 3, 4, 2]).concat(), "ba");
        assert_eq!(DecodeStream::after(tokenizer, &[9_999]).push(3).unwrap(), "b");
        let ids = BYTES.encode("é").unwrap();
        assert_eq!(streamed(&BYTES, &[ids[0], 300, ids[1]]).concat(), "é");
    }

    #[test]
    fn the_first_space_goes_only_at_the_beginning() {
        let tokenizer = &*LLAMA;
        assert_eq!(streamed(tokenizer, &[0, 3, 3, 1, 2]).concat(), "b b a");
        assert_eq!(streamed(tokenizer, &[1, 3]).concat(), " b");
        for (prompt, text) in [(&[][..], "b"), (&[0], "b"), (&[0, 2], " b")] {
            assert_eq!(DecodeStream::after(tokenizer, prompt).push(3).unwrap(), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(text in any::<String>()) {
            for tokenizer in [&*BYTES, &*LEARNED] {
                let ids = tokenizer.encode(&text).unwrap();
                prop_assert_eq!(&streamed(tokenizer, &ids).concat(), &text);
            }
        }

        #[test]
        fn any_ids_stream_as_they_decode(
            wide in prop::collection::vec(0_u32..257, 0..40),
            narrow in prop::collection::vec(0_u32..4, 0..20),
        ) {
            for (tokenizer, ids) in [(&*BYTES, &wide), (&*LEARNED, &wide), (&*LLAMA, &narrow)] {
                prop_assert_eq!(streamed(tokenizer, ids).concat(), tokenizer.decode(ids));
            }
        }
    }
}

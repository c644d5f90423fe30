//! A stream of text into documents, and long documents into chunks.
//!
//! **Where a document is cut.** Tokenizing the chunks must give the tokens of the whole. A byte-level BPE splits text by
//! a pattern first and never merges across such a split, so a place is safe if (a) the pattern always splits there and
//! (b) what stands before it is split the same way when the text ends there. GPT-2's and Qwen2's patterns (and
//! Llama 3's) have two such places:
//!
//! 1. *before a space that follows a character which is not white space*. No alternative of the patterns crosses from
//!    anything else into a space: only ` ?` and `\s` match one, and only at a match's start or after white space.
//! 2. *after a line feed between two characters that are not white space*. The line feed ends a match in both
//!    patterns (in Qwen2's it may belong to punctuation before it). More than one character of white space would
//!    not be safe: GPT-2's `\s+(?!\S)` takes all of it at a text's end but leaves the last one before a word.
//!
//! A character tokenizer may be cut anywhere, and so may a text whose characters are only counted. With other tokenizers
//! (`SentencePiece`) a token may differ at a cut, once a megabyte. A text without a safe place is cut between two characters,
//! with a warning.

use std::collections::VecDeque;

use minillm_model::tokenizer::END_OF_TEXT;

/// Chunks are at most this long if there is a place to cut before.
const CHUNK_BYTES: usize = 1 << 20;
/// Longest stretch that is searched for a safe place. Tokenizers need a hundred times a chunk's size, so this is what
/// bounds memory.
pub(super) const LONGEST_CHUNK_BYTES: usize = 16 << 20;

/// The places at which a document may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// Between any two characters.
    Anywhere,
    /// Where no token of a byte-level BPE crosses.
    BetweenWords,
}

/// A stretch of one document, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextChunk {
    /// The text, with its line ends as they are in the file (`\r\n` stays `\r\n`).
    pub text: String,
    /// Which of the text's files it is from.
    pub file: usize,
    /// Whether the document ends here.
    pub ends_document: bool,
}

/// Finds the separators and the places to cut in a stream of text.
pub(super) struct Splitter {
    cuts: Cuts,
    /// Text that no chunk holds yet.
    pending: String,
    /// Bytes of `pending` known to hold no complete separator.
    searched: usize,
    /// Bytes of `pending` known to hold no safe place.
    without_place: usize,
    /// Whether a chunk of the current document has been given out.
    started: bool,
    /// Whether line ends are to be skipped because only a separator stands before them.
    after_separator: bool,
    /// Whether a stretch without a safe place was cut since this was last asked.
    cut_a_run: bool,
    /// Number of the current file, to mark chunks with.
    file: usize,
    ready: VecDeque<TextChunk>,
}

impl Splitter {
    /// Nothing has been given yet.
    pub fn new(cuts: Cuts) -> Self {
        Self {
            cuts,
            pending: String::new(),
            searched: 0,
            without_place: 0,
            started: false,
            after_separator: false,
            cut_a_run: false,
            file: 0,
            ready: VecDeque::new(),
        }
    }

    /// The next file begins.
    pub fn begin_file(&mut self, file: usize) {
        self.file = file;
    }

    /// The next chunk, if it is complete.
    pub fn next_chunk(&mut self) -> Option<TextChunk> {
        self.ready.pop_front()
    }

    /// Whether a stretch without a safe place was cut since this was last called.
    pub fn has_cut_a_run(&mut self) -> bool {
        std::mem::take(&mut self.cut_a_run)
    }

    /// Takes in more of the current document.
    pub fn push(&mut self, text: &str) {
        self.pending.push_str(text);
        let pending = std::mem::take(&mut self.pending);
        let mut start = 0; // of what is not given out yet
        // Step back, as a separator may have been completed just now.
        let mut search = pending.floor_char_boundary(self.searched.saturating_sub(END_OF_TEXT.len()));
        loop {
            start += self.skip_line_ends(&pending[start..]);
            search = search.max(start);
            let separator = pending[search..].find(END_OF_TEXT).map(|offset| search + offset);
            self.cut(&pending, &mut start, separator.unwrap_or(pending.len()));
            let Some(end) = separator else { break };
            self.finish(&pending[start..end], true);
            self.after_separator = true;
            start = end + END_OF_TEXT.len();
            search = start;
        }
        self.pending = pending;
        self.pending.drain(..start);
        self.searched = self.pending.len();
    }

    /// The current document, or the current file, ends here.
    pub fn end_document(&mut self) {
        let rest = std::mem::take(&mut self.pending);
        self.finish(&rest, false);
        self.searched = 0;
        self.after_separator = false;
    }

    /// Gives out chunks of `text[start..end]` while it is too long for one.
    fn cut(&mut self, text: &str, start: &mut usize, end: usize) {
        while end - *start >= CHUNK_BYTES {
            let Some(length) = self.place(&text[*start..end]) else { break }; // more text may bring one
            self.give_out(&text[*start..*start + length], false);
            *start += length;
        }
    }

    /// Where to cut `rest`, which is too long for one chunk.
    fn place(&mut self, rest: &str) -> Option<usize> {
        let may_grow = rest.len() < LONGEST_CHUNK_BYTES;
        if self.cuts == Cuts::Anywhere {
            // Whether a document holds anything but white space decides whether it is one.
            let is_blank = || !self.started && rest.trim_start().is_empty();
            return if may_grow && is_blank() { None } else { Some(place_between_characters(rest)) };
        }
        if let Some(place) = safe_place(rest, self.without_place) {
            self.without_place = 0;
            return Some(place);
        }
        if may_grow {
            self.without_place = rest.len();
            return None;
        }
        let place = place_between_characters(rest);
        self.without_place = LONGEST_CHUNK_BYTES - place;
        self.cut_a_run = true;
        Some(place)
    }

    /// `rest` is the last of a document. Line ends before a separator belong to the separator.
    fn finish(&mut self, rest: &str, before_separator: bool) {
        let trimmed = if before_separator { rest.trim_end_matches(['\n', '\r']) } else { rest };
        if self.started {
            // Behind a megabyte of line ends there may be nothing else.
            self.give_out(if trimmed.is_empty() { rest } else { trimmed }, true);
        } else if !trimmed.trim().is_empty() {
            self.give_out(trimmed, true);
        }
        self.started = false;
        self.without_place = 0;
    }

    fn give_out(&mut self, text: &str, ends_document: bool) {
        self.ready.push_back(TextChunk { text: text.to_owned(), file: self.file, ends_document });
        self.started = true;
    }

    /// Length of the line ends that belong to a separator before `text`.
    fn skip_line_ends(&mut self, text: &str) -> usize {
        if !self.after_separator {
            return 0;
        }
        let rest = text.trim_start_matches(['\n', '\r']);
        self.after_separator = rest.is_empty();
        text.len() - rest.len()
    }
}

/// The last safe place (see the top of this file) in the first [`CHUNK_BYTES`] of a longer text, else the first after
/// them within [`LONGEST_CHUNK_BYTES`]. There is none in the first `without` bytes.
fn safe_place(text: &str, without: usize) -> Option<usize> {
    let middle = CHUNK_BYTES.min(text.len());
    let end = LONGEST_CHUNK_BYTES.min(text.len());
    let first = if without < middle { 1..middle } else { 0..0 };
    first.rev().chain(middle.max(without)..end).find(|&place| is_safe(text, place))
}

/// Whether `text` may be cut before byte `place`; for any byte, also within a character.
fn is_safe(text: &str, place: usize) -> bool {
    let is_word = |character: Option<char>| character.is_some_and(|character| !character.is_whitespace());
    let bytes = text.as_bytes();
    if bytes[place] == b' ' {
        return is_word(text[..place].chars().next_back());
    }
    // What follows may be the beginning of a separator, which would make the line feed a part of it.
    place >= 2
        && bytes[place - 1] == b'\n'
        && bytes[place] != b'<'
        && is_word(text[place..].chars().next())
        && is_word(text[..place - 1].chars().next_back())
}

/// The last place between two characters in the first [`CHUNK_BYTES`] of a text that is as long or longer, neither beside a
/// line end nor within a separator: both may turn out to be no text.
fn place_between_characters(text: &str) -> usize {
    let is_line_end = |byte: u8| byte == b'\n' || byte == b'\r';
    let is_in_separator =
        |place: usize| (1..END_OF_TEXT.len()).any(|length| text[..place].ends_with(&END_OF_TEXT[..length]));
    let bytes = text.as_bytes();
    let is_good = |place: &usize| {
        text.is_char_boundary(*place)
            && !is_line_end(bytes[place - 1])
            && !is_line_end(bytes[*place])
            && !is_in_separator(*place)
    };
    (1..CHUNK_BYTES).rev().find(is_good).unwrap_or_else(|| text.floor_char_boundary(CHUNK_BYTES - 1))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use minillm_model::tokenizer::Tokenizer;
    use proptest::prelude::*;

    use super::*;

    /// The chunks of a text that comes `step` bytes at a time (which must be whole characters).
    fn chunks(cuts: Cuts, text: &str, step: usize) -> Vec<TextChunk> {
        let mut splitter = Splitter::new(cuts);
        text.as_bytes().chunks(step).for_each(|part| splitter.push(std::str::from_utf8(part).unwrap()));
        splitter.end_document();
        std::iter::from_fn(|| splitter.next_chunk()).collect()
    }

    fn documents(chunks: &[TextChunk]) -> Vec<String> {
        let mut documents = vec![String::new()];
        for chunk in chunks {
            assert!(!chunk.text.is_empty());
            *documents.last_mut().unwrap() += &chunk.text;
            documents.extend(chunk.ends_document.then(String::new));
        }
        assert_eq!(documents.pop().as_deref(), Some(""), "the last document ends");
        documents
    }

    #[test]
    fn separators_are_found_wherever_the_reading_stops() {
        let text = "a\r\n<|endoftext|>\n\nb <|endoftext|>\n<|endoftext|>c<|endoftext";
        for step in 1..20 {
            for cuts in [Cuts::Anywhere, Cuts::BetweenWords] {
                assert_eq!(documents(&chunks(cuts, text, step)), ["a", "b ", "c<|endoftext"], "{step} bytes at a time");
            }
        }
    }

    #[test]
    fn safe_places() {
        let places = |text: &str| (1..text.len()).filter(|&place| is_safe(text, place)).collect::<Vec<_>>();
        assert_eq!(places("ab cd  e"), [2, 5]);
        assert_eq!(places("a\nb\n\nc\r\nd\n e"), [2]);
        assert!(places("x.\n<|").is_empty());
        assert_eq!(places("。\n好 好"), [4, 7]);
    }

    #[test]
    fn characters_are_cut_anywhere_but_in_a_separator() {
        // The separator and its line ends fall on every place around the first cut.
        for before in CHUNK_BYTES - 20..CHUNK_BYTES + 4 {
            let text = format!("{}\n\n<|endoftext|>\n{}", "g".repeat(before), "a".repeat(CHUNK_BYTES));
            let found = chunks(Cuts::Anywhere, &text, 65_537);
            assert!(found.iter().all(|chunk| chunk.text.len() <= CHUNK_BYTES));
            let lengths: Vec<usize> = documents(&found).iter().map(String::len).collect();
            assert_eq!(lengths, [before, CHUNK_BYTES], "{before}");
        }
        let text = "ä🦀".repeat(400_000);
        let found = chunks(Cuts::Anywhere, &text, 6);
        assert_eq!(found.len(), 3);
        assert!(documents(&found) == [text]);
    }

    #[test]
    fn a_run_without_a_safe_place_is_cut_and_said() {
        let mut text = "x".repeat(LONGEST_CHUNK_BYTES - 1);
        let mut splitter = Splitter::new(Cuts::BetweenWords);
        splitter.push(&text);
        assert!(splitter.next_chunk().is_none() && !splitter.has_cut_a_run(), "more text may bring a place");
        splitter.push("xx and more");
        text += "xx and more";
        assert!(splitter.has_cut_a_run() && !splitter.has_cut_a_run());
        splitter.end_document();
        let found: Vec<TextChunk> = std::iter::from_fn(|| splitter.next_chunk()).collect();
        assert!(found.len() > 1 && found.last().unwrap().text.ends_with(" and more"));
        assert!(documents(&found) == [text]);
    }

    /// What is a document must not depend on where it may be cut: one reading counts them, another divides them.
    #[test]
    fn white_space_is_no_document_however_it_is_cut() {
        let blank = " \n".repeat(CHUNK_BYTES);
        for (text, expected) in [
            (format!("a<|endoftext|>{blank}<|endoftext|>b"), 2),
            (format!("a<|endoftext|>{blank}c<|endoftext|>b"), 3),
            (format!("{}a{}\n<|endoftext|>b", "\n".repeat(3 << 20), "\n".repeat(3 << 20)), 2),
            (" ".repeat(LONGEST_CHUNK_BYTES + 9), 1),
        ] {
            let [anywhere, between] = [Cuts::Anywhere, Cuts::BetweenWords].map(|cuts| chunks(cuts, &text, 100_000));
            assert_eq!(documents(&anywhere).len(), expected);
            assert_eq!(documents(&between).len(), expected);
        }
    }

    /// GPT-2's way of cutting words, with merges that show where it cuts white space.
    fn gpt2_like() -> Tokenizer {
        let mut json: serde_json::Value = serde_json::from_str(&qwen2_like().to_json()).unwrap();
        json["pre_tokenizer"] = serde_json::json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        });
        Tokenizer::from_json(&json.to_string()).unwrap()
    }

    /// Trained on text in which all kinds of neighbours are frequent enough to be merged.
    fn qwen2_like() -> Tokenizer {
        let text = "it's  it's\n\n 12.\n\n  \n.\r\n\r\n.\n!! \n\n\nI'll\ta\u{a0}好。\n\n";
        Tokenizer::train_bpe(340, std::iter::repeat_n(text.to_owned(), 20)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_have_the_tokens_of_the_whole(text in "[it'sI.!12好。\u{a0}\t\r\n\n  ]{2,16}") {
            static TOKENIZERS: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| [qwen2_like(), gpt2_like()]);
            for place in (1..text.len()).filter(|&place| is_safe(&text, place)) {
                for tokenizer in &*TOKENIZERS {
                    let mut ids = tokenizer.encode(&text[..place]).unwrap();
                    ids.extend(tokenizer.encode(&text[place..]).unwrap());
                    prop_assert_eq!(ids, tokenizer.encode(&text).unwrap(), "{:?} at {}", text, place);
                }
            }
        }
    }
}

//! Reads files as a stream of documents, in pieces of about a megabyte, so that memory does not grow with the text.
//!
//! **Where a document is cut.** Tokenizing the pieces must give the tokens of the whole. A byte-level BPE splits text by
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
//! A character tokenizer may be cut anywhere. With other tokenizers (`SentencePiece`) a token may differ at a cut, once a
//! megabyte.

use std::collections::VecDeque;
use std::io::{BufRead, Read};

use minillm_model::tokenizer::END_OF_TEXT;
use serde::Deserialize;

use super::Progress;
use super::source::{Format, Text, TextFile};
use crate::error::{Error, Result};

/// Pieces are at most this long if there is a safe place before.
const PIECE_BYTES: usize = 1 << 20;
/// Longest stretch without a safe place. Tokenizers need a hundred times a piece's size, so this is what bounds memory.
const MAX_PIECE_BYTES: usize = 16 << 20;
/// Longest line of a `.jsonl` file.
const MAX_LINE_BYTES: usize = 128 << 20;

/// A stretch of one document, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text, with its line ends as they are in the file (`\r\n` stays `\r\n`).
    pub text: String,
    /// Which of the text's files it is from.
    pub file: usize,
    /// Whether the document ends here.
    pub ends_document: bool,
}

/// The pieces of all documents of a text in order. After an error there are no more.
///
/// In a `.txt` file, `<|endoftext|>` separates documents and line ends on either side of it belong to the separator.
/// In a `.jsonl` file, every line is a document (or several, if its text contains that separator). A document of
/// white space alone is skipped, as is a byte order mark at a file's start.
pub struct Documents<'a> {
    text: &'a Text,
    progress: &'a dyn Progress,
    next_file: usize,
    file: Option<OpenFile<'a>>,
    cutter: Cutter,
}

/// The file that is being read.
struct OpenFile<'a> {
    text_file: &'a TextFile,
    reader: Box<dyn BufRead + Send + 'a>,
    /// Bytes read but not used yet: a cut character, or a line.
    bytes: Vec<u8>,
    /// Lines read so far.
    lines: u64,
    /// Whether nothing was used yet, so that a byte order mark may stand here.
    at_start: bool,
}

impl<'a> Documents<'a> {
    /// Nothing is opened before the first [`Iterator::next`].
    pub fn new(text: &'a Text, progress: &'a dyn Progress) -> Self {
        Self { text, progress, next_file: 0, file: None, cutter: Cutter::default() }
    }

    /// Reads on. `false` when all files are read.
    fn advance(&mut self) -> Result<bool> {
        let Some(file) = &mut self.file else {
            let Some(text_file) = self.text.files.get(self.next_file) else {
                return Ok(false);
            };
            let reader = text_file.open(self.progress)?;
            self.cutter.file = self.next_file;
            self.next_file += 1;
            self.file = Some(OpenFile { text_file, reader, bytes: Vec::new(), lines: 0, at_start: true });
            return Ok(true);
        };
        let more = match file.text_file.format {
            Format::Plain => file.read_plain(&mut self.cutter)?,
            Format::JsonLines => file.read_line(&mut self.cutter)?,
        };
        if !more {
            self.file = None;
        }
        Ok(true)
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(piece) = self.cutter.ready.pop_front() {
                return Some(Ok(piece));
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.file = None;
                    self.next_file = self.text.files.len();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl OpenFile<'_> {
    /// Passes on the next stretch of a plain file. `false` at its end.
    fn read_plain(&mut self, cutter: &mut Cutter) -> Result<bool> {
        let read = self.reader.fill_buf().map_err(|error| unreadable(self.text_file, &error))?;
        let (length, last) = (read.len(), read.is_empty());
        self.bytes.extend_from_slice(read);
        self.reader.consume(length);
        let valid = match std::str::from_utf8(&self.bytes) {
            Ok(_) => self.bytes.len(),
            // A character may be cut by the end of the buffer, but not by the end of the file.
            Err(error) if error.error_len().is_none() && !last => error.valid_up_to(),
            Err(error) => return Err(self.not_utf8(error.valid_up_to())),
        };
        let text = std::str::from_utf8(&self.bytes[..valid]).unwrap_or_default(); // checked just above
        self.lines += text.matches('\n').count() as u64;
        let pushed = cutter.push(self.at_start.then(|| text.strip_prefix('\u{feff}')).flatten().unwrap_or(text));
        self.at_start &= valid == 0;
        self.bytes.drain(..valid);
        pushed.map_err(|TooLong| self.too_long())?;
        if last {
            cutter.end_document();
        }
        Ok(!last)
    }

    /// Passes on the document of the next line. `false` at the file's end.
    fn read_line(&mut self, cutter: &mut Cutter) -> Result<bool> {
        #[derive(Deserialize)]
        struct Line {
            text: String,
        }
        self.bytes.clear();
        let mut line = (&mut self.reader).take(MAX_LINE_BYTES as u64);
        line.read_until(b'\n', &mut self.bytes).map_err(|error| unreadable(self.text_file, &error))?;
        if self.bytes.is_empty() {
            return Ok(false);
        }
        if self.bytes.len() == MAX_LINE_BYTES && !self.bytes.ends_with(b"\n") {
            return Err(self.problem(
                format!("line {} is longer than {} MiB", self.lines + 1, MAX_LINE_BYTES >> 20),
                "spread its text over several lines, each an object of its own",
            ));
        }
        let json = match std::str::from_utf8(&self.bytes) {
            Ok(json) => json,
            Err(error) => return Err(self.not_utf8(error.valid_up_to())),
        };
        let json = self.at_start.then(|| json.strip_prefix('\u{feff}')).flatten().unwrap_or(json);
        self.at_start = false;
        if !json.trim().is_empty() {
            let malformed = |problem: String| {
                let hint = "every line must be one JSON object with the text in the field `text`";
                self.problem(format!("line {}: {problem}", self.lines + 1), hint)
            };
            // serde would take an array for the object's fields in order.
            if !json.trim_start().starts_with('{') {
                return Err(malformed("is not an object".to_owned()));
            }
            let line: Line = serde_json::from_str(json).map_err(|error| malformed(error.to_string()))?;
            cutter.push(&line.text).map_err(|TooLong| self.too_long())?;
            cutter.end_document();
        }
        self.lines += 1;
        Ok(true)
    }

    fn problem(&self, problem: String, hint: &str) -> Error {
        Error::Data { path: self.text_file.path.clone(), problem, hint: hint.into() }
    }

    fn not_utf8(&self, valid: usize) -> Error {
        let line = self.lines + self.bytes[..valid].split(|&byte| byte == b'\n').count() as u64;
        let byte = self.bytes.get(valid).copied().unwrap_or_default();
        self.problem(
            format!("line {line} is not UTF-8: there is a byte 0x{byte:02x} where no character may begin"),
            "convert the file, for example with `iconv -f latin1 -t utf-8`",
        )
    }

    fn too_long(&self) -> Error {
        self.problem(
            format!(
                "there are {} MiB without a space or a line end before line {}",
                MAX_PIECE_BYTES >> 20,
                self.lines + 1
            ),
            "break the text into lines",
        )
    }
}

fn unreadable(file: &TextFile, error: &std::io::Error) -> Error {
    Error::Data {
        path: file.path.clone(),
        problem: format!("cannot be read to its end: {error}"),
        hint: "see that the file is complete; fetch or compress it again".into(),
    }
}

/// There is no safe place within [`MAX_PIECE_BYTES`].
#[derive(Debug)]
struct TooLong;

/// Finds the separators and the safe places in a stream of text.
#[derive(Default)]
struct Cutter {
    /// Text that no piece holds yet.
    pending: String,
    /// Bytes of `pending` known to hold no complete separator.
    searched: usize,
    /// Whether a piece of the current document has been given out.
    started: bool,
    /// Whether line ends are to be skipped because only a separator stands before them.
    after_separator: bool,
    /// Number of the current file, to mark pieces with.
    file: usize,
    ready: VecDeque<Piece>,
}

impl Cutter {
    /// Takes in more of the current document.
    fn push(&mut self, text: &str) -> Result<(), TooLong> {
        self.pending.push_str(text);
        let pending = std::mem::take(&mut self.pending);
        let mut start = 0; // of what is not given out yet
        // Step back, as a separator may have been completed just now.
        let mut search = pending.floor_char_boundary(self.searched.saturating_sub(END_OF_TEXT.len()));
        loop {
            start += self.skip_line_ends(&pending[start..]);
            search = search.max(start);
            let separator = pending[search..].find(END_OF_TEXT).map(|offset| search + offset);
            self.cut(&pending, &mut start, separator.unwrap_or(pending.len()))?;
            let Some(end) = separator else { break };
            self.finish(pending[start..end].trim_end_matches(['\n', '\r']));
            self.after_separator = true;
            start = end + END_OF_TEXT.len();
            search = start;
        }
        self.pending = pending;
        self.pending.drain(..start);
        self.searched = self.pending.len();
        Ok(())
    }

    /// Gives out pieces of `text[start..end]` while it is too long for one.
    fn cut(&mut self, text: &str, start: &mut usize, end: usize) -> Result<(), TooLong> {
        while end - *start >= PIECE_BYTES {
            match safe_place(&text[*start..end]) {
                Some(length) => {
                    self.give_out(&text[*start..*start + length], false);
                    *start += length;
                }
                None if end - *start >= MAX_PIECE_BYTES => return Err(TooLong),
                None => break, // more text may bring one
            }
        }
        Ok(())
    }

    /// The current document, or the current file, ends here.
    fn end_document(&mut self) {
        let rest = std::mem::take(&mut self.pending);
        self.finish(&rest);
        self.searched = 0;
        self.after_separator = false;
    }

    fn finish(&mut self, rest: &str) {
        if self.started || !rest.trim().is_empty() {
            self.give_out(rest, true);
        }
        self.started = false;
    }

    fn give_out(&mut self, text: &str, ends_document: bool) {
        self.ready.push_back(Piece { text: text.to_owned(), file: self.file, ends_document });
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

/// The last safe place (see the top of this file) in the first [`PIECE_BYTES`] of a longer text, else the first after
/// them within [`MAX_PIECE_BYTES`].
fn safe_place(text: &str) -> Option<usize> {
    let middle = PIECE_BYTES.min(text.len());
    let end = MAX_PIECE_BYTES.min(text.len());
    (1..middle).rev().chain(middle..end).find(|&place| is_safe(text, place))
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use minillm_model::tokenizer::Tokenizer;
    use proptest::prelude::*;

    use super::*;
    use crate::data::Silent;

    fn read(files: &[(&str, &[u8])]) -> Result<Vec<Piece>> {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = files.iter().map(|(name, _)| dir.path().join(name)).collect();
        for (path, (_, content)) in paths.iter().zip(files) {
            fs_err::write(path, content).unwrap();
        }
        let text = Text::new(&paths, &Silent).unwrap();
        Documents::new(&text, &Silent).collect()
    }

    /// Whole documents.
    fn documents(files: &[(&str, &[u8])]) -> Vec<String> {
        let mut documents = vec![String::new()];
        for piece in read(files).unwrap() {
            *documents.last_mut().unwrap() += &piece.text;
            if piece.ends_document {
                documents.push(String::new());
            }
        }
        assert_eq!(documents.pop().as_deref(), Some(""), "the last document ends");
        documents
    }

    #[test]
    fn separators_take_the_line_ends_around_them() {
        let text = b"\n a\n\n<|endoftext|>\n\nb\r\n<|endoftext|>\r\nc \n";
        assert_eq!(documents(&[("a.txt", text)]), ["\n a", "b", "c \n"]);
        assert_eq!(documents(&[("a.txt", b"<|endoftext|>a<|endoftext|> \n<|endoftext|>\n")]), ["a"]);
        assert_eq!(documents(&[("a.txt", b"a\r\nb\n<|endoftext")]), ["a\r\nb\n<|endoftext"]);
        assert_eq!(documents(&[("a.txt", b"a"), ("b.txt", b" \n"), ("c.txt", b"\nb")]), ["a", "\nb"]);
        assert_eq!(documents(&[("a.txt", "\u{feff}a".as_bytes())]), ["a"]);
    }

    #[test]
    fn separators_are_found_wherever_the_reading_stops() {
        let text = "a\r\n<|endoftext|>\n\nb <|endoftext|>\n<|endoftext|>c<|endoftext";
        for step in 1..20 {
            let mut cutter = Cutter::default();
            text.as_bytes().chunks(step).for_each(|part| cutter.push(std::str::from_utf8(part).unwrap()).unwrap());
            cutter.end_document();
            let pieces: Vec<_> = cutter.ready.iter().map(|piece| piece.text.as_str()).collect();
            assert_eq!(pieces, ["a", "b ", "c<|endoftext"], "{step} bytes at a time");
        }
    }

    #[test]
    fn a_json_line_is_a_document() {
        let lines = br#"{"id": 1, "text": "a\nb\n"}

{"text": ""}
{"text": "c\n<|endoftext|>\nd"}
{"text": "e"}"#;
        assert_eq!(documents(&[("a.jsonl", lines)]), ["a\nb\n", "c", "d", "e"]);
    }

    #[test]
    fn problems_name_file_and_line() {
        let bad: [(&str, &[u8], &str); 6] = [
            ("a.txt", b"one\ntwo \xff\n", "line 2 is not UTF-8: there is a byte 0xff"),
            ("a.txt", b"one\ncut \xc3", "line 2 is not UTF-8"),
            ("a.jsonl", b"{\"text\": \"a\"}\n{\"txt\": \"a\"}", "line 2: missing field `text`"),
            ("a.jsonl", b"\n\n{\"text\": 3}", "line 3: invalid type"),
            ("a.jsonl", b"plain text", "line 1: "),
            ("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xe4\"}", "line 2 is not UTF-8"),
        ];
        for (name, content, expected) in bad {
            let error = read(&[(name, content)]).unwrap_err();
            assert!(error.to_string().contains(name) && error.to_string().contains(expected), "{error}");
            assert!(error.hint().is_some());
        }
        let error = read(&[("a.txt", &vec![b'a'; MAX_PIECE_BYTES + 1])]).unwrap_err();
        assert!(error.to_string().contains("without a space"), "{error}");
    }

    #[test]
    fn long_documents_come_in_pieces_that_join_to_the_whole() {
        // Separators fall on every position relative to buffers and pieces; characters are of one to four bytes.
        let document = |i: usize| format!("Dokument {i}: {}\nend.", "ä🦀 x\n\n y. ".repeat(i * 29_989 % 200_003));
        let expected: Vec<String> = (0..12).map(document).collect();
        let text = expected.join("\n<|endoftext|>\n");
        let pieces = read(&[("a.txt", text.as_bytes())]).unwrap();
        assert!(pieces.len() > 12 && pieces.iter().all(|piece| (1..=PIECE_BYTES).contains(&piece.text.len())));
        assert!(documents(&[("a.txt", text.as_bytes())]) == expected);
        let lines: Vec<_> = expected.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
        assert!(documents(&[("a.jsonl", lines.join("\n").as_bytes())]) == expected);
    }

    #[test]
    fn safe_places() {
        let places = |text: &str| (1..text.len()).filter(|&place| is_safe(text, place)).collect::<Vec<_>>();
        assert_eq!(places("ab cd  e"), [2, 5]);
        assert_eq!(places("a\nb\n\nc\r\nd\n e"), [2]);
        assert!(places("x.\n<|").is_empty());
        assert_eq!(places("。\n好 好"), [4, 7]);
    }

    /// GPT-2's way of cutting words, with merges that show where it cuts white space.
    fn gpt2_like(dir: &std::path::Path) -> Tokenizer {
        let mut json: serde_json::Value = serde_json::from_str(&qwen2_like().to_json()).unwrap();
        json["pre_tokenizer"] = serde_json::json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        });
        let path = dir.join("tokenizer.json");
        fs_err::write(&path, json.to_string()).unwrap();
        Tokenizer::from_file(&path).unwrap()
    }

    /// Trained on text in which all kinds of neighbours are frequent enough to be merged.
    fn qwen2_like() -> Tokenizer {
        let text = "it's  it's\n\n 12.\n\n  \n.\r\n\r\n.\n!! \n\n\nI'll\ta\u{a0}好。\n\n";
        Tokenizer::train_bpe(340, std::iter::repeat_n(text.to_owned(), 20)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_have_the_tokens_of_the_whole(text in "[it'sI.!12好。\u{a0}\t\r\n\n  ]{2,16}") {
            static TOKENIZERS: LazyLock<[Tokenizer; 2]> =
                LazyLock::new(|| [qwen2_like(), gpt2_like(tempfile::tempdir().unwrap().path())]);
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

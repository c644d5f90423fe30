//! Reads files as a stream of documents, in chunks of about a megabyte, so that memory does not grow with the text.

use std::io::{BufRead, Read};

use super::encoding::{self, Problem};
use super::json_line::{JsonText, text_of};
use super::splitter::{Cuts, LONGEST_CHUNK_BYTES, Splitter, TextChunk};
use super::{Format, Progress, TextFile};
use crate::error::{Error, Result};

/// Longest line of a `.jsonl` file.
const MAX_LINE_BYTES: usize = 128 << 20;

/// The chunks of all documents of some files in order. After an error there are no more.
///
/// In a `.txt` file, `<|endoftext|>` separates documents and line ends on either side of it belong to the separator.
/// In a `.jsonl` file, every line is a document (or several, if its text contains that separator). A document of
/// white space alone is skipped, as is a byte order mark at a file's start.
pub struct Documents<'a> {
    files: &'a [TextFile],
    progress: &'a dyn Progress,
    next_file: usize,
    file: Option<OpenFile<'a>>,
    splitter: Splitter,
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
    /// Long documents are cut where `cuts` allows. Nothing is opened before the first [`Iterator::next`].
    pub fn new(files: &'a [TextFile], cuts: Cuts, progress: &'a dyn Progress) -> Self {
        Self { files, progress, next_file: 0, file: None, splitter: Splitter::new(cuts) }
    }

    /// The documents whole, for texts that fit into memory.
    pub fn whole(files: &'a [TextFile], progress: &'a dyn Progress) -> impl Iterator<Item = Result<String>> {
        let mut chunks = Self::new(files, Cuts::Anywhere, progress);
        std::iter::from_fn(move || {
            let mut document = String::new();
            loop {
                match chunks.next()? {
                    Ok(chunk) => {
                        document += &chunk.text;
                        if chunk.ends_document {
                            return Some(Ok(document));
                        }
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// Reads on. `false` when all files are read.
    fn advance(&mut self) -> Result<bool> {
        let Some(file) = &mut self.file else {
            let Some(text_file) = self.files.get(self.next_file) else {
                return Ok(false);
            };
            let reader = text_file.open(self.progress)?;
            self.splitter.begin_file(self.next_file);
            self.next_file += 1;
            let mut file = OpenFile { text_file, reader, bytes: Vec::new(), lines: 0, at_start: true };
            file.refuse_what_is_no_text()?;
            self.file = Some(file);
            return Ok(true);
        };
        let more = match file.text_file.format {
            Format::Plain => file.read_plain(&mut self.splitter)?,
            Format::JsonLines => file.read_line(&mut self.splitter)?,
        };
        if !more {
            self.file = None;
        }
        Ok(true)
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<TextChunk>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(chunk) = self.splitter.next_chunk() {
                return Some(Ok(chunk));
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.file = None;
                    self.next_file = self.files.len();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl OpenFile<'_> {
    /// Looks at the first bytes before anything is taken for text.
    fn refuse_what_is_no_text(&mut self) -> Result<()> {
        let start = self.reader.fill_buf().map_err(|error| unreadable(self.text_file, &error))?;
        match encoding::not_text(start) {
            Some(Problem { problem, hint }) => Err(self.problem(problem, &hint)),
            None => Ok(()),
        }
    }

    /// Passes on the next stretch of a plain file. `false` at its end.
    fn read_plain(&mut self, splitter: &mut Splitter) -> Result<bool> {
        let read = self.reader.fill_buf().map_err(|error| unreadable(self.text_file, &error))?;
        let (length, last) = (read.len(), read.is_empty());
        self.bytes.extend_from_slice(read);
        self.reader.consume(length);
        let valid = match std::str::from_utf8(&self.bytes) {
            Ok(_) => self.bytes.len(),
            // A character may be cut by the end of the buffer, but not by the end of the file.
            Err(error) if error.error_len().is_none() && !last => error.valid_up_to(),
            Err(error) => return Err(self.not_utf8(error.valid_up_to(), last)),
        };
        let text = std::str::from_utf8(&self.bytes[..valid]).unwrap_or_default(); // checked just above
        let without_mark = self.at_start.then(|| text.strip_prefix('\u{feff}')).flatten().unwrap_or(text);
        self.pass_on(without_mark, splitter);
        self.lines += text.matches('\n').count() as u64;
        self.at_start &= valid == 0;
        self.bytes.drain(..valid);
        if last {
            splitter.end_document();
        }
        Ok(!last)
    }

    /// Passes on the document of the next line. `false` at the file's end.
    fn read_line(&mut self, splitter: &mut Splitter) -> Result<bool> {
        self.bytes.clear();
        let mut line = (&mut self.reader).take(MAX_LINE_BYTES as u64);
        line.read_until(b'\n', &mut self.bytes).map_err(|error| unreadable(self.text_file, &error))?;
        if self.bytes.is_empty() {
            return Ok(false);
        }
        let is_last = !self.bytes.ends_with(b"\n");
        if self.bytes.len() == MAX_LINE_BYTES && is_last {
            return Err(self.problem(
                format!("line {} is longer than {} MiB", self.lines + 1, MAX_LINE_BYTES >> 20),
                "spread its text over several lines, each an object of its own",
            ));
        }
        let json = match std::str::from_utf8(&self.bytes) {
            Ok(json) => json,
            Err(error) => return Err(self.not_utf8(error.valid_up_to(), is_last)),
        };
        let json = self.at_start.then(|| json.strip_prefix('\u{feff}')).flatten().unwrap_or(json).trim();
        self.at_start = false;
        if !json.is_empty() {
            let JsonText { text, replaced_surrogate } =
                text_of(json).map_err(|problem| self.malformed(json, &problem))?;
            if replaced_surrogate {
                self.text_file.warned.surrogate.call_once(|| {
                    let (path, line) = (self.text_file.path.display(), self.lines + 1);
                    tracing::warn!("`{path}`: line {line} holds half of a surrogate pair, which is read as U+FFFD");
                });
            }
            self.pass_on(&text, splitter);
            splitter.end_document();
        }
        self.lines += 1;
        Ok(true)
    }

    /// Hands `text` to `splitter`, and says what is odd about it.
    fn pass_on(&self, text: &str, splitter: &mut Splitter) {
        let path = self.text_file.path.display();
        if let Some(place) = text.find('\0') {
            self.text_file.warned.nul.call_once(|| {
                let line = match self.text_file.format {
                    Format::Plain => self.lines + 1 + text[..place].matches('\n').count() as u64,
                    Format::JsonLines => self.lines + 1,
                };
                tracing::warn!("`{path}`: line {line} holds a NUL character, which is read as one of the text");
            });
        }
        splitter.push(text);
        if splitter.has_cut_a_run() {
            self.text_file.warned.long_run.call_once(|| {
                let size = LONGEST_CHUNK_BYTES >> 20;
                tracing::warn!(
                    "`{path}`: there are {size} MiB without a space or a line end to cut at; a token may differ there, once a \
                     megabyte"
                );
            });
        }
    }

    fn problem(&self, problem: String, hint: &str) -> Error {
        Error::Text { path: self.text_file.path.clone(), problem, hint: hint.into() }
    }

    fn malformed(&self, json: &str, problem: &str) -> Error {
        let hint = if json.starts_with('[') {
            "every line must be one JSON object with the text in the field `text`: `jq -c '.[]'` makes lines of a list"
        } else {
            "every line must be one JSON object with the text in the field `text`"
        };
        self.problem(format!("line {}: {problem}", self.lines + 1), hint)
    }

    fn not_utf8(&self, valid: usize, is_end: bool) -> Error {
        let line = self.lines + self.bytes[..valid].split(|&byte| byte == b'\n').count() as u64;
        let Problem { problem, hint } = encoding::not_utf8(&self.bytes, valid, is_end);
        self.problem(format!("line {line} is not UTF-8: {problem}"), &hint)
    }
}

fn unreadable(file: &TextFile, error: &std::io::Error) -> Error {
    Error::Text {
        path: file.path.clone(),
        problem: format!("cannot be read to its end: {error}"),
        hint: "see that the file is complete; fetch or compress it again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_files::Silent;

    fn read(files: &[(&str, &[u8])]) -> Result<Vec<TextChunk>> {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> = (files.iter())
            .map(|(name, content)| {
                fs_err::write(dir.path().join(name), content).unwrap();
                TextFile::new(&dir.path().join(name)).unwrap()
            })
            .collect();
        let whole: Result<Vec<String>> = Documents::whole(&files, &Silent).collect();
        let chunks: Result<Vec<TextChunk>> = Documents::new(&files, Cuts::BetweenWords, &Silent).collect();
        assert_eq!(whole.ok(), chunks.as_ref().ok().map(|chunks| joined(chunks)));
        chunks
    }

    fn joined(chunks: &[TextChunk]) -> Vec<String> {
        let mut documents = vec![String::new()];
        for chunk in chunks {
            *documents.last_mut().unwrap() += &chunk.text;
            documents.extend(chunk.ends_document.then(String::new));
        }
        assert_eq!(documents.pop().as_deref(), Some(""), "the last document ends");
        documents
    }

    /// Whole documents.
    fn documents(files: &[(&str, &[u8])]) -> Vec<String> {
        joined(&read(files).unwrap())
    }

    #[test]
    fn separators_take_the_line_ends_around_them() {
        let text = b"\n a\n\n<|endoftext|>\n\nb\r\n<|endoftext|>\r\nc \n";
        assert_eq!(documents(&[("a.txt", text)]), ["\n a", "b", "c \n"]);
        assert_eq!(documents(&[("a.txt", b"<|endoftext|>a<|endoftext|> \n<|endoftext|>\n")]), ["a"]);
        assert_eq!(documents(&[("a.txt", b"a\r\nb\n<|endoftext")]), ["a\r\nb\n<|endoftext"]);
        assert_eq!(documents(&[("a.txt", b"a"), ("b.txt", b" \n"), ("c.txt", b"\nb")]), ["a", "\nb"]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_in_each_file() {
        let (text, line) = ("\u{feff}a", "\u{feff}{\"text\": \"b\"}\n{\"text\": \"\u{feff}c\"}");
        let files = [("a.txt", text.as_bytes()), ("b.jsonl", line.as_bytes()), ("c.txt", "\u{feff}".as_bytes())];
        assert_eq!(documents(&files), ["a", "b", "\u{feff}c"]);
    }

    #[test]
    fn a_json_line_is_a_document() {
        let lines = br#"{"id": 1, "text": "a\nb\n"}

{"text": ""}
{"score": NaN, "text": "c\n<|endoftext|>\nd"}
{"text": "e\ud83d"}"#;
        assert_eq!(documents(&[("a.jsonl", lines)]), ["a\nb\n", "c", "d", "e\u{fffd}"]);
    }

    #[test]
    fn problems_name_file_and_line_once() {
        let bad: [(&str, &[u8], &str); 12] = [
            ("a.txt", b"one\ntwo \xff\n", "line 2 is not UTF-8: there is a byte 0xff"),
            ("a.txt", b"one\ncut \xc3", "line 2 is not UTF-8: the file ends within a character"),
            ("a.txt", b"\xff\xfea\0b\0", "a.txt`: is UTF-16 text, not UTF-8"),
            ("a.txt", b"a\0b\0c\0\n\0", "a.txt`: is UTF-16LE text, not UTF-8"),
            ("a.jsonl", b"\0{\0\"", "a.jsonl`: is UTF-16BE text, not UTF-8"),
            ("a.jsonl", b"{\"text\": \"a\"}\n{\"txt\": \"a\"}", "line 2: missing field `text`: it has `txt`"),
            ("a.jsonl", b"\n\n{\"text\": 3}", "line 3: `text` is the number 3"),
            ("a.jsonl", b"\n{\"text\": null}\n", "line 2: `text` is null, not a string"),
            ("a.jsonl", b"plain text", "line 1: is not an object"),
            ("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xe4\"}", "line 2 is not UTF-8"),
            ("a.jsonl", b"{\"text\": \"a\"\n", "line 1: EOF while parsing an object at column 12"),
            ("a.txt.gz", b"plain text", "it is not compressed with gzip, as its name says"),
        ];
        for (name, content, expected) in bad {
            let error = read(&[(name, content)]).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(name) && message.contains(expected), "{message}");
            assert!(message.matches("line ").count() <= 1, "{message}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_run_without_spaces_is_no_error() {
        let run = vec![b'a'; LONGEST_CHUNK_BYTES + 1];
        assert_eq!(documents(&[("a.txt", &run)])[0].len(), run.len());
    }

    #[test]
    fn long_documents_come_in_chunks_that_join_to_the_whole() {
        // Separators fall on every position relative to buffers and chunks; characters are of one to four bytes.
        let document = |i: usize| format!("Dokument {i}: {}\nend.", "ä🦀 x\n\n y. ".repeat(i * 29_989 % 200_003));
        let expected: Vec<String> = (0..12).map(document).collect();
        let text = expected.join("\n<|endoftext|>\n");
        let chunks = read(&[("a.txt", text.as_bytes())]).unwrap();
        assert!(chunks.len() > 12 && chunks.iter().all(|chunk| (1..=1 << 20).contains(&chunk.text.len())));
        assert!(documents(&[("a.txt", text.as_bytes())]) == expected);
        let lines: Vec<_> = expected.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
        assert!(documents(&[("a.jsonl", lines.join("\n").as_bytes())]) == expected);
    }
}

//! Text as files hold it: how they are compressed, how they are encoded, and the documents in them.
//!
//! Training, `minillm-train tokenizer` and `minillm-infer score` read every text through [`Documents`], and so all of them
//! see the same characters:
//!
//! | in the file | in the text |
//! |---|---|
//! | gzip or zstd (`.gz`, `.zst`), in any number of members or frames | decompressed; padding is skipped |
//! | a byte order mark at the start | skipped |
//! | `<\|endoftext\|>`, with the line ends around it | the end of a document |
//! | a line of a `.jsonl` file | the document in its field `text` |
//! | UTF-16, UTF-32, compressed data under another name, bytes that are not UTF-8 | an error that names what it is |

mod compression;
mod documents;
mod encoding;
mod json_line;
mod splitter;

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Once;

use fs_err::File;

use crate::error::{Error, Result};
use compression::{GzipMembers, ZstdFrames};
pub use documents::Documents;
pub use encoding::wide_encoding;
pub use splitter::{Cuts, TextChunk};

/// Read at a time while decompressing and decoding.
const BUFFER_BYTES: usize = 1 << 20;

/// Is told how far the long parts of reading are. Called from one thread at a time.
pub trait Progress: Send + Sync {
    /// Something begins that will take `total` bytes, or 0 if that is not known.
    fn start(&self, what: &str, total: u64);
    /// `n` more bytes are done.
    fn advance(&self, n: u64);
    /// It is done.
    fn finish(&self);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _what: &str, _total: u64) {}
    fn advance(&self, _n: u64) {}
    fn finish(&self) {}
}

/// How documents are marked in a file, from its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.txt`: documents are separated by `<|endoftext|>`.
    Plain,
    /// `.jsonl`: one JSON object a line, its field `text` is a document.
    JsonLines,
}

/// How a file's bytes are compressed, from its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

/// One file of text.
#[derive(Debug)]
pub struct TextFile {
    /// As given by the user, or in the cache.
    pub path: PathBuf,
    /// The way in which it marks its documents.
    pub format: Format,
    /// The compression of the file.
    pub compression: Compression,
    warned: Warned,
}

/// What was said about a file already: a text is read more than once.
#[derive(Debug)]
struct Warned {
    nul: Once,
    long_run: Once,
    surrogate: Once,
}

impl TextFile {
    /// A file of training text, which must end in `.txt` or `.jsonl`, with `.gz` or `.zst` behind if it is compressed.
    pub fn new(path: &Path) -> Result<Self> {
        match kind_of(path) {
            (Some(format), compression) => Ok(Self::of_kind(path, format, compression)),
            (None, _) => Err(Error::Text {
                path: path.to_path_buf(),
                problem: "does not end in .txt or .jsonl, nor in one of these with .gz or .zst behind".to_owned(),
                hint: "rename it: .txt for plain text, .jsonl for one JSON object with `text` a line".to_owned(),
            }),
        }
    }

    /// The same for a file of any name, which is plain text unless its ending says otherwise.
    pub fn of_any_name(path: &Path) -> Self {
        let (format, compression) = kind_of(path);
        Self::of_kind(path, format.unwrap_or(Format::Plain), compression)
    }

    fn of_kind(path: &Path, format: Format, compression: Compression) -> Self {
        let warned = Warned { nul: Once::new(), long_run: Once::new(), surrogate: Once::new() };
        Self { path: path.to_path_buf(), format, compression, warned }
    }

    /// Opens the file for reading its bytes as they are stored.
    pub fn open_stored(&self) -> Result<File> {
        File::open(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Text {
                path: self.path.clone(),
                problem: "does not exist".to_owned(),
                hint: "correct the path; a relative one starts at the current directory".to_owned(),
            },
            _ => Error::Io { action: "read", what: "the text", source: error },
        })
    }

    /// Opens the file for reading its text. What is read from disk, compressed, counts as progress.
    pub fn open<'a>(&self, progress: &'a dyn Progress) -> Result<Box<dyn BufRead + Send + 'a>> {
        let file = BufReader::with_capacity(BUFFER_BYTES, Counted::new(self.open_stored()?, progress));
        Ok(match self.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, GzipMembers::new(file))),
            Compression::Zstd => Box::new(BufReader::with_capacity(BUFFER_BYTES, ZstdFrames::new(file))),
        })
    }
}

/// Whether the file's name says what is in it.
pub fn has_known_ending(path: &Path) -> bool {
    kind_of(path).0.is_some()
}

/// What the endings of a file's name say about its content.
fn kind_of(path: &Path) -> (Option<Format>, Compression) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, compression) = if let Some(name) = name.strip_suffix(".gz") {
        (name, Compression::Gzip)
    } else if let Some(name) = name.strip_suffix(".zst") {
        (name, Compression::Zstd)
    } else {
        (name.as_str(), Compression::None)
    };
    let format = match Path::new(name).extension().and_then(|ending| ending.to_str()) {
        Some("txt") => Some(Format::Plain),
        Some("jsonl") => Some(Format::JsonLines),
        _ => None,
    };
    (format, compression)
}

/// Tells `progress` what is read.
pub struct Counted<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
}

impl<'a, R> Counted<'a, R> {
    /// Reads from `inner`.
    pub fn new(inner: R, progress: &'a dyn Progress) -> Self {
        Self { inner, progress }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.progress.advance(n as u64);
        Ok(n)
    }
}

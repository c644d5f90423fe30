//! Token ids on disk: written once as a stream, then mapped into memory, where any of them is at hand without loading.
//!
//! | bytes | field (all little endian) |
//! |---|---|
//! | 8 | magic `MINITOKS` |
//! | 4 | version, 1 |
//! | 4 | width of a token in bytes: 2 where every id of the vocabulary fits, else 4 |
//! | 32 | fingerprint of the text |
//! | 32 | SHA-256 of the tokenizer's fingerprint |
//! | 8 | `validation_fraction`, f64 |
//! | 4 | part: 0 training, 1 validation |
//! | 4 | UTF-8 bytes that the first token stands for |
//! | 8 | tokens, N |
//! | 8 | documents in this part, M |
//! | 8 | documents in the whole text |
//! | 8 | UTF-8 bytes of this part's text |
//! | 4 | CRC-32C of the payload |
//! | 4 | CRC-32C of all bytes above |
//! | N * width | payload: the ids |
//! | M * 8 | payload: where each document starts, counted in tokens |
//!
//! Opening verifies the header, the file's length, the order of the documents, and for files under 64 MiB the whole
//! payload. The ids of a larger file carry a checksum too, but are not read through on every start. So each id is compared
//! with the vocabulary when it is read: a damaged one would lie beyond the embedding, or become a negative number, and -1
//! means a target that is not scored.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use fs_err::File;
use memmap2::Mmap;
use tempfile::NamedTempFile;

use super::source::hex;
use super::split::Part;
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"MINITOKS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 136;
/// Payloads up to this size are verified whenever they are opened.
const VERIFIED_BYTES: usize = 64 << 20;

/// What a token file was made from. A file with another identity is not the one looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Identity {
    /// Fingerprint of the text.
    pub text: [u8; 32],
    /// SHA-256 of the tokenizer's fingerprint.
    pub tokenizer: [u8; 32],
    /// `data.validation_fraction`.
    pub validation_fraction: f64,
    /// Which part of the text.
    pub part: Part,
}

impl Identity {
    /// Where the file of this identity is stored in `dir`.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!(
            "{}-{}-{}-{}.tokens",
            hex(&self.text[..8]),
            hex(&self.tokenizer[..8]),
            self.validation_fraction,
            self.part.name()
        ))
    }
}

/// What is counted while writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Token ids, end-of-text included.
    pub tokens: u64,
    /// Documents in this part.
    pub documents: u64,
    /// Documents in the whole text. With more than one, each ends with end-of-text (if the tokenizer has it).
    pub text_documents: u64,
    /// UTF-8 bytes of this part's text, separators excluded.
    pub text_bytes: u64,
    /// UTF-8 bytes that the first token stands for.
    pub first_token_bytes: u32,
}

/// A token file, mapped.
#[derive(Debug)]
pub struct TokenFile {
    map: Mmap,
    path: PathBuf,
    width: usize,
    vocab_size: usize,
    /// What is in it.
    pub counts: Counts,
}

impl TokenFile {
    /// Opens and verifies a file of ids below `vocab_size`. `Err` says what is wrong with it, in words.
    pub fn open(path: &Path, identity: &Identity, vocab_size: usize) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let map = map(&file).map_err(|error| error.to_string())?;
        let header: &[u8; HEADER_BYTES] = map.first_chunk().ok_or("it is shorter than a header")?;
        let (width, counts, payload_crc) = parse_header(header, identity)?;
        let expected = (counts.tokens.checked_mul(u64::from(width)))
            .and_then(|bytes| bytes.checked_add(counts.documents.checked_mul(8)?))
            .and_then(|bytes| bytes.checked_add(HEADER_BYTES as u64));
        if expected != Some(map.len() as u64) {
            return Err(format!("it is {} bytes long, which is not what its header says", map.len()));
        }
        let payload = &map[HEADER_BYTES..];
        if payload.len() < VERIFIED_BYTES && crc32c::crc32c(payload) != payload_crc {
            return Err("its content does not match its checksum".into());
        }
        let file = Self { map, path: path.to_owned(), width: width as usize, vocab_size, counts };
        // Cheap for files of any size, and rows rely on it.
        let starts = file.document_starts().chain([file.len()]);
        let first = file.document_starts().next().unwrap_or(file.len());
        if !starts.is_sorted() || first != 0 {
            return Err("its list of documents is damaged".into());
        }
        Ok(file)
    }

    /// Number of tokens.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> u64 {
        self.counts.tokens
    }

    /// Appends the ids of `range` to `ids`, all of them tokens of the vocabulary: another is an error that names the file.
    /// Panics if the range ends after [`Self::len`].
    pub fn copy(&self, range: Range<u64>, ids: &mut Vec<i32>) -> Result<()> {
        let byte = |token: u64| HEADER_BYTES + token as usize * self.width;
        assert!(range.end <= self.len(), "token {} of {}", range.end, self.len());
        let bytes = &self.map[byte(range.start)..byte(range.end)];
        let before = ids.len();
        // A vocabulary is far below 2^31, so as a number without a sign a negative id is beyond it, too.
        if self.width == 2 {
            ids.extend(bytes.as_chunks().0.iter().map(|&token| i32::from(u16::from_le_bytes(token))));
        } else {
            ids.extend(bytes.as_chunks().0.iter().map(|&token| u32::from_le_bytes(token) as i32));
        }
        match ids[before..].iter().position(|&id| id as u32 as usize >= self.vocab_size) {
            None => Ok(()),
            Some(place) => Err(self.beyond_the_vocabulary(range.start + place as u64, ids[before + place] as u32)),
        }
    }

    fn beyond_the_vocabulary(&self, token: u64, id: u32) -> Error {
        Error::Data {
            path: self.path.clone(),
            problem: format!("is damaged: token {token} is id {id}, and the vocabulary has {} tokens", self.vocab_size),
            hint: "remove this file of the cache and start again with --resume; see that the disk is in order".into(),
        }
    }

    /// The token at which each document starts.
    pub fn document_starts(&self) -> impl Iterator<Item = u64> {
        let starts = &self.map[HEADER_BYTES + self.len() as usize * self.width..];
        starts.as_chunks().0.iter().map(|&start| u64::from_le_bytes(start))
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: mapping is unsafe because the bytes would change, or a read would fault, if someone changed or shortened
    // the file meanwhile. Token files lie in this program's own cache; it writes them under a temporary name, renames
    // them, and never opens one for writing again. Replacing one by rename or deleting it leaves a mapped file intact.
    // The bytes are only ever read as integers, for which no value is invalid.
    unsafe { Mmap::map(file.file()) }
}

fn header(width: u32, identity: &Identity, counts: &Counts, payload_crc: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(width.to_le_bytes());
    bytes.extend(identity.text);
    bytes.extend(identity.tokenizer);
    bytes.extend(identity.validation_fraction.to_le_bytes());
    bytes.extend((identity.part as u32).to_le_bytes());
    bytes.extend(counts.first_token_bytes.to_le_bytes());
    for count in [counts.tokens, counts.documents, counts.text_documents, counts.text_bytes] {
        bytes.extend(count.to_le_bytes());
    }
    bytes.extend(payload_crc.to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Width, counts and the payload's checksum.
fn parse_header(bytes: &[u8; HEADER_BYTES], identity: &Identity) -> Result<(u32, Counts, u32), String> {
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    if bytes[..8] != MAGIC || u32_at(8) != VERSION {
        return Err("it is not a token file of this version".into());
    }
    let counts = Counts {
        first_token_bytes: u32_at(92),
        tokens: u64_at(96),
        documents: u64_at(104),
        text_documents: u64_at(112),
        text_bytes: u64_at(120),
    };
    let (width, payload_crc) = (u32_at(12), u32_at(128));
    // The header has one form for given values, so building it again compares every field and the checksum.
    if bytes[..] != header(width, identity, &counts, payload_crc) {
        return Err("its header is damaged, or it belongs to another text, tokenizer or split".into());
    }
    if width != 2 && width != 4 {
        return Err(format!("its tokens are {width} bytes wide"));
    }
    Ok((width, counts, payload_crc))
}

/// Writes a token file under a temporary name; [`Self::publish`] gives it its own.
#[derive(Debug)]
pub struct TokenFileWriter {
    file: BufWriter<NamedTempFile>,
    identity: Identity,
    vocab_size: usize,
    width: u32,
    payload_crc: u32,
    starts: Vec<u64>,
    in_document: bool,
    counts: Counts,
}

impl TokenFileWriter {
    /// Starts a file in `dir`, which is created if need be.
    pub fn create(dir: &Path, identity: Identity, vocab_size: usize, text_documents: u64) -> Result<Self> {
        fs_err::create_dir_all(dir).map_err(cannot_write)?;
        let file = tempfile::Builder::new().suffix(".part").tempfile_in(dir).map_err(cannot_write)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[0; HEADER_BYTES]).map_err(cannot_write)?; // its place; the counts are known at the end
        let width = if vocab_size <= 1 << 16 { 2 } else { 4 };
        let counts = Counts { text_documents, ..Counts::default() };
        Ok(Self { file, identity, vocab_size, width, payload_crc: 0, starts: Vec::new(), in_document: false, counts })
    }

    /// Appends ids that stand for `text_bytes` of the current document.
    pub fn push(&mut self, ids: &[u32], text_bytes: usize) -> Result<()> {
        if !self.in_document {
            self.starts.push(self.counts.tokens);
            self.in_document = true;
        }
        self.counts.tokens += ids.len() as u64;
        self.counts.text_bytes += text_bytes as u64;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(Error::Model(minillm_model::error::Error::Tokenizer {
                problem: format!("it made id {id}, but its vocabulary has {} tokens", self.vocab_size),
                hint: "the ids in a `tokenizer.json` must be 0, 1, 2 and so on without a gap".into(),
            }));
        }
        let bytes: Vec<u8> = if self.width == 2 {
            ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect()
        } else {
            ids.iter().flat_map(|&id| id.to_le_bytes()).collect()
        };
        self.write(&bytes)
    }

    /// The current document ends, with `end_of_text` if it is given.
    pub fn end_document(&mut self, end_of_text: Option<u32>) -> Result<()> {
        if let Some(id) = end_of_text {
            self.push(&[id], 0)?;
        }
        self.in_document = false;
        Ok(())
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.counts.tokens == 0
    }

    /// Notes how many bytes of text the first token stands for.
    pub fn set_first_token_bytes(&mut self, bytes: usize) {
        self.counts.first_token_bytes = bytes as u32;
    }

    /// Completes the file, flushes it to disk, moves it to its place in `dir` and opens it.
    pub fn publish(mut self, dir: &Path) -> Result<TokenFile> {
        let starts: Vec<u8> = self.starts.iter().flat_map(|start| start.to_le_bytes()).collect();
        self.counts.documents = self.starts.len() as u64;
        self.write(&starts)?;
        let header = header(self.width, &self.identity, &self.counts, self.payload_crc);
        let mut file = self.file.into_inner().map_err(|error| cannot_write(error.into_error()))?;
        (file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(&header))
            .and_then(|()| file.as_file().sync_all())
            .map_err(cannot_write)?;
        let path = self.identity.path(dir);
        let renamed = file.persist(&path);
        TokenFile::open(&path, &self.identity, self.vocab_size).map_err(|problem| match renamed {
            // Another process may have put the same file there and hold it open, which Windows does not let us replace;
            // only if that file does not open either has the renaming failed.
            Err(error) => cannot_write(error.error),
            Ok(_) => Error::Data { path, problem, hint: "is the disk in order?".into() },
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.payload_crc = crc32c::crc32c_append(self.payload_crc, bytes);
        self.file.write_all(bytes).map_err(cannot_write)
    }
}

fn cannot_write(source: std::io::Error) -> Error {
    Error::Io { action: "write", what: "the token file in the cache", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity =
        Identity { text: [1; 32], tokenizer: [2; 32], validation_fraction: 0.1, part: Part::Training };

    fn write(dir: &Path, vocab_size: usize) -> TokenFile {
        let mut writer = TokenFileWriter::create(dir, IDENTITY, vocab_size, 2).unwrap();
        assert!(writer.is_empty());
        writer.push(&[5, 6], 4).unwrap();
        writer.set_first_token_bytes(3);
        writer.push(&[7], 1).unwrap();
        writer.end_document(Some(vocab_size as u32 - 1)).unwrap();
        writer.push(&[8], 2).unwrap();
        writer.end_document(None).unwrap();
        writer.publish(dir).unwrap()
    }

    #[test]
    fn what_is_written_is_read_in_both_widths() {
        for (vocab_size, width) in [(1 << 16, 2), ((1 << 16) + 1, 4)] {
            let dir = tempfile::tempdir().unwrap();
            let file = write(&dir.path().join("new"), vocab_size);
            assert_eq!(file.width, width);
            let expected = Counts { tokens: 5, documents: 2, text_documents: 2, text_bytes: 7, first_token_bytes: 3 };
            assert_eq!(file.counts, expected);
            let mut ids = vec![-1];
            file.copy(1..5, &mut ids).unwrap();
            assert_eq!(ids, [-1, 6, 7, vocab_size as i32 - 1, 8]);
            assert_eq!(file.document_starts().collect::<Vec<_>>(), [0, 4]);
            let names: Vec<_> = fs_err::read_dir(dir.path().join("new")).unwrap().collect();
            assert_eq!(names.len(), 1, "the temporary file is gone: {names:?}");
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        drop(write(dir.path(), 100));
        let path = IDENTITY.path(dir.path());
        let good = fs_err::read(&path).unwrap();
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 0x10;
            fs_err::write(&path, bad).unwrap();
            assert!(TokenFile::open(&path, &IDENTITY, 100).is_err(), "byte {byte}");
        }
        for length in 0..good.len() {
            fs_err::write(&path, &good[..length]).unwrap();
            assert!(TokenFile::open(&path, &IDENTITY, 100).is_err(), "length {length}");
        }
        fs_err::write(&path, &good).unwrap();
        assert!(TokenFile::open(&path, &IDENTITY, 100).is_ok());
        let other = Identity { part: Part::Validation, ..IDENTITY };
        assert!(TokenFile::open(&path, &other, 100).is_err());
    }

    #[test]
    fn an_id_beyond_the_vocabulary_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = TokenFileWriter::create(dir.path(), IDENTITY, 10, 1).unwrap();
        assert!(writer.push(&[9], 1).is_ok());
        assert!(writer.push(&[10], 1).unwrap_err().to_string().contains("id 10"));
    }

    /// What a disk did to a file that is too large to be read through on every start.
    #[test]
    fn a_damaged_id_is_an_error_where_it_is_read() {
        let token = |width: usize, index: usize| HEADER_BYTES + width * index;
        for (vocab_size, damage) in [(100, &[0xff, 0xff][..]), (100, &[100, 0]), (70_000, &[0xff; 4])] {
            let dir = tempfile::tempdir().unwrap();
            let file = write(dir.path(), vocab_size);
            let (path, width, mut bytes) = (IDENTITY.path(dir.path()), file.width, file.map.to_vec());
            drop(file);
            bytes[token(width, 2)..token(width, 3)].copy_from_slice(damage);
            seal(&mut bytes);
            fs_err::write(&path, bytes).unwrap();
            let file = TokenFile::open(&path, &IDENTITY, vocab_size).unwrap();
            let mut ids = Vec::new();
            assert!(file.copy(0..2, &mut ids).is_ok() && file.copy(3..5, &mut ids).is_ok());
            let error = file.copy(1..5, &mut ids).unwrap_err();
            let (message, name) = (error.to_string(), path.display().to_string());
            assert!(message.contains(&name) && message.contains("token 2 is id"), "{message}");
            assert!(message.contains(&format!("{vocab_size} tokens")), "{message}");
        }
    }

    /// Makes the checksums agree with the content, as the payload of a large file is not compared with its own.
    fn seal(bytes: &mut [u8]) {
        let payload = crc32c::crc32c(&bytes[HEADER_BYTES..]).to_le_bytes();
        bytes[128..132].copy_from_slice(&payload);
        let header = crc32c::crc32c(&bytes[..132]).to_le_bytes();
        bytes[132..HEADER_BYTES].copy_from_slice(&header);
    }
}

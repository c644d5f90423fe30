//! Which files hold the text, whether they are the files they were, and their bytes, decompressed.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use fs_err::File;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest, Sha256};

use super::{Progress, watch};
use crate::error::{Error, Result};

/// Read at a time while hashing, decompressing and decoding.
const BUFFER_BYTES: usize = 1 << 20;

/// How documents are marked in a file, from its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.txt`: documents are separated by `<|endoftext|>`.
    Plain,
    /// `.jsonl`: one JSON object a line, its field `text` is a document.
    JsonLines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One file of text.
#[derive(Debug)]
pub struct TextFile {
    /// As given by the user, or in the cache.
    pub path: PathBuf,
    /// How it marks its documents.
    pub format: Format,
    compression: Compression,
    /// Of the file's bytes.
    pub sha256: [u8; 32],
    size_bytes: u64,
}

impl TextFile {
    /// Looks at the file's name and hashes its bytes, compressed as they are.
    pub fn new(path: &Path, progress: &dyn Progress) -> Result<Self> {
        let (format, compression) = kind_of(path)?;
        let (sha256, size_bytes) = sha256(path, progress)?;
        Ok(Self { path: path.to_path_buf(), format, compression, sha256, size_bytes })
    }

    /// Opens the file for reading its text. What is read from disk, compressed, counts as progress.
    pub fn open<'a>(&self, progress: &'a dyn Progress) -> Result<Box<dyn BufRead + Send + 'a>> {
        let file = BufReader::with_capacity(BUFFER_BYTES, Counted { inner: open(&self.path)?, progress });
        Ok(match self.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file))),
            Compression::Zstd => Box::new(BufReader::with_capacity(BUFFER_BYTES, ZstdFrames::new(file))),
        })
    }
}

/// The files of a run, in their order. Never empty.
#[derive(Debug)]
pub struct Text {
    /// The files.
    pub files: Vec<TextFile>,
}

impl Text {
    /// Hashes every file; see [`TextFile::new`].
    pub fn new(paths: &[PathBuf], progress: &dyn Progress) -> Result<Self> {
        let mut size_bytes = 0;
        for path in paths {
            kind_of(path)?; // a wrong name is found before gigabytes are hashed
            size_bytes += open(path)?.metadata().map_err(cannot_read)?.len();
        }
        let hash_all = || paths.iter().map(|path| TextFile::new(path, progress)).collect::<Result<_>>();
        Ok(Self { files: watch(progress, "checking the text", size_bytes, hash_all)? })
    }

    /// SHA-256 over all that decides which text is read: the bytes of every file and what its name says about them.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for file in &self.files {
            hash.update(format!("{:?} {:?} ", file.format, file.compression));
            hash.update(file.sha256);
        }
        hash.finalize().into()
    }

    /// The file that errors about the whole text name.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// Bytes on disk, as counted by the progress of one reading.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// SHA-256 and size of a file's bytes.
fn sha256(path: &Path, progress: &dyn Progress) -> Result<([u8; 32], u64)> {
    let mut file = Counted { inner: open(path)?, progress };
    let (mut hash, mut buffer, mut size) = (Sha256::new(), vec![0; BUFFER_BYTES], 0);
    loop {
        match file.read(&mut buffer).map_err(cannot_read)? {
            0 => return Ok((hash.finalize().into(), size)),
            n => {
                hash.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Whether the file's name says what is in it.
pub fn has_known_ending(path: &Path) -> bool {
    kind_of(path).is_ok()
}

/// What the endings of a file's name say about its content.
fn kind_of(path: &Path) -> Result<(Format, Compression)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, compression) = if let Some(name) = name.strip_suffix(".gz") {
        (name, Compression::Gzip)
    } else if let Some(name) = name.strip_suffix(".zst") {
        (name, Compression::Zstd)
    } else {
        (name.as_str(), Compression::None)
    };
    match Path::new(name).extension().and_then(|ending| ending.to_str()) {
        Some("txt") => Ok((Format::Plain, compression)),
        Some("jsonl") => Ok((Format::JsonLines, compression)),
        _ => Err(Error::Data {
            path: path.to_path_buf(),
            problem: "does not end in .txt or .jsonl, nor in one of these with .gz or .zst behind".into(),
            hint: "rename it: .txt for plain text, .jsonl for one JSON object with `text` a line".into(),
        }),
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Data {
            path: path.to_path_buf(),
            problem: "does not exist".into(),
            hint: "correct `data.files`; a relative path starts at the current directory".into(),
        },
        _ => cannot_read(error),
    })
}

fn cannot_read(source: io::Error) -> Error {
    Error::Io { action: "read", what: "the training text", source }
}

/// Tells `progress` what is read.
struct Counted<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.progress.advance(n as u64);
        Ok(n)
    }
}

/// Reads a .zst file of any number of frames. ruzstd's own reader ends after the first, but `zstd` run on several
/// files and parallel compressors write many.
struct ZstdFrames<R> {
    source: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new() }
    }

    /// Goes to the next frame that holds data. `false` at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        let (expected, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        if expected.is_some() && expected != found {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of a zstd frame is wrong"));
        }
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.source).take(u64::from(length)), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                if !self.next_frame()? {
                    return Ok(0);
                }
                continue;
            }
            let step = BlockDecodingStrategy::UptoBytes(buffer.len());
            self.decoder
                .decode_blocks(&mut self.source, step)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::data::Silent;

    fn read(path: &Path) -> io::Result<String> {
        let mut text = String::new();
        TextFile::new(path, &Silent).unwrap().open(&Silent).unwrap().read_to_string(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn compressed_files_of_several_parts_are_read_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let long = (0..200_000).map(|i| format!("{i} ")).collect::<Vec<_>>().concat();
        let expected = format!("first {long}");
        let skippable = [0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3];
        for (name, bytes) in [
            ("a.txt", expected.clone().into_bytes()),
            ("a.TXT.gz", [gzip(b"first "), gzip(long.as_bytes())].concat()),
            ("a.jsonl.zst", [zstd(b"first "), skippable.to_vec(), zstd(long.as_bytes())].concat()),
        ] {
            let path = dir.path().join(name);
            fs_err::write(&path, bytes).unwrap();
            assert!(read(&path).unwrap() == expected, "{name}");
        }
    }

    #[test]
    fn a_cut_compressed_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let text = (0..100_000).map(|i| format!("{} ", i * 7919 % 10_007)).collect::<Vec<_>>().concat();
        for (name, bytes) in [("a.txt.gz", gzip(text.as_bytes())), ("a.txt.zst", zstd(text.as_bytes()))] {
            let path = dir.path().join(name);
            fs_err::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            assert!(read(&path).is_err(), "{name}");
        }
    }

    #[test]
    fn the_fingerprint_follows_content_order_and_format() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a.txt", "b.txt", "a.jsonl"].map(|name| dir.path().join(name));
        let fingerprint = |paths: &[PathBuf]| Text::new(paths, &Silent).unwrap().fingerprint();
        fs_err::write(&paths[0], "a").unwrap();
        fs_err::write(&paths[1], "b").unwrap();
        fs_err::write(&paths[2], "a").unwrap();
        let a = fingerprint(&paths[..1]);
        assert_ne!(a, fingerprint(&paths[1..2]));
        assert_ne!(a, fingerprint(&paths[2..]));
        assert_ne!(fingerprint(&paths[..2]), fingerprint(&[paths[1].clone(), paths[0].clone()]));
        fs_err::write(&paths[1], "a").unwrap();
        assert_eq!(a, fingerprint(&paths[1..2]), "the file's own name does not matter");
    }

    #[test]
    fn missing_and_misnamed_files_are_named_with_a_way_out() {
        for name in ["no/such/file.txt", "text.pdf", "text", "a.gz"] {
            let error = Text::new(&[name.into()], &Silent).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.hint().is_some());
        }
    }
}

//! Opening what others wrote: small texts, files that are not what their name says, and the errors about both.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use fs_err as fs;

use crate::error::{Error, Result};

/// What a pointer of Git LFS begins with; the file itself is on a server.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
/// As many bytes as any of the signatures below needs.
const HEAD_BYTES: u64 = 64;

/// What a file is, told by its first bytes and not by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// llama.cpp's format.
    Gguf,
    /// llama.cpp's formats before GGUF.
    OldGgml,
    /// A text that stands for a file until `git lfs pull` fetches it.
    LfsPointer,
    /// What `torch.save` writes: a zip archive or a bare pickle.
    Pickle,
    /// Keras' and TensorFlow's format.
    Hdf5,
    /// A file that was compressed as a whole.
    Compressed,
    /// What a server answers in place of a file.
    WebPage,
    /// A header's length and a header, as safetensors begins.
    Safetensors,
    /// Anything else, also an empty file.
    Other,
}

impl FileKind {
    /// The kind of the file at `path`; [`FileKind::Other`] if it cannot be read.
    pub(super) fn of(path: &Path) -> Self {
        let mut head = Vec::new();
        let read = fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
        if read.is_ok() { Self::of_head(&head) } else { Self::Other }
    }

    /// The kind of a file by its first bytes; more than are needed are not looked at.
    fn of_head(head: &[u8]) -> Self {
        let head = &head[..head.len().min(HEAD_BYTES as usize)];
        let begins = |signature: &[u8]| head.starts_with(signature);
        // A safetensors file begins with a number below 2^27 in eight bytes: no text and no other signature looks like it.
        let length_like = head.len() >= 8 && head[4..8] == [0; 4];
        let text: String = head.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
        let text = text.trim_start();
        if begins(b"GGUF") {
            Self::Gguf
        } else if begins(LFS_POINTER) {
            Self::LfsPointer
        } else if length_like && head.get(8) == Some(&b'{') {
            Self::Safetensors
        } else if begins(b"PK\x03\x04")
            || head.len() > 2 && head[0] == 0x80 && (2..=5).contains(&head[1]) && !length_like
        {
            Self::Pickle
        } else if begins(b"\x89HDF\r\n") {
            Self::Hdf5
        } else if [b"lmgg", b"fmgg", b"tjgg", b"algg"].into_iter().any(|magic| begins(magic)) {
            Self::OldGgml
        } else if begins(b"\x1f\x8b") || begins(b"\x28\xb5\x2f\xfd") || begins(b"\xfd7zXZ") {
            Self::Compressed
        } else if text.starts_with("<!doctype html") || text.starts_with("<html") {
            Self::WebPage
        } else {
            Self::Other
        }
    }

    /// What such a file is and what to do about it; nothing for the formats that are read and for unknown ones.
    fn in_words(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::LfsPointer => (
                "is a Git LFS pointer: the file itself was not downloaded",
                "run `git lfs pull` in its repository, or download the file itself",
            ),
            Self::Pickle => (
                "is a pickle, which can run any code and is not read",
                "save the model again in transformers, which writes model.safetensors",
            ),
            Self::Hdf5 => (
                "is a file of Keras or TensorFlow (HDF5), which is not read",
                "save the model in PyTorch's transformers, which writes model.safetensors",
            ),
            Self::OldGgml => (
                "is of a format of llama.cpp before GGUF, which is not read",
                "convert the model again with a current llama.cpp",
            ),
            Self::Compressed => ("is compressed", "decompress it"),
            Self::WebPage => ("is a web page, not a model's file", "download the file itself: its `resolve` address"),
            Self::Gguf | Self::Safetensors | Self::Other => return None,
        })
    }

    /// An error about a file of this kind where another was expected; none for kinds without a word of their own.
    pub(super) fn refuse(self, path: &Path) -> Option<Error> {
        let (problem, hint) = self.in_words()?;
        Some(Error::InvalidFile { path: path.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() })
    }
}

/// Opens a file of weights; `what` is for messages. A file that is known to be something else is an error.
pub(super) fn open(path: &Path, what: &'static str) -> Result<fs::File> {
    let io = |source| Error::Io { action: "read", what, source };
    let mut file = fs::File::open(path).map_err(io)?;
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head).map_err(io)?;
    if let Some(error) = FileKind::of_head(&head).refuse(path) {
        return Err(error);
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(file)
}

/// Reads a small text file, which may hold anything.
pub(crate) fn read_text(path: &Path, max_bytes: u64, what: &'static str) -> Result<String> {
    let io = |source| Error::Io { action: "read", what, source };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(io)?.take(max_bytes + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > max_bytes {
        return Err(damaged(path, format!("is larger than {max_bytes} bytes")));
    }
    if let Some(error) = FileKind::of_head(&bytes).refuse(path) {
        return Err(error);
    }
    String::from_utf8(bytes).map_err(|_| damaged(path, "is not UTF-8 text".to_owned()))
}

/// An error about a file that does not hold what its format promises.
pub(super) fn damaged(path: &Path, problem: String) -> Error {
    Error::InvalidFile {
        path: path.to_owned(),
        problem,
        hint: "the file is damaged or incomplete; copy it again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_what_a_file_is() {
        for (head, kind) in [
            (&b"GGUF\x03\0\0\0"[..], FileKind::Gguf),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:", FileKind::LfsPointer),
            (b"PK\x03\x04\0\0\x08\x08", FileKind::Pickle),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", FileKind::Pickle),
            (b"\x89HDF\r\n\x1a\n", FileKind::Hdf5),
            (b"tjgg\x01\0\0\0", FileKind::OldGgml),
            (b"\x1f\x8b\x08\x08abcdef", FileKind::Compressed),
            (b"\n<!DOCTYPE html><html", FileKind::WebPage),
            // A header of 640 bytes, which a pickle of protocol 2 begins like.
            (b"\x80\x02\0\0\0\0\0\0{\"__meta", FileKind::Safetensors),
            (b"\x80\x02\0\0\0\0\0\0", FileKind::Other),
            (b"", FileKind::Other),
            (b"{\"a\": 1}", FileKind::Other),
        ] {
            assert_eq!(FileKind::of_head(head), kind, "{:?}", String::from_utf8_lossy(head));
        }
    }
}

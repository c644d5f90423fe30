//! Which files hold the text, and whether they are the files they were.

use std::io::Read;
use std::path::{Path, PathBuf};

use minillm_infer::text_files::{Counted, TextFile};
use sha2::{Digest, Sha256};

use super::{Progress, watch};
use crate::error::{Error, Result};

/// Read at a time while hashing.
const BUFFER_BYTES: usize = 1 << 20;

/// The files of a run, in their order. Never empty.
#[derive(Debug)]
pub struct Text {
    /// The files.
    pub files: Vec<TextFile>,
    /// SHA-256 of each file's bytes, compressed as they are.
    pub sha256: Vec<[u8; 32]>,
    size_bytes: u64,
}

impl Text {
    /// Looks at the files' names and hashes their bytes.
    pub fn new(paths: &[PathBuf], progress: &dyn Progress) -> Result<Self> {
        // A wrong name is found before gigabytes are hashed.
        let files = paths.iter().map(|path| TextFile::new(path)).collect::<Result<Vec<_>, _>>()?;
        let mut size_bytes = 0;
        for file in &files {
            size_bytes += file.open_stored()?.metadata().map_err(cannot_read)?.len();
        }
        let hash_all = || files.iter().map(|file| sha256(file, progress)).collect::<Result<Vec<_>>>();
        let sha256 = watch(progress, "checking the text", size_bytes, hash_all)?;
        Ok(Self { files, sha256, size_bytes })
    }

    /// SHA-256 over all that decides which text is read: the bytes of every file and what its name says about them.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (file, sha256) in self.files.iter().zip(&self.sha256) {
            hash.update(format!("{:?} {:?} ", file.format, file.compression));
            hash.update(sha256);
        }
        hash.finalize().into()
    }

    /// The file that errors about the whole text name.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// Bytes on disk, as counted by the progress of one reading.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// SHA-256 of a file's bytes.
fn sha256(file: &TextFile, progress: &dyn Progress) -> Result<[u8; 32]> {
    let mut file = Counted::new(file.open_stored()?, progress);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer).map_err(cannot_read)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn cannot_read(source: std::io::Error) -> Error {
    Error::Io { action: "read", what: "the training text", source }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Silent;

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
    fn missing_and_misnamed_files_are_named_with_a_hint() {
        for name in ["no/such/file.txt", "text.pdf", "text", "a.gz"] {
            let error = Text::new(&[name.into()], &Silent).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.hint().is_some());
        }
    }
}

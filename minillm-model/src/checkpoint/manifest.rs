//! `trainer/manifest.json`: the size and the SHA-256 of every file of a checkpoint, so that a flipped bit, a truncated
//! file or a mixture of two checkpoints is noticed before anything is loaded.
//!
//! ```json
//! {
//!   "version": 1,
//!   "files": {
//!     "config.json": { "bytes": 1024, "sha256": "9f86d0…" },
//!     "trainer/state.json": { "bytes": 310, "sha256": "60303a…" }
//!   }
//! }
//! ```
//!
//! Names are relative and sorted, with `/` on every system. The manifest does not list itself; instead its text must be
//! byte for byte what this module writes, so damage to it shows too. Hidden files (`.DS_Store`) are not part of a
//! checkpoint and are not looked at.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::durable::{self, Disk};
use super::file::read_text;
use crate::error::{Error, Result};

/// Where a checkpoint directory keeps its manifest.
pub const MANIFEST_FILE: &str = "trainer/manifest.json";

/// What the trainer keeps beside the model, the manifest included.
const TRAINER_FOLDER: &str = "trainer/";
const VERSION: u32 = 1;
/// A checkpoint has about ten files, a sharded one some hundreds.
const MAX_FILES: usize = 4096;
/// Largest manifest that is read: `MAX_FILES` entries with long names.
const MAX_MANIFEST_BYTES: u64 = 2 << 20;
/// How much of a file is in memory while it is hashed.
const HASH_BUFFER_BYTES: usize = 1 << 20;

/// What a checkpoint directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    files: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Reads and hashes every file below `dir`, except [`MANIFEST_FILE`].
    pub fn of_directory(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for name in list(dir)?.into_keys() {
            let entry = hash(&dir.join(&name))?;
            files.insert(name, entry);
        }
        Ok(Self { version: VERSION, files })
    }

    /// Writes the manifest to `path` and creates its directory. It is not flushed to disk: whoever publishes the
    /// checkpoint flushes all of it.
    pub fn write(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        let write = || {
            let parent = durable::parent(path);
            if !parent.is_dir() {
                disk.create_dir(parent)?;
            }
            durable::write_file(disk, path, self.to_json().as_bytes())
        };
        write().map_err(|source| Error::Io { action: "write", what: "the manifest", source })
    }

    /// Reads the manifest at `path`. Nothing in it is trusted: what this module would not have written is an error.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(path, &read_text(path, MAX_MANIFEST_BYTES, "the manifest")?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let manifest: Self =
            serde_json::from_str(text).map_err(|error| damaged(path, format!("is not a manifest: {error}")))?;
        if manifest.version != VERSION {
            return Err(Error::InvalidFile {
                path: path.to_owned(),
                problem: format!("`version` is {}, this program reads {VERSION}", manifest.version),
                hint: "use the program that wrote the checkpoint, or a newer one".to_owned(),
            });
        }
        if manifest.files.len() > MAX_FILES {
            return Err(damaged(path, format!("lists {} files, more than {MAX_FILES}", manifest.files.len())));
        }
        if let Some(name) = manifest.files.keys().find(|name| !is_safe(name)) {
            return Err(damaged(path, format!("lists {name:?}, which is not a path inside the checkpoint")));
        }
        // Also answers duplicate keys, of which serde_json keeps the last.
        if manifest.to_json() != text {
            return Err(damaged(path, "is not as it was written".to_owned()));
        }
        Ok(manifest)
    }

    /// Compares `dir` with the manifest: every file there, with its size and hash, and no other.
    ///
    /// # Errors
    /// Names the first file that is missing, too much, of another size or of another content.
    pub fn verify(&self, dir: &Path) -> Result<()> {
        self.verify_some(dir, |_| true)
    }

    /// The same for the model's own files: configuration, tokenizer and weights. The trainer's, of which the optimiser's
    /// state alone is twice as large as the weights, are not looked at.
    ///
    /// # Errors
    /// The same as those of [`Self::verify`].
    pub fn verify_model(&self, dir: &Path) -> Result<()> {
        self.verify_some(dir, |name| !name.starts_with(TRAINER_FOLDER))
    }

    fn verify_some(&self, dir: &Path, counts: impl Fn(&str) -> bool) -> Result<()> {
        let expected = || self.files.iter().filter(|(name, _)| counts(name));
        // Sizes first: that is quick, and a truncated file is found before gigabytes are hashed.
        let mut present = list(dir)?;
        present.retain(|name, _| counts(name));
        for (name, entry) in expected() {
            match present.remove(name) {
                None => return Err(damaged(&dir.join(name), "is missing".to_owned())),
                Some(bytes) if bytes != entry.bytes => {
                    let problem = format!("has {bytes} bytes, the checkpoint was saved with {}", entry.bytes);
                    return Err(damaged(&dir.join(name), problem));
                }
                Some(_) => {}
            }
        }
        if let Some(name) = present.into_keys().next() {
            return Err(Error::InvalidFile {
                path: dir.join(name),
                problem: "is not part of the checkpoint".to_owned(),
                hint: "move it out of the checkpoint's directory".to_owned(),
            });
        }
        for (name, entry) in expected() {
            let path = dir.join(name);
            if hash(&path)? != *entry {
                return Err(damaged(&path, "does not have the content it was saved with (SHA-256 differs)".to_owned()));
            }
        }
        Ok(())
    }

    fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and numbers become JSON");
        text.push('\n');
        text
    }
}

/// Reads the manifest of the checkpoint in `dir` and compares all of the directory with it: what resuming needs.
pub fn verify_checkpoint(dir: &Path) -> Result<()> {
    Manifest::read(&dir.join(MANIFEST_FILE))?.verify(dir)
}

/// Reads the manifest of the checkpoint in `dir` and compares the model's own files with it: what generating needs.
pub fn verify_model(dir: &Path) -> Result<()> {
    Manifest::read(&dir.join(MANIFEST_FILE))?.verify_model(dir)
}

/// SHA-256 over the weight files of the model or adapter in `dir`, or of a GGUF file, in hexadecimal: the same for the same weights, wherever they lie.
pub fn weights_sha256(dir: &Path) -> Result<String> {
    let io = |source| Error::Io { action: "read", what: "the model", source };
    if dir.is_file() {
        return Ok(hash(dir)?.sha256);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        names.extend(
            name.to_str().filter(|name| name.contains("model") && name.ends_with(".safetensors")).map(str::to_owned),
        );
    }
    names.sort();
    let mut all = Sha256::new();
    for name in names {
        all.update(hash(&dir.join(name))?.sha256);
    }
    Ok(format!("{:x}", all.finalize()))
}

/// Every file below `dir` but the manifest, with its size in bytes.
fn list(dir: &Path) -> Result<BTreeMap<String, u64>> {
    let io = |source| Error::Io { action: "read", what: "the checkpoint", source };
    let mut files = BTreeMap::new();
    let mut directories = vec![(dir.to_owned(), String::new())];
    let mut visited = 0;
    while let Some((directory, prefix)) = directories.pop() {
        for entry in fs::read_dir(directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let path = entry.path();
            visited += 1;
            if visited > MAX_FILES {
                return Err(not_a_checkpoint(dir, format!("holds more than {MAX_FILES} files")));
            }
            let file_name = entry.file_name();
            let name = match file_name.to_str() {
                Some(name) if name.starts_with('.') => continue,
                Some(name) if is_safe(name) => format!("{prefix}{name}"),
                _ => {
                    return Err(not_a_checkpoint(&path, "has a name that not every system can hold".to_owned()));
                }
            };
            let kind = entry.file_type().map_err(io)?;
            if kind.is_dir() {
                directories.push((path, format!("{name}/")));
            } else if !kind.is_file() {
                return Err(not_a_checkpoint(&path, "is neither a file nor a directory".to_owned()));
            } else if name != MANIFEST_FILE {
                files.insert(name, entry.metadata().map_err(io)?.len());
            }
        }
    }
    Ok(files)
}

/// Whether a name from a manifest stays inside the directory on every system: relative, without `..`, drive or stream.
fn is_safe(name: &str) -> bool {
    let part_is_safe = |part: &str| !part.starts_with('.') && !part.is_empty();
    name.split('/').all(part_is_safe)
        && !name.contains(|c: char| c == '\\' || c == ':' || c.is_control())
        && name != MANIFEST_FILE
}

fn hash(path: &Path) -> Result<Entry> {
    let io = |source| Error::Io { action: "read", what: "the checkpoint", source };
    let mut file = fs::File::open(path).map_err(io)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
    Ok(Entry { bytes, sha256: format!("{:x}", hasher.finalize()) })
}

fn damaged(path: &Path, problem: String) -> Error {
    Error::InvalidFile {
        path: path.to_owned(),
        problem,
        hint: "the checkpoint was damaged or changed after it was saved; restore the file or use another checkpoint"
            .to_owned(),
    }
}

fn not_a_checkpoint(path: &Path, problem: String) -> Error {
    Error::InvalidFile {
        path: path.to_owned(),
        problem,
        hint: "a checkpoint's directory must hold the checkpoint's files and nothing else".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::durable::System;
    use super::*;

    /// A directory with the files of a checkpoint, and its manifest.
    fn checkpoint() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("trainer")).unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        fs::write(folder.path().join("model.safetensors"), [7; 3000]).unwrap();
        fs::write(folder.path().join("trainer/state.json"), "abc").unwrap();
        let path = folder.path().join(MANIFEST_FILE);
        Manifest::of_directory(folder.path()).unwrap().write(&System, &path).unwrap();
        (folder, path)
    }

    fn problem(folder: &tempfile::TempDir) -> String {
        let error = verify_checkpoint(folder.path()).unwrap_err();
        assert!(error.hint().is_some() || matches!(error, Error::Io { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn the_text_is_as_documented() {
        let (folder, path) = checkpoint();
        let text = fs::read_to_string(&path).unwrap();
        let expected = r#"{
  "version": 1,
  "files": {
    "config.json": {
      "bytes": 2,
      "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    },
    "model.safetensors": {
      "bytes": 3000,"#;
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("\"trainer/state.json\""), "{text}");
        verify_checkpoint(folder.path()).unwrap();
    }

    #[test]
    fn files_larger_than_the_buffer_are_hashed_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        fs::write(&path, vec![b'a'; 1_000_000 * 2]).unwrap();
        let entry = hash(&path).unwrap();
        assert_eq!(entry.bytes, 2_000_000);
        let direct = format!("{:x}", Sha256::digest(fs::read(&path).unwrap()));
        assert_eq!(entry.sha256, direct);
    }

    #[test]
    fn every_way_to_be_wrong_names_the_file() {
        let (folder, _) = checkpoint();
        fs::write(folder.path().join("model.safetensors"), [7; 2999]).unwrap();
        assert!(problem(&folder).contains("model.safetensors`: has 2999 bytes"));

        let (folder, _) = checkpoint();
        fs::write(folder.path().join("trainer/state.json"), "abd").unwrap();
        let text = problem(&folder).replace('\\', "/");
        assert!(text.contains("trainer/state.json`: does not have the content"), "{text}");

        let (folder, _) = checkpoint();
        fs::remove_file(folder.path().join("config.json")).unwrap();
        assert!(problem(&folder).contains("config.json`: is missing"));

        let (folder, _) = checkpoint();
        fs::write(folder.path().join("extra.bin"), "").unwrap();
        assert!(problem(&folder).contains("extra.bin`: is not part"));

        let (folder, path) = checkpoint();
        fs::remove_file(path).unwrap();
        assert!(problem(&folder).contains("cannot read the manifest"));
    }

    #[test]
    fn a_model_is_verified_without_the_trainers_files() {
        let (folder, _) = checkpoint();
        // Neither another content nor another size nor a file more: nothing of it is read.
        fs::write(folder.path().join("trainer/state.json"), "abd").unwrap();
        verify_model(folder.path()).unwrap();
        fs::remove_file(folder.path().join("trainer/state.json")).unwrap();
        fs::write(folder.path().join("trainer/more"), "").unwrap();
        verify_model(folder.path()).unwrap();
        assert!(problem(&folder).contains("state.json`: is missing"));

        fs::write(folder.path().join("extra.bin"), "").unwrap();
        let text = verify_model(folder.path()).unwrap_err().to_string();
        assert!(text.contains("extra.bin`: is not part"), "{text}");
        fs::remove_file(folder.path().join("extra.bin")).unwrap();
        fs::write(folder.path().join("model.safetensors"), [8; 3000]).unwrap();
        let text = verify_model(folder.path()).unwrap_err().to_string();
        assert!(text.contains("model.safetensors`: does not have the content"), "{text}");
    }

    #[test]
    fn hidden_files_do_not_matter() {
        let (folder, _) = checkpoint();
        fs::write(folder.path().join(".DS_Store"), "a file manager was here").unwrap();
        verify_checkpoint(folder.path()).unwrap();
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let (folder, path) = checkpoint();
        let state = folder.path().join("trainer/state.json");
        for bit in 0..3 * 8 {
            let mut flipped = *b"abc";
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&state, flipped).unwrap();
            assert!(problem(&folder).contains("SHA-256"), "bit {bit}");
        }
        for length in 0..3 {
            fs::write(&state, &"abc"[..length]).unwrap();
            assert!(problem(&folder).contains("bytes"), "cut to {length}");
        }

        // The manifest itself: it is refused, or it promises something else than is there.
        let text = fs::read_to_string(&path).unwrap();
        let sound = Manifest::parse(&path, &text).unwrap();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = String::from_utf8(flipped) {
                assert_ne!(Manifest::parse(&path, &flipped).ok().as_ref(), Some(&sound), "bit {bit}");
            }
        }
        for length in 0..text.len() {
            assert!(Manifest::parse(&path, &text[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn hostile_manifests_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let entry = r#"{"bytes": 1, "sha256": ""}"#;
        let files = |names: &[&str]| {
            let files: Vec<_> = names.iter().map(|name| format!("{name:?}: {entry}")).collect();
            format!(r#"{{"version": 1, "files": {{{}}}}}"#, files.join(","))
        };
        let mut texts: Vec<String> =
            ["", "null", "[]", r#"{"version": 1}"#, r#"{"version": 2, "files": {}}"#].map(str::to_owned).into();
        let names = ["/etc/passwd", "../up", "a/../../b", "C:/x", "C:\\x", "a\\b", "a//b", "", ".", ".hidden", "a:b"];
        texts.extend(names.map(|name| files(&[name])));
        texts.push(files(&[MANIFEST_FILE]));
        texts.push(files(&["config.json", "config.json"]));
        texts.push(files(&["b", "a"]));
        texts.push(r#"{"version": 1, "files": {"a": {"bytes": 99999999999999999999, "sha256": ""}}}"#.to_owned());
        texts.push(r#"{"version": 1, "files": {"a": {"bytes": -1, "sha256": ""}}}"#.to_owned());
        texts.push(" ".repeat(MAX_MANIFEST_BYTES as usize + 1));
        for text in texts {
            fs::write(&path, &text).unwrap();
            let error = Manifest::read(&path).unwrap_err().to_string();
            assert!(error.contains("manifest.json"), "{error}");
        }
    }

    #[test]
    fn too_many_entries_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let entry = Entry { bytes: 1, sha256: String::new() };
        let files = (0..=MAX_FILES).map(|i| (format!("file-{i}"), entry.clone())).collect();
        Manifest { version: VERSION, files }.write(&System, &path).unwrap();
        let error = Manifest::read(&path).unwrap_err().to_string();
        assert!(error.contains("more than 4096"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let (folder, _) = checkpoint();
        fs::remove_file(folder.path().join("config.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("config.json")).unwrap();
        assert!(problem(&folder).contains("config.json`: is neither a file nor a directory"));
        assert!(Manifest::of_directory(folder.path()).is_err());
    }
}

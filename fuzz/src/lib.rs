//! What the fuzzers share.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use minillm_model::tokenizer::Tokenizer;

/// A directory for this process; `run.sh` clears it away.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| tempfile::tempdir().expect("a temporary directory").keep())
}

/// A file of these bytes in [`directory`], under a name that may have a directory in front.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory().join(name);
    fs_err::create_dir_all(path.parent().expect("it is in a directory")).expect("the directory is there");
    fs_err::write(&path, bytes).expect("the file is written");
    path
}

/// Uses a tokenizer that was read.
pub fn use_tokenizer(tokenizer: &Tokenizer) {
    if let Ok(ids) = tokenizer.encode_prompt("Once upon a time, 12 caf\u{e9}s <|endoftext|>\u{1f469}\u{200d}\u{1f680}")
    {
        tokenizer.decode(&ids);
    }
}

/// libFuzzer takes every panic for a finding, those too that the code catches. With this, only those that it does not.
pub fn allow_contained_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

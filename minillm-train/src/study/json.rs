//! The JSON files of a study.

use std::path::Path;

use fs_err as fs;
use minillm_model::checkpoint::durable;
use serde::Serialize;

use crate::error::{Error, Result};

/// A file of the study that cannot be read.
pub(super) fn read_error(source: std::io::Error) -> Error {
    Error::Io { action: "read", what: "a file of the study", source }
}

/// Reads a file that this program wrote.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(read_error)?;
    serde_json::from_str(&text).map_err(|error| Error::Run {
        path: path.to_owned(),
        problem: format!("cannot be understood: {error}"),
        hint: "remove the folder that it is in, and start the study again".to_owned(),
    })
}

/// Replaces a file in one step.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let write =
        || durable::replace_file(&durable::System, path, (serde_json::to_string_pretty(value)? + "\n").as_bytes());
    write().map_err(|source| Error::Io { action: "write", what: "a file of the study", source })
}

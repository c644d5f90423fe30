//! What can go wrong with a model's configuration, files and tokenizer.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error names the file or the field it is about; [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read or written. The source names the path.
    #[error("cannot {action} {what}")]
    Io {
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// What it was tried on, in words: "the weights".
        what: &'static str,
        /// The system's reason, with the path.
        #[source]
        source: std::io::Error,
    },

    /// A model configuration that cannot be built.
    #[error("`{field}` {problem}")]
    InvalidConfig {
        /// The field of [`ModelConfig`](crate::config::ModelConfig).
        field: &'static str,
        /// What is wrong with its value, continuing the field's name.
        problem: String,
        /// What to do.
        hint: String,
    },

    /// A file whose content is not what its format promises.
    #[error("`{}`: {problem}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the field or tensor.
        problem: String,
        /// What to do.
        hint: String,
    },

    /// The tensors of a file are not those of the model.
    #[error("`{}` does not hold this model's tensors{}", path.display(), list_tensors(missing, unexpected, wrong_shape))]
    TensorMismatch {
        /// The weights file.
        path: PathBuf,
        /// Parameters of the model that the file lacks.
        missing: Vec<String>,
        /// Tensors of the file that the model has no place for.
        unexpected: Vec<String>,
        /// Tensors of another shape, as `name: file [..], model [..]`.
        wrong_shape: Vec<String>,
        /// What to do, as far as the names tell.
        hint: &'static str,
    },

    /// Weights or logits that are no numbers any more.
    #[error("`{}`: `{tensor}` holds values that are not finite", path.display())]
    NotFinite {
        /// The file that was to hold it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// The device failed where a result was read from it.
    #[error("the device failed: {0}")]
    Device(String),

    /// A conversation that cannot be rendered: the template's own words, or what is wrong with the messages.
    #[error("{problem}")]
    Chat {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },

    /// A tokenizer that could not be trained, read or used.
    #[error("tokenizer: {problem}")]
    Tokenizer {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
}

impl Error {
    /// What the user can do about it, if there is something to say beyond the message.
    pub fn hint(&self) -> Option<&str> {
        let hint = match self {
            Self::Io { source, .. } => io_hint(source),
            Self::NotFinite { .. } => "the training went out of bounds: lower `optimizer.learning_rate`",
            Self::Device(_) => "see the log above for its reason; try another `--device`",
            Self::TensorMismatch { hint, .. } => hint,
            Self::InvalidConfig { hint, .. }
            | Self::InvalidFile { hint, .. }
            | Self::Chat { hint, .. }
            | Self::Tokenizer { hint, .. } => hint,
        };
        (!hint.is_empty()).then_some(hint)
    }
}

/// An error and what caused it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What can be done about the system's refusal; empty where it speaks for itself.
pub fn io_hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "check the path; a relative one starts at the current directory",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "check the rights, or choose another place",
        ErrorKind::IsADirectory => "give a file, not a directory",
        ErrorKind::NotADirectory => "a part of the path is a file; choose another place",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space, or choose another drive",
        ErrorKind::FileTooLarge => "raise the limit on the size of files (`ulimit -f`), or choose another drive",
        ErrorKind::InvalidData => "the file must be UTF-8 text",
        _ => "",
    }
}

fn list_tensors(missing: &[String], unexpected: &[String], wrong_shape: &[String]) -> String {
    const SHOWN: usize = 5;
    let list = |what: &str, names: &[String]| {
        if names.is_empty() {
            return String::new();
        }
        let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        let rest = names.len().saturating_sub(SHOWN);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        format!("; {what}: {}{rest}", shown.join(", "))
    };
    list("missing", missing) + &list("not part of the model", unexpected) + &list("of another shape", wrong_shape)
}

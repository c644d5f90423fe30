//! What can go wrong between a model directory and its text.

use std::path::PathBuf;

use minillm_model::error::io_hint;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error names the option or file it is about; [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, its files or its tokenizer.
    #[error(transparent)]
    Model(#[from] minillm_model::error::Error),

    /// A device that does not exist, or whose backend is not in this program.
    #[error("device `{name}` {problem}")]
    Device {
        /// The name that was asked for.
        name: String,
        /// What is wrong with it, continuing the name.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// A prompt or an option that generation cannot work with.
    #[error("{problem}")]
    Request {
        /// What is wrong, naming the option.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// A file that is not the text it should be.
    #[error("`{}`: {problem}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// What the model computed is no number.
    #[error("{what} not finite")]
    NotFinite {
        /// What it is, with its verb: "the logits are".
        what: &'static str,
    },

    /// Two models that should be one.
    #[error("{problem}")]
    Differ {
        /// The difference that was found.
        problem: String,
    },

    /// A file could not be read or written. The source names the path.
    #[error("cannot {action} {what}")]
    Io {
        /// What was tried: "read", "write".
        action: &'static str,
        /// What it was tried on, in words.
        what: &'static str,
        /// The system's reason, with the path.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What the user can do about it, if there is something to say beyond the message.
    pub fn hint(&self) -> Option<&str> {
        let hint = match self {
            Self::Model(error) => return error.hint(),
            Self::Io { source, .. } => io_hint(source),
            Self::NotFinite { .. } => "the weights are damaged, or the device computes wrongly: try `--device flex`",
            Self::Differ { .. } => {
                "see in which of the two the tokenizer, the configuration or the weights were changed"
            }
            Self::Device { hint, .. } | Self::Request { hint, .. } | Self::Text { hint, .. } => hint,
        };
        (!hint.is_empty()).then_some(hint)
    }

    /// The program's exit code: 2 for wrong usage or configuration, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Device { .. }
            | Self::Request { .. }
            | Self::Model(minillm_model::error::Error::InvalidConfig { .. }) => 2,
            _ => 1,
        }
    }
}

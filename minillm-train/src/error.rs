//! What can go wrong between a configuration file and a trained model.

use std::path::PathBuf;

use minillm_model::error::io_hint;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error names the file or the field it is about; [`Error::hint`] says what to do next and
/// [`Error::exit_code`] with which code the program ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, its files or its tokenizer.
    #[error(transparent)]
    Model(#[from] minillm_model::error::Error),

    /// Inference: devices, generation, scoring.
    #[error(transparent)]
    Infer(#[from] minillm_infer::error::Error),

    /// A file or directory could not be read or written. The source names the path.
    #[error("cannot {action} {what}")]
    Io {
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// What it was tried on, in words: "the training text".
        what: &'static str,
        /// The system's reason, with the path.
        #[source]
        source: std::io::Error,
    },

    /// A configuration that cannot be used as it stands.
    #[error("{origin}: `{field}` {problem}")]
    Config {
        /// Where the value came from: a file's path, or `--set`.
        origin: String,
        /// The dotted key, `train.batch_size`.
        field: String,
        /// What is wrong, continuing the key's name.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// Text that cannot be trained on.
    #[error("`{}`: {problem}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// A download that failed or brought something else than expected.
    #[error("`{url}`: {problem}")]
    Download {
        /// The address.
        url: String,
        /// What went wrong.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// A checkpoint or run directory that cannot be used.
    #[error("`{}`: {problem}", path.display())]
    Run {
        /// The run, checkpoint or file in it.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// A device that computes something else than it should.
    #[error("device `{device}` computes wrongly: {problem}")]
    Unsound {
        /// Its name, as `--device` takes it.
        device: String,
        /// What it computes wrongly, in which form, and by how much.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// A loss or gradient that is not a number. The last checkpoint is untouched.
    #[error("step {step}: {what} is not finite")]
    NotFinite {
        /// The optimiser step, counted from 1.
        step: usize,
        /// "the loss", or the parameter whose gradient it is.
        what: String,
    },

    /// Spikes one after the other. Nothing was updated since the first of them.
    #[error("step {step}: the last {count} steps were all skipped as spikes")]
    Spikes {
        /// The optimiser step, counted from 1.
        step: usize,
        /// The number of skipped steps.
        count: usize,
    },

    /// The device reported work that failed; what was computed since is not to be trusted.
    #[error("the device failed before the end of step {step}: {problem}")]
    Device {
        /// The optimiser step, counted from 1.
        step: usize,
        /// What the backend said.
        problem: String,
    },
}

impl Error {
    /// What the user can do about it, if there is something to say beyond the message.
    pub fn hint(&self) -> Option<&str> {
        let hint = match self {
            Self::Model(error) => return error.hint(),
            Self::Infer(error) => return error.hint(),
            Self::Io { source, .. } => io_hint(source),
            Self::NotFinite { .. } => {
                "lower `optimizer.learning_rate`, or raise `schedule.warmup_steps`, and start again with --overwrite"
            }
            Self::Spikes { .. } => {
                "go on from the last checkpoint with --resume and `--set train.skip_spikes=false`; if the loss stays high, look at \
                 the text there, or begin again with a lower `optimizer.learning_rate`"
            }
            Self::Device { .. } => {
                "go on from the last checkpoint with --resume; `minillm-train doctor` says which operation is wrong on \
                 this device"
            }
            Self::Config { hint, .. }
            | Self::Data { hint, .. }
            | Self::Download { hint, .. }
            | Self::Run { hint, .. }
            | Self::Unsound { hint, .. } => hint,
        };
        (!hint.is_empty()).then_some(hint)
    }

    /// Whether a file or directory could not be read or written.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Model(minillm_model::error::Error::Io { .. }))
    }

    /// The program's exit code: 2 for wrong usage or configuration, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } | Self::Model(minillm_model::error::Error::InvalidConfig { .. }) => 2,
            Self::Infer(error) => error.exit_code(),
            _ => 1,
        }
    }
}

//! From a configuration and a directory to a [`Trainer`] that is ready to go: what `train` and `study` have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use minillm_infer::device::DeviceInfo;
use minillm_model::checkpoint::durable::{self, Disk};
use minillm_model::config::ModelOptions;
use minillm_model::tokenizer::Tokenizer;

use crate::checkpoint::{load_config, load_state};
use crate::config::{RunConfig, check_resume};
use crate::data::Progress;
use crate::error::{Error, Result};
use crate::objective;
use crate::run_dir::{CONFIG_FILE, OpenMode, RunDir};
use crate::trainer::Trainer;

/// A run about to be started or continued.
#[derive(Clone, Debug)]
pub struct Session<'a> {
    /// What to train.
    pub config: &'a RunConfig,
    /// The run's directory.
    pub out: &'a Path,
    /// What may be there already.
    pub mode: OpenMode,
    /// What to compute on.
    pub found: &'a DeviceInfo,
    /// The run's name among others, see [`Trainer::new`].
    pub label: Option<&'a str>,
    /// The disk that its checkpoints are written to.
    pub disk: Arc<dyn Disk>,
}

impl Session<'_> {
    /// Locks the directory, prepares the text, builds or loads the model, and writes the run's `config.toml`.
    pub fn open(&self, cache_dir: &Path, progress: &dyn Progress) -> Result<Trainer> {
        let Self { config, out, mode, found, label, .. } = *self;
        let run = RunDir::open_on(Arc::clone(&self.disk), out, mode)?;
        let resume_from = if mode == OpenMode::Resume { resume_point(&run, config)? } else { None };

        let objective = objective::prepare(config, cache_dir, progress)?;
        let config_file = run.path().join(CONFIG_FILE);
        let config = resolved(config, objective.tokenizer());
        let trainer = Trainer::new(&config, objective, run, found, resume_from.as_deref(), label)?;
        durable::replace_file(&*self.disk, &config_file, config.to_toml()?.as_bytes()).map_err(|source| Error::Io {
            action: "write",
            what: "the run's configuration",
            source,
        })?;
        Ok(trainer)
    }
}

/// The checkpoint to continue from, after seeing that `config` may continue it; `None` if the run was stopped before its
/// first one.
fn resume_point(run: &RunDir, config: &RunConfig) -> Result<Option<PathBuf>> {
    let Some((_, checkpoint)) = run.newest_sound()? else {
        tracing::warn!("`{}` has no checkpoint yet: beginning at the first step", run.path().display());
        return Ok(None);
    };
    check_resume(&load_config(&checkpoint)?, config, load_state(&checkpoint)?.step)?;
    Ok(Some(checkpoint))
}

/// `config` with every field of the model written out, so that the file says what is built.
fn resolved(config: &RunConfig, tokenizer: &Tokenizer) -> RunConfig {
    let mut resolved = config.resolved();
    if config.model.from.is_some() {
        return resolved; // the architecture is the other model's, and stands in every checkpoint's config.json
    }
    let model = config.model.resolve(tokenizer.vocab_size(), config.train.context);
    // The vocabulary stays open: it is the tokenizer's.
    resolved.model = ModelOptions { vocab_size: config.model.vocab_size, ..model.to_options(config.model.preset) };
    resolved
}

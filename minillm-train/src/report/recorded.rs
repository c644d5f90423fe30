//! What a run's directory says about it.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use minillm_model::checkpoint::{self as model_files, locate};
use minillm_model::config::ModelConfig;

use crate::checkpoint::{State, load_state};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::metrics::{Record, jsonl};
use crate::run_dir::{CONFIG_FILE, METRICS_FILE, SAMPLES_FOLDER};

/// What a report shows of a sample, in characters.
const LONGEST_SAMPLE: usize = 4000;

/// Everything that a report is made of. What is missing or not readable as what it should be is absent.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Of the directory.
    pub name: String,
    /// The run's configuration.
    pub config: Option<RunConfig>,
    /// As it is written.
    pub config_text: Option<String>,
    /// In order.
    pub records: Vec<Record>,
    /// In order.
    pub samples: Vec<Sample>,
    /// In order.
    pub checkpoints: Vec<Checkpoint>,
    /// Of the newest checkpoint.
    pub state: Option<State>,
    /// The architecture, from the newest checkpoint.
    pub model: Option<ModelConfig>,
}

/// What the model wrote after some steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// After how many.
    pub step: u64,
    /// Its text.
    pub text: String,
}

/// One that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// After how many steps.
    pub step: usize,
    /// Its directory's name.
    pub name: String,
    /// Of all its files.
    pub bytes: u64,
}

impl Recorded {
    /// Reads the run in `run`.
    pub fn read(run: &Path) -> Result<Self> {
        let absolute = std::path::absolute(run).unwrap_or_else(|_| run.to_owned());
        let name = absolute.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned());
        let config = run.join(CONFIG_FILE);
        let config_text = optional(fs::read_to_string(&config))?;
        let records = optional(jsonl::read(&run.join(METRICS_FILE)))?.unwrap_or_default();

        let directories = locate::checkpoints(run)?;
        let newest = directories.last().map(|(_, path)| path.clone());
        let checkpoint = |(step, path): &(usize, PathBuf)| Checkpoint {
            step: *step,
            name: locate::checkpoint_name(*step),
            bytes: bytes(path),
        };
        Ok(Self {
            name,
            config: config_text.as_ref().and_then(|_| RunConfig::load(&config, &[]).ok()),
            config_text,
            records,
            samples: samples(&run.join(SAMPLES_FOLDER))?,
            checkpoints: directories.iter().map(checkpoint).collect(),
            state: newest.as_ref().and_then(|path| load_state(path).ok()),
            model: newest.as_ref().and_then(|path| model_files::read_config(path).ok()).map(|read| read.config),
        })
    }

    /// Steps and values of a tag, in order.
    pub fn values(&self, tag: &str) -> impl Iterator<Item = (u64, f64)> {
        self.records.iter().filter_map(move |record| Some((record.step as u64, record.get(tag)?)))
    }

    /// Its last value.
    pub fn last(&self, tag: &str) -> Option<(u64, f64)> {
        self.values(tag).last()
    }

    /// Its value after `step` steps.
    pub fn at(&self, step: u64, tag: &str) -> Option<f64> {
        self.values(tag).find(|(at, _)| *at == step).map(|(_, value)| value)
    }

    /// The lowest validation loss.
    pub fn best(&self) -> Option<(u64, f64)> {
        self.values(crate::metrics::tag::VAL_LOSS).min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// Steps and tokens so far.
    pub fn progress(&self) -> Option<(u64, u64)> {
        self.records.last().map(|record| (record.step as u64, record.tokens))
    }
}

/// A file that need not be there.
fn optional<T>(read: io::Result<T>) -> Result<Option<T>> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { action: "read", what: "the run", source }),
    }
}

/// `step-000250.txt` and its like.
fn samples(folder: &Path) -> Result<Vec<Sample>> {
    let Some(entries) = optional(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let mut samples = Vec::new();
    for entry in entries.filter_map(io::Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let step = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".txt")).and_then(|n| n.parse().ok());
        if let (Some(step), Ok(text)) = (step, fs::read_to_string(entry.path())) {
            samples.push(Sample { step, text: text.chars().take(LONGEST_SAMPLE).collect() });
        }
    }
    samples.sort_by_key(|sample| sample.step);
    Ok(samples)
}

/// Of all files in a checkpoint's directory and its folder `trainer`.
fn bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(io::Result::ok).map(size).sum()
}

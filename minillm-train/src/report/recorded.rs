//! What a run's directory says about it.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use minillm_model::checkpoint::{self as model_files, locate};
use minillm_model::config::ModelConfig;

use super::history::History;
use crate::checkpoint::{State, load_state};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::metrics::{jsonl, tag};
use crate::run_dir::{CONFIG_FILE, METRICS_FILE, SAMPLES_FOLDER};

/// Samples on the page; of more, every n-th.
const MOST_SAMPLES: usize = 24;

/// What a report shows of a sample, in characters.
const LONGEST_SAMPLE: usize = 4000;

/// Everything that a report is made of. What is missing or not readable as what it should be is absent.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The name of the directory.
    pub name: String,
    /// The run's configuration.
    pub config: Option<RunConfig>,
    /// The configuration as it is written.
    pub config_text: Option<String>,
    /// Its metrics.
    pub history: History,
    /// Some, in order, the last among them.
    pub samples: Vec<Sample>,
    /// The checkpoints in the order of their steps.
    pub checkpoints: Vec<Checkpoint>,
    /// The progress at the newest checkpoint.
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
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// After how many steps.
    pub step: usize,
    /// Its directory's name.
    pub name: String,
    /// The size of all its files.
    pub bytes: u64,
    /// The validation loss of that step.
    pub loss: Option<f64>,
}

impl Recorded {
    /// Reads the run in `run`.
    pub fn read(run: &Path) -> Result<Self> {
        let absolute = std::path::absolute(run).unwrap_or_else(|_| run.to_owned());
        let name = absolute.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned());
        let config = run.join(CONFIG_FILE);
        let config_text = optional(fs::read_to_string(&config))?;
        let directories = locate::checkpoints(run)?;
        let newest = directories.last().map(|(_, path)| path.clone());
        let checkpoint = |(step, path): &(usize, PathBuf)| Checkpoint {
            step: *step,
            name: locate::checkpoint_name(*step),
            bytes: bytes(path),
            loss: None,
        };
        let mut checkpoints: Vec<_> = directories.iter().map(checkpoint).collect();
        let mut history = History::default();
        optional(jsonl::read(&run.join(METRICS_FILE), |record| {
            history.add(&record);
            if let Some(loss) = record.get(tag::VAL_LOSS)
                && let Some(checkpoint) = checkpoints.iter_mut().find(|checkpoint| checkpoint.step == record.step)
            {
                checkpoint.loss = Some(loss);
            }
        }))?;
        Ok(Self {
            name,
            config: config_text.as_ref().and_then(|_| RunConfig::load(&config, &[]).ok()),
            config_text,
            history,
            samples: samples(&run.join(SAMPLES_FOLDER))?,
            checkpoints,
            state: newest.as_ref().and_then(|path| load_state(path).ok()),
            model: newest.as_ref().and_then(|path| model_files::read_config(path).ok()),
        })
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

/// `step-000250.txt` and its like: at most [`MOST_SAMPLES`], evenly spaced back from the last.
fn samples(folder: &Path) -> Result<Vec<Sample>> {
    let Some(entries) = optional(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let step_of = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".txt")?.parse().ok();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter_map(|path| step_of(&path).map(|step| (step, path)))
        .collect();
    found.sort_unstable();
    let every = found.len().div_ceil(MOST_SAMPLES).max(1);
    let text = |path: &Path| Some(fs::read_to_string(path).ok()?.chars().take(LONGEST_SAMPLE).collect());
    let shown = found.iter().rev().step_by(every);
    let mut shown: Vec<_> = shown.filter_map(|(step, path)| Some(Sample { step: *step, text: text(path)? })).collect();
    shown.reverse();
    Ok(shown)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_samples_some_are_shown_and_the_last_is_one_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let steps = |count: u64| {
            for step in 1..=count {
                fs::write(folder.path().join(format!("step-{step:06}.txt")), step.to_string()).unwrap();
            }
            let shown = samples(folder.path()).unwrap();
            assert!(shown.iter().all(|sample| sample.text == sample.step.to_string()));
            shown.iter().map(|sample| sample.step).collect::<Vec<_>>()
        };
        assert_eq!(steps(24), (1..=24).collect::<Vec<_>>());
        assert_eq!(steps(25), (1..=25).step_by(2).collect::<Vec<_>>());
        assert_eq!(steps(100), (5..=100).step_by(5).collect::<Vec<_>>());
    }
}

//! A run's directory: one trainer at a time, and never a file touched that a run did not write.
//!
//! ```text
//! RUN/
//!   .lock                  locked while a trainer lives; the system releases it, however the trainer ends
//!   config.toml            the run's configuration
//!   metrics.jsonl          and tensorboard/, samples/, report.html
//!   checkpoint-000500/     a Hugging Face model directory with trainer/, see `checkpoint`
//!   best.json              the best checkpoint: { "step": 500, "value": 1.47 }
//! ```
//!
//! How a checkpoint gets there whole, and what a killed trainer leaves behind, is in [`publish`](crate::publish).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use minillm_model::checkpoint::durable::{self, Disk, System};
use minillm_model::checkpoint::locate::{self, BEST_FILE, checkpoint_step};
use minillm_model::checkpoint::manifest::MANIFEST_FILE;
use minillm_model::error::with_causes;

use crate::error::{Error, Result};
use crate::file_lock::FileLock;

/// The resolved configuration of the run.
pub const CONFIG_FILE: &str = "config.toml";
/// One JSON object a line.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Event files for `TensorBoard`.
pub const TENSORBOARD_FOLDER: &str = "tensorboard";
/// The run on one page.
pub const REPORT_FILE: &str = "report.html";
/// A text per evaluation.
pub const SAMPLES_FOLDER: &str = "samples";

const LOCK_FILE: &str = ".lock";
/// Begins the name of a checkpoint that is being written; the step follows.
pub(crate) const SAVING_PREFIX: &str = ".saving-";
/// Begins the name of a checkpoint that is being removed; the step follows.
const DELETING_PREFIX: &str = ".deleting-";
/// What Overwrite removes in the folders: these names begin ours, others are somebody else's.
const OWN_IN_FOLDERS: [(&str, &str); 2] =
    [(TENSORBOARD_FOLDER, "events.out.tfevents.minillm"), (SAMPLES_FOLDER, "step-")];

/// What the user said about a directory that may hold a run already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// There must be no run.
    New,
    /// There must be one.
    Resume,
    /// If there is one, [`RunDir::clear`] will remove it.
    Overwrite,
}

/// A run's directory, locked for this trainer until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    _lock: FileLock,
}

impl RunDir {
    /// Opens `path` for one trainer, creating it and its parents if needed, and removes what a killed save left there.
    ///
    /// # Errors
    /// A run where `mode` allows none, none where it needs one, another trainer at work there, or a path that cannot be
    /// written. Nothing has been changed then.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self> {
        Self::open_on(Arc::new(System), path, mode)
    }

    /// [`open`](Self::open) for a run whose checkpoints go to `disk`.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path, mode: OpenMode) -> Result<Self> {
        // Before anything is created: a refusal leaves no trace, and a directory that has no lock file yet and holds a
        // `config.toml` belongs to somebody else.
        let is_known = is_known_run(path);
        check_mode(path, mode, is_known)?;
        durable::create_directory(&*disk, path).map_err(|error| unusable(path, &error))?;
        let lock = lock(path)?;
        // Again, now that no other trainer can change it.
        check_mode(path, mode, is_known)?;
        let run = Self { path: path.to_owned(), disk, _lock: lock };
        run.remove_strays()?;
        Ok(run)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk that its checkpoints are written to.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Whether a trainer has begun a run in `path` that [`OpenMode::Resume`] opens.
    pub fn holds_run(path: &Path) -> Result<bool> {
        Ok(is_known_run(path) && evidence_of_run(path)?.is_some())
    }

    /// All published checkpoints with their steps, oldest first, sound or not.
    pub fn checkpoints(&self) -> Result<Vec<(usize, PathBuf)>> {
        Ok(locate::checkpoints(self.path())?)
    }

    /// Removes what a killed trainer left half written or half deleted.
    fn remove_strays(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path).map_err(clean_error)? {
            let entry = entry.map_err(clean_error)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let step = name.strip_prefix(SAVING_PREFIX).or_else(|| name.strip_prefix(DELETING_PREFIX));
            if step.is_some_and(|step| step.parse::<usize>().is_ok()) {
                durable::remove_tree(&*self.disk, &entry.path()).map_err(clean_error)?;
            } else if [BEST_FILE, CONFIG_FILE, REPORT_FILE].iter().any(|file| name == format!(".{file}.part")) {
                self.disk.remove_file(&entry.path()).map_err(clean_error)?;
            }
        }
        Ok(())
    }

    /// Removes the run that is here, if there is one, to make room for another. Only this program's files; the lock stays.
    pub fn clear(&self) -> Result<()> {
        for (step, path) in self.checkpoints()? {
            self.delete(step, &path).map_err(clean_error)?;
        }
        for name in [BEST_FILE, METRICS_FILE, CONFIG_FILE, REPORT_FILE] {
            let path = self.path.join(name);
            if path.is_file() {
                fs::remove_file(path).map_err(clean_error)?;
            }
        }
        for (folder, prefix) in OWN_IN_FOLDERS {
            let folder = self.path.join(folder);
            if !folder.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&folder).map_err(clean_error)? {
                let entry = entry.map_err(clean_error)?;
                if entry.file_name().to_string_lossy().starts_with(prefix) && entry.path().is_file() {
                    fs::remove_file(entry.path()).map_err(clean_error)?;
                }
            }
            let _ = fs::remove_dir(&folder); // stays if it holds somebody else's files
        }
        Ok(())
    }

    /// A checkpoint goes as it came, in one step: no reader sees half of it.
    pub(crate) fn delete(&self, step: usize, checkpoint: &Path) -> io::Result<()> {
        let (disk, aside) = (self.disk(), self.beside(DELETING_PREFIX, step));
        if aside.exists() {
            durable::remove_tree(disk, &aside)?;
        }
        disk.rename(checkpoint, &aside)?;
        let flushed = disk.flush_names(self.path());
        durable::remove_tree(disk, &aside)?;
        flushed
    }

    /// Where a checkpoint is while it is being written or removed.
    pub(crate) fn beside(&self, prefix: &str, step: usize) -> PathBuf {
        self.path().join(format!("{prefix}{step:06}"))
    }
}

/// Whether a trainer has worked in `path`. A run that was copied may have lost its hidden lock file.
fn is_known_run(path: &Path) -> bool {
    path.join(LOCK_FILE).exists()
        || locate::checkpoints(path).is_ok_and(|found| found.iter().any(|(_, path)| path.join(MANIFEST_FILE).exists()))
}

/// A name in `path` that only a run has, if there is one.
fn evidence_of_run(path: &Path) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    for entry in fs::read_dir(path).map_err(|error| unusable(path, &error))? {
        let name = entry.map_err(|error| unusable(path, &error))?.file_name();
        let name = name.to_string_lossy();
        if [CONFIG_FILE, METRICS_FILE, BEST_FILE].contains(&&*name) || checkpoint_step(&name).is_some() {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

fn check_mode(path: &Path, mode: OpenMode, is_known: bool) -> Result<()> {
    let refuse = |problem: &str, hint: &str| {
        Err(Error::Run { path: path.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() })
    };
    if path.exists() && !path.is_dir() {
        return refuse("is a file; a run needs a directory", "choose another --out");
    }
    match (mode, evidence_of_run(path)?) {
        (OpenMode::Resume, Some(_)) if is_known => Ok(()),
        (OpenMode::Resume, _) => refuse(
            "holds no run to resume",
            "leave out --resume to begin one here, or give --out the directory of the run",
        ),
        (_, Some(name)) if !is_known => {
            refuse(&format!("holds `{name}`, which no run of this program wrote"), "choose another --out")
        }
        (_, None) | (OpenMode::Overwrite, Some(_)) => Ok(()),
        (OpenMode::New, Some(_)) => refuse(
            "holds a run already",
            "continue it with --resume, replace it with --overwrite, or choose another --out",
        ),
    }
}

/// Takes the directory for this trainer.
fn lock(path: &Path) -> Result<FileLock> {
    let lock = FileLock::try_take(&path.join(LOCK_FILE)).map_err(|error| unusable(path, &error))?;
    let lock = lock.ok_or_else(|| Error::Run {
        path: path.to_owned(),
        problem: "is in use by another trainer".to_owned(),
        hint: "wait until it has finished, or choose another --out".to_owned(),
    })?;
    if !lock.is_held() {
        tracing::warn!("`{}`: this drive has no file locks; start no second trainer there", path.display());
    }
    Ok(lock)
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::Run {
        path: path.to_owned(),
        problem: format!("cannot be used as a run's directory: {}", with_causes(error)),
        hint: "choose a directory with --out that you may write to".to_owned(),
    }
}

fn clean_error(source: io::Error) -> Error {
    Error::Io { action: "remove", what: "old files of the run", source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checkpoint::Best;

    pub(crate) fn best(step: usize) -> Best {
        Best { step, value: 1.5 }
    }

    /// Files of a checkpoint that say which step they belong to.
    pub(crate) fn fill(directory: &Path, step: usize) -> Result<()> {
        fs::create_dir(directory.join("trainer")).map_err(clean_error)?;
        for name in ["config.json", "model.safetensors", "trainer/state.json"] {
            fs::write(directory.join(name), format!("{name} of step {step}")).map_err(clean_error)?;
        }
        Ok(())
    }

    pub(crate) fn publish(run: &RunDir, step: usize, keep_last: usize, best: impl Into<Option<Best>>) -> PathBuf {
        run.publish(step, keep_last, best.into(), |_, directory| fill(directory, step)).unwrap()
    }

    pub(crate) fn steps(run: &RunDir) -> Vec<usize> {
        run.checkpoints().unwrap().into_iter().map(|(step, _)| step).collect()
    }

    pub(crate) fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A run with checkpoints 1 and 2 of which 1 is the best, closed again.
    pub(crate) fn run_of_two() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/one");
        let run = RunDir::open(&path, OpenMode::New).unwrap();
        fs::write(path.join(CONFIG_FILE), "seed = 1").unwrap();
        publish(&run, 1, 2, best(1));
        publish(&run, 2, 2, best(1));
        (folder, path)
    }

    fn refusal(path: &Path, mode: OpenMode) -> String {
        let error = RunDir::open(path, mode).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        error.to_string()
    }

    #[test]
    fn one_trainer_at_a_time() {
        let (_folder, path) = run_of_two();
        let first = RunDir::open(&path, OpenMode::Resume).unwrap();
        for mode in [OpenMode::Resume, OpenMode::Overwrite] {
            let text = refusal(&path, mode);
            assert!(text.contains("one`: is in use by another trainer"), "{text}");
        }
        assert_eq!(steps(&first), [1, 2]);
        drop(first);
        RunDir::open(&path, OpenMode::Resume).unwrap();
    }

    #[test]
    fn modes_are_held_to() {
        let (folder, path) = run_of_two();
        assert!(refusal(&path, OpenMode::New).contains("holds a run already"));
        let empty = folder.path().join("empty");
        assert!(refusal(&empty, OpenMode::Resume).contains("holds no run to resume"));
        assert!(!empty.exists());
        RunDir::open(&empty, OpenMode::Overwrite).unwrap();
        RunDir::open(&empty, OpenMode::New).unwrap(); // nothing was trained there yet
        assert!(refusal(&empty, OpenMode::Resume).contains("holds no run to resume"));

        fs::remove_file(path.join(LOCK_FILE)).unwrap(); // as `cp -r RUN/* elsewhere` does
        RunDir::open(&path, OpenMode::Resume).unwrap();
    }

    #[test]
    fn overwriting_removes_the_run_and_nothing_else() {
        let (_folder, path) = run_of_two();
        for name in ["metrics.jsonl", "samples/step-000001.txt", "tensorboard/events.out.tfevents.minillm.000000"] {
            fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
            fs::write(path.join(name), "ours").unwrap();
        }
        for name in ["notes.txt", "samples/mine.txt", "checkpoint-500"] {
            fs::write(path.join(name), "theirs").unwrap();
        }
        let run = RunDir::open(&path, OpenMode::Overwrite).unwrap();
        run.clear().unwrap();
        assert_eq!(names(&path), [".lock", "checkpoint-500", "notes.txt", "samples"]);
        assert_eq!(names(&path.join("samples")), ["mine.txt"]);
        assert_eq!(run.newest_sound().unwrap(), None);
    }

    #[test]
    fn a_directory_of_somebody_else_is_never_changed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_FILE), "mine").unwrap();
        for mode in [OpenMode::New, OpenMode::Overwrite] {
            assert!(refusal(folder.path(), mode).contains("`config.toml`, which no run of this program wrote"));
        }
        refusal(folder.path(), OpenMode::Resume);
        assert_eq!(names(folder.path()), [CONFIG_FILE]);
    }

    #[test]
    fn paths_that_cannot_be_a_run_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(refusal(&file, OpenMode::New).contains("is a file"));
        let text = refusal(&file.join("run"), OpenMode::New);
        assert!(text.contains("cannot be used as a run's directory"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_directory_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o555)).unwrap();
        if fs::write(path.join("probe"), "").is_err() {
            // The administrator may write everywhere; for others this holds.
            assert!(refusal(&path, OpenMode::New).contains("cannot be used as a run's directory"));
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

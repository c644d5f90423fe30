//! One run after the other, each in a process of its own; what is done is skipped, what was begun is continued.
//!
//! The study holds the standard input of the run at work. When the study ends, however it ends, that input ends, and the run
//! saves and stops. The next start waits for it at the `runs/.lock` that a run holds while it lives.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use minillm_infer::output::note;
use minillm_model::checkpoint::durable;

use super::design::{Design, Variant};
use super::json::{read_json, write_json};
use super::result::{PLAN_FILE, RESULT_FILE, RunPlan, RunResult};
use crate::error::{Error, Result};
use crate::file_lock::FileLock;
use crate::interrupt::{Interrupt, Signal};

const RUNS_FOLDER: &str = "runs";
const LOCK_FILE: &str = ".lock";
const POLL: Duration = Duration::from_millis(20);

/// A study's directory, locked for this process until dropped.
#[derive(Debug)]
pub struct StudyDir {
    path: PathBuf,
    _lock: FileLock,
}

impl StudyDir {
    /// Opens `path`, creating it if needed.
    ///
    /// # Errors
    /// Another study at work there, or a path that cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "open", what: "the study's directory", source };
        durable::create_directory(&durable::System, &path.join(RUNS_FOLDER)).map_err(io)?;
        let lock = FileLock::try_take(&path.join(LOCK_FILE)).map_err(io)?.ok_or_else(|| Error::Run {
            path: path.to_owned(),
            problem: "is in use by another study".to_owned(),
            hint: "wait until it has finished, or choose another --out".to_owned(),
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of one run.
    pub fn run(&self, variant: &Variant, seed: u64) -> PathBuf {
        self.path.join(RUNS_FOLDER).join(&variant.slug).join(format!("seed-{seed}"))
    }

    /// The result of a run, if it is done.
    pub fn result(&self, variant: &Variant, seed: u64) -> Result<Option<RunResult>> {
        let path = self.run(variant, seed).join(RESULT_FILE);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }
}

/// Acquires the slot of a run: waits until no other run of the same study is at work, and keeps others waiting until the
/// result is dropped. `run` is `DIR/runs/VARIANT/seed-N`.
pub fn acquire_slot(run: &Path) -> Result<FileLock> {
    let runs = run.parent().and_then(Path::parent).unwrap_or(run);
    let waits = || tracing::info!("waiting for another run of the study to end");
    FileLock::wait(&runs.join(LOCK_FILE), waits).map_err(|source| Error::Io {
        action: "open",
        what: "the lock of the study's runs",
        source,
    })
}

/// How a study ended.
#[derive(Debug)]
pub enum StudyEnd {
    /// All runs, in the order of [`Design::runs`].
    Done(Vec<RunResult>),
    /// It was asked to stop, with so many runs done.
    Interrupted(Signal, usize),
}

/// Runs every run of `design` in `directory` that has no result yet.
///
/// # Errors
/// A run whose process failed. What is done stays, and the next start goes on from there.
pub fn run_all(design: &Design, directory: &StudyDir, device: &str, interrupt: &Interrupt) -> Result<StudyEnd> {
    let runs = design.runs();
    let mut results = Vec::new();
    for (index, &(variant, seed)) in runs.iter().enumerate() {
        let label = format!("[{}/{}] {} seed {seed}", index + 1, runs.len(), variant.name);
        let mut result = directory.result(variant, seed)?;
        if result.is_none() {
            let path = directory.run(variant, seed);
            prepare(design, variant, seed, &path)?;
            let child = start(&path, device, &label)?;
            if let Some(signal) = wait(child, &path, interrupt)? {
                return Ok(StudyEnd::Interrupted(signal, index));
            }
            result = directory.result(variant, seed)?;
            if let Some(result) = &result {
                note(format_args!("{label}: {}", describe(result)));
            }
        }
        results.push(result.ok_or_else(|| failed(&directory.run(variant, seed), "left no result"))?);
    }
    Ok(StudyEnd::Done(results))
}

fn prepare(design: &Design, variant: &Variant, seed: u64, path: &Path) -> Result<()> {
    let io = |source| Error::Io { action: "create", what: "a run's directory", source };
    durable::create_directory(&durable::System, path).map_err(io)?;
    let plan = RunPlan {
        variant: variant.name.clone(),
        seed,
        config: variant.config(seed).to_toml()?,
        evaluate: design.evaluate.clone(),
    };
    write_json(&path.join(PLAN_FILE), &plan)
}

fn start(path: &Path, device: &str, label: &str) -> Result<Child> {
    let spawn = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("study-run").arg(path).args(["--device", device, "--label", label]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
    };
    spawn().map_err(|source| Error::Io { action: "start", what: "a run", source })
}

/// Waits for a run's process. With a signal it is let go, saves, and ends too.
fn wait(mut child: Child, path: &Path, interrupt: &Interrupt) -> Result<Option<Signal>> {
    let mut input = child.stdin.take();
    let status = loop {
        if interrupt.requested().is_some() {
            drop(input.take());
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => thread::sleep(POLL),
            Err(source) => return Err(Error::Io { action: "wait for", what: "a run", source }),
        }
    };
    match (status.success(), interrupt.requested()) {
        (true, None) => Ok(None),
        (_, Some(signal)) => Ok(Some(signal)),
        (false, None) => Err(failed(path, &format!("ended with {status}"))),
    }
}

fn failed(path: &Path, what: &str) -> Error {
    Error::Run {
        path: path.to_owned(),
        problem: what.to_owned(),
        hint: "its messages stand above; the same command goes on from here".to_owned(),
    }
}

fn describe(result: &RunResult) -> String {
    let outcome = match (&result.diverged, &result.validation) {
        (Some(diverged), _) => format!("diverged at step {}: {} is not finite", diverged.step, diverged.what),
        (None, Some(validation)) => {
            let gap = validation.floor.map_or(String::new(), |floor| format!(", gap {:.4}", validation.loss - floor));
            format!("loss {:.4}, {:.4} bits per byte{gap}", validation.loss, validation.bits_per_byte)
        }
        (None, None) => "no validation".to_owned(),
    };
    format!("{outcome} ({:.0} s)", result.seconds)
}

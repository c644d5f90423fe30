//! Which directory a model is in, when what is given may be a run of the trainer.
//!
//! ```text
//! RUN/
//!   best.json              { "step": 500, ... }: the checkpoint with the best validation loss
//!   checkpoint-000500/     a Hugging Face model directory; the number is the optimiser step
//!   checkpoint-000750/
//! ```
//!
//! A run means its best checkpoint, else its newest. One that fails its manifest is passed over with a warning.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;

use super::CONFIG_FILE;
use super::manifest::{MANIFEST_FILE, read_text, verify_checkpoint};
use crate::error::{Error, Result};

/// Names the best checkpoint of a run by its step.
pub const BEST_FILE: &str = "best.json";

/// A run's checkpoints begin with this; the step follows, in at least six digits.
const CHECKPOINT_PREFIX: &str = "checkpoint-";
const MAX_BEST_BYTES: u64 = 4096;

/// The name of the checkpoint after `step` optimiser steps: `checkpoint-000500`.
pub fn checkpoint_name(step: usize) -> String {
    format!("{CHECKPOINT_PREFIX}{step:06}")
}

/// The step of a checkpoint's name; none for any other name, `checkpoint-500` included.
pub fn checkpoint_step(name: &str) -> Option<usize> {
    let step = name.strip_prefix(CHECKPOINT_PREFIX)?.parse().ok()?;
    (checkpoint_name(step) == name).then_some(step)
}

/// The checkpoints of a run, oldest first, sound or not.
pub fn checkpoints(run: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let io = |source| Error::Io { action: "read", what: "the run's directory", source };
    let mut found = Vec::new();
    for entry in fs::read_dir(run).map_err(io)? {
        let entry = entry.map_err(io)?;
        if let Some(step) = entry.file_name().to_str().and_then(checkpoint_step)
            && entry.path().is_dir()
        {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The step of the best checkpoint according to [`BEST_FILE`]; none if the run has no such file yet.
pub fn best_step(run: &Path) -> Result<Option<usize>> {
    #[derive(Deserialize)]
    struct Best {
        step: usize,
    }
    let path = run.join(BEST_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(&path, MAX_BEST_BYTES, "which checkpoint is the best")?;
    let best: Best = serde_json::from_str(&text).map_err(|error| Error::InvalidFile {
        path,
        problem: format!("does not name a step: {error}"),
        hint: "delete it: the newest checkpoint is used instead".to_owned(),
    })?;
    Ok(Some(best.step))
}

/// The directory of the model that `path` means, and warnings for the user.
///
/// A GGUF file is itself. So is a directory with a `config.json`; if it has a manifest too, it must agree. A run is its best checkpoint,
/// else the newest, passing over those that are damaged.
///
/// # Errors
/// A path that is neither, a checkpoint given by its own path that is damaged, or a run with no sound checkpoint.
pub fn model_dir(path: &Path) -> Result<(PathBuf, Vec<String>)> {
    if path.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return Ok((path.to_owned(), Vec::new()));
    }
    if path.join(CONFIG_FILE).is_file() {
        check(path)?;
        return Ok((path.to_owned(), Vec::new()));
    }
    if !path.is_dir() {
        let problem = if path.exists() { "is a file, but not a .gguf" } else { "does not exist" };
        return Err(no_model(path, problem.to_owned()));
    }
    let mut warnings = Vec::new();
    let candidates = candidates(path, &mut warnings)?;
    if candidates.is_empty() {
        let example = checkpoint_name(500);
        return Err(no_model(path, format!("holds neither {CONFIG_FILE} nor a checkpoint such as {example}")));
    }
    for directory in candidates {
        match check(&directory) {
            Ok(()) => return Ok((directory, warnings)),
            Err(error) => warnings.push(format!("{} is passed over: {}", name(&directory), with_causes(&error))),
        }
    }
    Err(Error::InvalidFile {
        path: path.to_owned(),
        problem: format!("no checkpoint of the run is sound: {}", warnings.join("; ")),
        hint: "restore the run's files from a copy".to_owned(),
    })
}

/// The checkpoints of a run in the order in which they are tried: the best, then the newest first.
fn candidates(run: &Path, warnings: &mut Vec<String>) -> Result<Vec<PathBuf>> {
    let mut found = checkpoints(run)?;
    found.reverse();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    match best_step(run) {
        Ok(None) => {}
        Ok(Some(best)) => match found.iter().position(|(step, _)| *step == best) {
            Some(position) => found[..=position].rotate_right(1),
            None => warnings.push(format!("{BEST_FILE} names {}, which is not there", checkpoint_name(best))),
        },
        Err(error) => warnings.push(with_causes(&error)),
    }
    Ok(found.into_iter().map(|(_, directory)| directory).collect())
}

/// A model directory that came from elsewhere has no manifest, and nothing to compare with.
fn check(directory: &Path) -> Result<()> {
    if directory.join(MANIFEST_FILE).exists() {
        return verify_checkpoint(directory);
    }
    if !directory.join(CONFIG_FILE).is_file() {
        return Err(no_model(directory, format!("holds no {CONFIG_FILE}")));
    }
    Ok(())
}

fn no_model(path: &Path, problem: String) -> Error {
    Error::InvalidFile {
        path: path.to_owned(),
        problem,
        hint: "give a Hugging Face model directory, a .gguf file, a checkpoint, or a run that has saved one".to_owned(),
    }
}

fn name(directory: &Path) -> String {
    directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
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

#[cfg(test)]
mod tests {
    use super::super::durable::System;
    use super::super::manifest::Manifest;
    use super::*;

    fn add_checkpoint(run: &Path, step: usize) -> PathBuf {
        let directory = run.join(checkpoint_name(step));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(CONFIG_FILE), format!("{{\"step\": {step}}}")).unwrap();
        Manifest::of_directory(&directory).unwrap().write(&System, &directory.join(MANIFEST_FILE)).unwrap();
        directory
    }

    fn damage(directory: &Path) {
        let path = directory.join(CONFIG_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("step", "stop")).unwrap();
    }

    #[test]
    fn names_and_steps_are_two_ways_of_saying_it() {
        assert_eq!(checkpoint_name(500), "checkpoint-000500");
        for step in [0, 1, 999_999, 1_000_000, usize::MAX] {
            assert_eq!(checkpoint_step(&checkpoint_name(step)), Some(step));
        }
        for name in ["checkpoint-500", "checkpoint-0000500", "checkpoint-", "checkpoint-00050x", "checkpoint-+00500"] {
            assert_eq!(checkpoint_step(name), None, "{name}");
        }
    }

    #[test]
    fn a_run_is_its_best_checkpoint_else_the_newest() {
        let run = tempfile::tempdir().unwrap();
        let run = run.path();
        add_checkpoint(run, 999_999);
        let best = add_checkpoint(run, 250);
        let newest = add_checkpoint(run, 1_000_000);
        assert_eq!(model_dir(run).unwrap(), (newest.clone(), vec![]));
        fs::write(run.join(BEST_FILE), r#"{"step": 250, "value": 1.5}"#).unwrap();
        assert_eq!(model_dir(run).unwrap(), (best.clone(), vec![]));
        assert_eq!(model_dir(&newest).unwrap(), (newest.clone(), vec![]));

        damage(&best);
        let (directory, warnings) = model_dir(run).unwrap();
        assert_eq!(directory, newest);
        assert!(warnings[0].starts_with("checkpoint-000250 is passed over: `"), "{warnings:?}");
        assert!(warnings[0].contains(CONFIG_FILE), "{warnings:?}");

        fs::remove_dir_all(&best).unwrap();
        assert_eq!(model_dir(run).unwrap().1, ["best.json names checkpoint-000250, which is not there"]);
    }

    #[test]
    fn damaged_checkpoints_are_passed_over_down_to_none() {
        let run = tempfile::tempdir().unwrap();
        let run = run.path();
        let old = add_checkpoint(run, 1);
        let new = add_checkpoint(run, 2);
        fs::write(run.join(BEST_FILE), "{\"step\"").unwrap();
        damage(&new);
        let (directory, warnings) = model_dir(run).unwrap();
        assert_eq!(directory, old);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        damage(&old);
        let error = model_dir(run).unwrap_err();
        assert!(error.to_string().contains("no checkpoint of the run is sound"), "{error}");
        assert!(model_dir(&new).unwrap_err().to_string().contains("SHA-256"));
    }

    #[test]
    fn a_directory_without_a_manifest_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_FILE), "{}").unwrap();
        assert_eq!(model_dir(folder.path()).unwrap(), (folder.path().to_owned(), vec![]));
    }

    #[test]
    fn anything_else_says_what_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        fs::write(&file, "x").unwrap();
        for (path, expected) in [
            (folder.path(), "holds neither config.json nor a checkpoint such as checkpoint-000500"),
            (&file, "is a file, but not a .gguf"),
            (&folder.path().join("missing"), "does not exist"),
        ] {
            let error = model_dir(path).unwrap_err();
            assert!(error.to_string().ends_with(expected), "{error}");
            assert!(error.hint().is_some());
        }
    }
}

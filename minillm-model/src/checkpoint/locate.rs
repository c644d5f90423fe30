//! Which directory a model is in, when what is given may be a run of the trainer.
//!
//! ```text
//! RUN/
//!   best.json              { "step": 500, ... }: the checkpoint with the best validation loss
//!   checkpoint-000500/     a Hugging Face model directory; the number is the optimiser step
//!   checkpoint-000750/
//! ```
//!
//! A run means its best checkpoint, else its newest. One that fails its manifest is skipped with a warning.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;

use super::CONFIG_FILE;
use super::file::{FileKind, read_text};
use super::manifest::{MANIFEST_FILE, verify_model};
use super::other_files::{has_adapter, has_weights, only_gguf, what_is_there};
use crate::error::{Error, Result, with_causes};

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
/// A GGUF file is itself, whatever its name. So is a directory with a `config.json`; if it has a manifest too, it must agree in
/// the model's own files. A run is its best checkpoint, else the newest, without those that are damaged. A directory with
/// nothing to read but one GGUF file is that file.
///
/// # Errors
/// A path that is neither, a checkpoint given by its own path that is damaged, or a run with no sound checkpoint.
pub fn model_dir(path: &Path) -> Result<(PathBuf, Vec<String>)> {
    if path.is_file() {
        return if is_gguf(path) { Ok((path.to_owned(), Vec::new())) } else { Err(no_gguf(path)) };
    }
    if !path.is_dir() {
        return Err(no_model(path, "does not exist".to_owned()));
    }
    let mut warnings = Vec::new();
    if path.join(CONFIG_FILE).is_file() {
        if let Some(gguf) = only_gguf(path) {
            return Ok((gguf, warnings));
        }
        check(path)?;
        if has_weights(path) && has_adapter(path) {
            warnings
                .push(format!("the adapter in `{}` is not applied: give its directory with --adapter", path.display()));
        }
        return Ok((path.to_owned(), warnings));
    }
    let candidates = candidates(path, &mut warnings)?;
    if candidates.is_empty() {
        if let Some(gguf) = only_gguf(path) {
            return Ok((gguf, warnings));
        }
        let example = checkpoint_name(500);
        let nothing = || no_model(path, format!("holds neither {CONFIG_FILE} nor a checkpoint such as {example}"));
        return Err(what_is_there(path).unwrap_or_else(nothing));
    }
    for directory in candidates {
        match check(&directory) {
            Ok(()) => return Ok((directory, warnings)),
            Err(error) => warnings.push(format!("{} is skipped: {}", name(&directory), with_causes(&error))),
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
        return verify_model(directory);
    }
    if !directory.join(CONFIG_FILE).is_file() {
        return Err(no_model(directory, format!("holds no {CONFIG_FILE}")));
    }
    Ok(())
}

/// Whether the file at `path` is a GGUF file: by its first bytes, as Ollama and others keep them under names without an ending.
pub fn is_gguf(path: &Path) -> bool {
    FileKind::of(path) == FileKind::Gguf
}

/// An error about a file that is no GGUF.
fn no_gguf(path: &Path) -> Error {
    let kind = FileKind::of(path);
    let is_part = kind == FileKind::Safetensors || path.extension().is_some_and(|ending| ending == "json");
    match kind.refuse(path) {
        Some(error) => error,
        None if is_part => Error::InvalidFile {
            path: path.to_owned(),
            problem: "is one file of a model, and a .gguf is the only kind that is a model alone".to_owned(),
            hint: "give the directory that it is in".to_owned(),
        },
        None => no_model(path, "is a file, but not a GGUF file (it does not begin with `GGUF`)".to_owned()),
    }
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
        assert!(warnings[0].starts_with("checkpoint-000250 is skipped: `"), "{warnings:?}");
        assert!(warnings[0].contains(CONFIG_FILE), "{warnings:?}");

        fs::remove_dir_all(&best).unwrap();
        assert_eq!(model_dir(run).unwrap().1, ["best.json names checkpoint-000250, which is not there"]);
    }

    #[test]
    fn a_model_is_found_without_the_trainers_files() {
        let run = tempfile::tempdir().unwrap();
        let directory = add_checkpoint(run.path(), 1);
        fs::write(directory.join("trainer/optimizer.safetensors"), "written after the manifest").unwrap();
        assert_eq!(model_dir(&directory).unwrap(), (directory.clone(), vec![]));
        assert_eq!(model_dir(run.path()).unwrap(), (directory, vec![]));
    }

    #[test]
    fn a_gguf_file_is_known_by_its_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("sha256-00");
        fs::write(&blob, "GGUF").unwrap();
        assert_eq!(model_dir(&blob).unwrap(), (blob.clone(), vec![]));
        assert_eq!(model_dir(folder.path()).unwrap(), (blob.clone(), vec![]), "the only one");
        fs::write(folder.path().join(CONFIG_FILE), "{}").unwrap();
        assert_eq!(model_dir(folder.path()).unwrap(), (blob, vec![]), "the only weights");

        let named = folder.path().join("model.gguf");
        for (content, part) in [
            ("version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
            ("PK\u{3}\u{4}", "is a pickle"),
            ("tjgg", "before GGUF"),
            ("<!doctype html>", "web page"),
            ("\0\u{2}\0\0\0\0\0\0{\"", "is one file of a model"),
        ] {
            fs::write(&named, content).unwrap();
            let error = model_dir(&named).unwrap_err();
            assert!(error.to_string().contains(part) && error.hint().is_some(), "{error}");
        }
        // A model's directory stays one, whatever else is in it; so does a run.
        fs::write(folder.path().join("model.safetensors"), "").unwrap();
        assert_eq!(model_dir(folder.path()).unwrap().0, folder.path());
        let run = tempfile::tempdir().unwrap();
        let checkpoint = add_checkpoint(run.path(), 1);
        fs::write(run.path().join("export.gguf"), "GGUF").unwrap();
        assert_eq!(model_dir(run.path()).unwrap().0, checkpoint);
    }

    #[test]
    fn an_adapter_beside_a_model_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
        let error = model_dir(folder.path()).unwrap_err().to_string();
        assert!(error.contains("holds an adapter"), "{error}");
        fs::write(folder.path().join(CONFIG_FILE), "{}").unwrap();
        fs::write(folder.path().join("model.safetensors"), "").unwrap();
        let (_, warnings) = model_dir(folder.path()).unwrap();
        assert!(warnings[0].contains("adapter") && warnings.len() == 1, "{warnings:?}");
    }

    #[test]
    fn damaged_checkpoints_are_skipped_down_to_none() {
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
        let empty = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        fs::write(&file, "x").unwrap();
        for (path, expected) in [
            (folder.path(), "holds weights, but no config.json"),
            (empty.path(), "holds neither config.json nor a checkpoint such as checkpoint-000500"),
            (&file, "is a file, but not a GGUF file (it does not begin with `GGUF`)"),
            (&folder.path().join("missing"), "does not exist"),
        ] {
            let error = model_dir(path).unwrap_err();
            assert!(error.to_string().ends_with(expected), "{error}");
            assert!(error.hint().is_some());
        }
    }
}

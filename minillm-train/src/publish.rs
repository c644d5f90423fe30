//! Checkpoints appear whole or not at all.
//!
//! Publishing goes in this order. A trainer killed after any step leaves a run that opens; what is stray goes away when
//! the next trainer opens it.
//!
//! | step | what a kill after it leaves |
//! |---|---|
//! | 1. files and manifest into `.saving-000500` | a stray directory |
//! | 2. all of it flushed to disk | a stray directory |
//! | 3. renamed to `checkpoint-000500` | the checkpoint; `best.json` may still name the one before |
//! | 4. `best.json` replaced | perhaps more old checkpoints than asked for |
//! | 5. each old one renamed to `.deleting-000400`, then removed | a stray directory |
//!
//! A checkpoint that another program holds open cannot be renamed on Windows; it is deleted at a later save.

use std::io;
use std::path::{Path, PathBuf};

use minillm_model::checkpoint::durable::{self, Disk};
use minillm_model::checkpoint::locate::{BEST_FILE, checkpoint_name};
use minillm_model::checkpoint::manifest::{MANIFEST_FILE, Manifest, verify_checkpoint};
use minillm_model::error::with_causes;

use crate::checkpoint::Best;
use crate::error::{Error, Result};
use crate::run_dir::{RunDir, SAVING_PREFIX};

impl RunDir {
    /// Publishes the checkpoint after `step` optimiser steps and returns its directory.
    ///
    /// `write` fills the directory it is given, and has closed every file when it returns. Then `best` is recorded (with
    /// `None` the record stays), and older checkpoints are deleted except the newest `keep_last`, this one included, and
    /// the best. Checkpoints beyond `step` are damaged ones that resuming skipped: they are neither counted nor
    /// touched until the run reaches them again.
    ///
    /// If the checkpoint exists and is sound, it stays and `write` is not called.
    ///
    /// # Errors
    /// A checkpoint that could not be written; the others are untouched. An old one that could not be deleted is only
    /// a warning.
    pub fn publish(
        &self,
        step: usize,
        keep_last: usize,
        best: Option<Best>,
        write: impl FnOnce(&dyn Disk, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let disk = self.disk();
        let published = self.path().join(checkpoint_name(step));
        if !published.exists() || verify_checkpoint(&published).is_err() {
            let temporary = self.beside(SAVING_PREFIX, step);
            let saved = self.save(&temporary, &published, step, write);
            if saved.is_err() && temporary.exists() {
                let _ = durable::remove_tree(disk, &temporary); // the first error is the one to report
            }
            saved?;
        }
        if let Some(best) = best {
            let text = serde_json::to_string(&best).map_err(io::Error::other).map_err(write_error)?;
            durable::replace_file(disk, &self.path().join(BEST_FILE), (text + "\n").as_bytes()).map_err(write_error)?;
        }
        self.delete_old(step, keep_last, best)?;
        Ok(published)
    }

    /// Steps 1 to 3 of the table above.
    fn save(
        &self,
        temporary: &Path,
        published: &Path,
        step: usize,
        write: impl FnOnce(&dyn Disk, &Path) -> Result<()>,
    ) -> Result<()> {
        let disk = self.disk();
        if temporary.exists() {
            durable::remove_tree(disk, temporary).map_err(write_error)?;
        }
        // Not `create_directory`: a run that was moved away meanwhile must not come back as an empty one.
        disk.create_dir(temporary).map_err(write_error)?;
        write(disk, temporary)?;
        Manifest::of_directory(temporary)?.write(disk, &temporary.join(MANIFEST_FILE))?;
        durable::flush_tree(disk, temporary).map_err(write_error)?;
        if published.exists() {
            self.delete(step, published).map_err(write_error)?; // damaged, and only now replaceable
        }
        durable::rename(disk, temporary, published).map_err(write_error)
    }

    /// The newest checkpoint that agrees with its manifest; damaged newer ones are skipped with a warning.
    ///
    /// `None` if the run has not saved any yet.
    ///
    /// # Errors
    /// Checkpoints, of which none is sound: beginning again unasked would hide the damage.
    pub fn newest_sound(&self) -> Result<Option<(usize, PathBuf)>> {
        let mut checkpoints = self.checkpoints()?;
        let count = checkpoints.len();
        while let Some((step, path)) = checkpoints.pop() {
            match verify_checkpoint(&path) {
                Ok(()) => return Ok(Some((step, path))),
                Err(error) => tracing::warn!("{} is skipped: {}", checkpoint_name(step), with_causes(&error)),
            }
        }
        if count == 0 {
            return Ok(None);
        }
        Err(Error::Run {
            path: self.path().to_owned(),
            problem: format!("none of the run's checkpoints is sound ({count} tried)"),
            hint: "restore the files named above from a copy, or begin again with --overwrite".to_owned(),
        })
    }

    /// Step 5. The oldest first, so that a kill leaves the newest.
    fn delete_old(&self, step: usize, keep_last: usize, best: Option<Best>) -> Result<()> {
        let mut old = self.checkpoints()?;
        old.retain(|(other, _)| *other <= step);
        old.truncate(old.len().saturating_sub(keep_last.max(1)));
        old.retain(|(other, _)| best.is_none_or(|best| best.step != *other));
        for (step, path) in old {
            if let Err(error) = self.delete(step, &path) {
                tracing::warn!("{} could not be deleted: {}", checkpoint_name(step), with_causes(&error));
            }
        }
        Ok(())
    }
}

fn write_error(source: io::Error) -> Error {
    Error::Io { action: "write", what: "the checkpoint", source }
}

#[cfg(test)]
mod tests {
    use fs_err as fs;
    use minillm_model::checkpoint::locate;

    use super::*;
    use crate::run_dir::OpenMode;
    use crate::run_dir::tests::{best, fill, names, publish, run_of_two, steps};

    #[test]
    fn the_newest_and_the_best_stay() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path(), OpenMode::New).unwrap();
        assert_eq!(run.newest_sound().unwrap(), None);
        for (step, best_step, expected) in [
            (10, 10, vec![10]),
            (20, 10, vec![10, 20]),
            (30, 10, vec![10, 20, 30]),
            (40, 10, vec![10, 30, 40]),
            (50, 50, vec![40, 50]),
            (60, 50, vec![50, 60]),
        ] {
            let path = publish(&run, step, 2, best(best_step));
            assert_eq!(steps(&run), expected, "after step {step}");
            assert_eq!(run.newest_sound().unwrap(), Some((step, path)));
            assert_eq!(locate::best_step(folder.path()).unwrap(), Some(best_step));
        }
        publish(&run, 70, 0, None);
        assert_eq!(steps(&run), [70], "the one just saved stays whatever keep_last says");
        assert_eq!(names(folder.path()), [".lock", "best.json", "checkpoint-000070"]);
    }

    #[test]
    fn a_sound_checkpoint_is_left_alone_and_a_damaged_one_replaced() {
        let (_folder, path) = run_of_two();
        let run = RunDir::open(&path, OpenMode::Resume).unwrap();
        run.publish(2, 2, Some(best(1)), |_, _| panic!("checkpoint 2 is sound")).unwrap();

        let two = path.join("checkpoint-000002");
        fs::write(two.join("config.json"), "damaged").unwrap();
        assert_eq!(run.newest_sound().unwrap(), Some((1, path.join("checkpoint-000001"))));
        publish(&run, 2, 2, best(1));
        assert_eq!(run.newest_sound().unwrap(), Some((2, two)));
        assert_eq!(names(&path), [".lock", "best.json", "checkpoint-000001", "checkpoint-000002", "config.toml"]);
    }

    #[test]
    fn damaged_checkpoints_beyond_the_step_do_not_push_out_sound_ones() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path(), OpenMode::New).unwrap();
        for step in [1, 2, 9] {
            publish(&run, step, 5, None);
        }
        fs::remove_file(folder.path().join("checkpoint-000009").join("model.safetensors")).unwrap();
        publish(&run, 3, 2, None);
        assert_eq!(steps(&run), [2, 3, 9]);
        assert_eq!(run.newest_sound().unwrap().unwrap().0, 3);
    }

    #[test]
    fn no_sound_checkpoint_is_an_error_and_not_a_new_start() {
        let (_folder, path) = run_of_two();
        let run = RunDir::open(&path, OpenMode::Resume).unwrap();
        for (_, checkpoint) in run.checkpoints().unwrap() {
            fs::remove_file(checkpoint.join(MANIFEST_FILE)).unwrap();
        }
        let error = run.newest_sound().unwrap_err().to_string();
        assert!(error.contains("none of the run's checkpoints is sound (2 tried)"), "{error}");
    }

    #[test]
    fn a_failed_save_leaves_the_run_as_it_was() {
        let (_folder, path) = run_of_two();
        let before = names(&path);
        let run = RunDir::open(&path, OpenMode::Resume).unwrap();
        let error = run.publish(3, 1, Some(best(3)), |_, directory| {
            fill(directory, 3)?;
            Err(write_error(io::ErrorKind::StorageFull.into()))
        });
        assert!(error.unwrap_err().to_string().contains("cannot write the checkpoint"));
        assert_eq!(names(&path), before);
        assert_eq!(locate::best_step(&path).unwrap(), Some(1));
    }

    /// The states of the table above, as a kill leaves them.
    #[test]
    fn every_state_that_a_kill_leaves_opens() {
        type Kill = fn(&Path);
        let kills: [(Kill, usize); 6] = [
            // 1. half written: no manifest
            (|run| fill_new(run, ".saving-000003", false), 2),
            // 2. complete, not renamed
            (|run| fill_new(run, ".saving-000003", true), 2),
            // 3. renamed, best.json still that of before, and the old ones still there
            (|run| fill_new(run, "checkpoint-000003", true), 3),
            // 4. best.json half written beside the old
            (|run| fs::write(run.join(".best.json.part"), "{\"st").unwrap(), 2),
            // 5. set aside, nothing removed; then half removed
            (|run| fs::rename(run.join("checkpoint-000001"), run.join(".deleting-000001")).unwrap(), 2),
            (
                |run| {
                    fs::rename(run.join("checkpoint-000001"), run.join(".deleting-000001")).unwrap();
                    fs::remove_file(run.join(".deleting-000001/model.safetensors")).unwrap();
                },
                2,
            ),
        ];
        for (index, (kill, expected)) in kills.into_iter().enumerate() {
            let (_folder, path) = run_of_two();
            kill(&path);
            let run = RunDir::open(&path, OpenMode::Resume).unwrap();
            let newest = run.newest_sound().unwrap().unwrap();
            assert_eq!(newest.0, expected, "state {index}");
            assert_eq!(
                fs::read_to_string(newest.1.join("config.json")).unwrap(),
                format!("config.json of step {expected}")
            );
            let strays = names(&path).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
            assert_eq!(strays, [".lock"], "state {index}");
            assert!(locate::model_dir(&path).is_ok(), "state {index}");
            publish(&run, 3, 2, best(3));
            assert_eq!(steps(&run), [2, 3], "state {index}");
        }
    }

    fn fill_new(run: &Path, name: &str, with_manifest: bool) {
        let directory = run.join(name);
        fs::create_dir(&directory).unwrap();
        fill(&directory, 3).unwrap();
        if with_manifest {
            Manifest::of_directory(&directory)
                .unwrap()
                .write(&durable::System, &directory.join(MANIFEST_FILE))
                .unwrap();
        }
    }

    #[test]
    fn a_run_that_was_moved_away_does_not_come_back_empty() {
        if cfg!(windows) {
            return; // there the lock file, being open, holds the directory in place
        }
        let (folder, path) = run_of_two();
        let run = RunDir::open(&path, OpenMode::Resume).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        let error = run.publish(3, 2, None, |_, directory| fill(directory, 3)).unwrap_err();
        assert!(with_causes(&error).contains(".saving-000003"), "{}", with_causes(&error));
        assert!(!path.exists());
    }
}

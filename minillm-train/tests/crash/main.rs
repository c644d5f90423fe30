//! A save is stopped after every single call in turn, and the run goes on as if nothing had happened.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod disk;

use std::path::Path;
use std::sync::Arc;

use common::{Bench, files};
use disk::{Fault, FaultyDisk, LOSSES};
use fs_err as fs;
use minillm_infer::device;
use minillm_model::checkpoint::durable::{Disk, System};
use minillm_model::checkpoint::locate;
use minillm_model::checkpoint::manifest::verify_checkpoint;
use minillm_model::error::with_causes;
use minillm_train::config::RunConfig;
use minillm_train::data::Silent;
use minillm_train::error::{Error, Result};
use minillm_train::interrupt::Interrupt;
use minillm_train::run_dir::{OpenMode, RunDir};
use minillm_train::session::Session;

/// Every step is evaluated and saved, and is the best so far, and only the newest checkpoint is kept: so each save also replaces
/// `best.json` and removes the checkpoint before, which must not go too soon.
const BEFORE: usize = 2;
const SAVED: usize = BEFORE + 1;
const LAST: usize = SAVED + 1;

/// Trains `tiny.toml` in the bench's `out` up to `steps`.
fn train(bench: &Bench, out: &str, steps: usize, others: &[&str], disk: Arc<dyn Disk>) -> Result<()> {
    let steps = format!("train.max_steps={steps}");
    let mut changes = vec![
        &*steps,
        "schedule.decay_steps=60",
        "eval.every_steps=1",
        "eval.sample_tokens=0",
        "checkpoint.every_steps=1",
        "checkpoint.keep_last=1",
    ];
    changes.extend(others);
    let changes: Vec<_> = changes.into_iter().map(str::to_owned).collect();
    let mut config = RunConfig::load(&bench.path().join("tiny.toml"), &changes)?;
    config.data.files = vec![bench.path().join("text.txt")];
    let found = device::open("flex")?;
    let out = bench.path().join(out);
    let mode = if RunDir::holds_run(&out)? { OpenMode::Resume } else { OpenMode::New };
    let session = Session { config: &config, out: &out, mode, found: &found, label: Some("run"), disk };
    session.open(&bench.path().join("cache"), &Silent)?.run(&Interrupt::never())?;
    Ok(())
}

/// A bench with the run `straight`, which nothing disturbed, and `base`, which stands before the save that is to go wrong.
fn bench() -> Bench {
    let bench = Bench::new();
    train(&bench, "straight", LAST, &[], Arc::new(System)).unwrap();
    train(&bench, "base", BEFORE, &[], Arc::new(System)).unwrap();
    bench
}

/// Replaces the run `to` by a copy of `from`.
fn copy(bench: &Bench, from: &str, to: &str) {
    let (from, to) = (bench.path().join(from), bench.path().join(to));
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    for (name, content) in files(&from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Trains the run to its end, and finds the bits of the one that nothing disturbed and nothing half done.
fn goes_on(bench: &Bench, out: &str, case: &str) {
    train(bench, out, LAST, &[], Arc::new(System)).unwrap_or_else(|error| panic!("{case}: {}", with_causes(&error)));
    assert!(bench.state(out, LAST) == bench.state("straight", LAST), "{case}");
    assert_eq!(bench.losses(out), bench.losses("straight"), "{case}");
    no_strays(&bench.path().join(out), case);
}

fn no_strays(run: &Path, case: &str) {
    let is_stray = |name: &String| name.starts_with('.') && name != ".lock";
    let strays: Vec<_> = files(run).into_keys().filter(is_stray).collect();
    assert!(strays.is_empty(), "{case}: {strays:?}");
}

/// The calls of the session that takes one more step and saves it.
fn calls(bench: &Bench) -> Vec<disk::Call> {
    copy(bench, "base", "run");
    let disk = Arc::new(FaultyDisk::new(Fault::Nothing));
    train(bench, "run", SAVED, &[], disk.clone()).unwrap();
    let calls = disk.calls();
    for verb in ["create", "write", "flush", "rename", "remove"] {
        assert!(calls.iter().any(|call| call.verb == verb), "no call of `{verb}`: {calls:?}");
    }
    calls
}

#[test]
fn stopped_after_any_call_it_resumes() {
    let bench = bench();
    let calls = calls(&bench);
    let writes = (1..=calls.len()).filter(|number| calls[number - 1].verb == "write");
    let stops: Vec<_> = (0..=calls.len()).map(Fault::StopAfter).chain(writes.map(Fault::StopWithin)).collect();
    let mut resumed_at = [0, 0];
    for &fault in &stops {
        for loss in LOSSES {
            let case = format!("{fault:?} of {}, lost: {loss:?}", calls.len());
            copy(&bench, "base", "run");
            let disk = Arc::new(FaultyDisk::new(fault));
            // A stop among the last removals is only a warning: the run was complete.
            let _ = train(&bench, "run", SAVED, &[], disk.clone());
            disk.lose(loss, &bench.path().join("run"));
            let run = RunDir::open(&bench.path().join("run"), OpenMode::Resume).unwrap();
            let (step, _) = run.newest_sound().unwrap().unwrap();
            assert!(step == BEFORE || step == SAVED, "{case}: resumes at {step}");
            resumed_at[step - BEFORE] += 1;
            let (_, warnings) = locate::model_dir(run.path()).unwrap();
            assert_eq!(warnings, Vec::<String>::new(), "{case}"); // such as a `best.json` of nothing
            drop(run);
            goes_on(&bench, "run", &case);
        }
    }
    let [before, saved] = resumed_at;
    assert!(before > 0 && saved > 0);
    println!(
        "{} calls, {} stops with {} losses each: {before} resumed one step before, {saved} at the step",
        calls.len(),
        stops.len(),
        LOSSES.len()
    );
}

/// With several checkpoints kept, a save that did not last would show only here: an older one would be resumed from.
#[test]
fn what_was_saved_is_there_after_a_power_failure() {
    let bench = bench();
    for loss in LOSSES {
        copy(&bench, "base", "run");
        let disk = Arc::new(FaultyDisk::new(Fault::Nothing));
        train(&bench, "run", SAVED, &["checkpoint.keep_last=9"], disk.clone()).unwrap();
        disk.lose(loss, &bench.path().join("run"));
        let run = RunDir::open(&bench.path().join("run"), OpenMode::Resume).unwrap();
        assert_eq!(run.newest_sound().unwrap().unwrap().0, SAVED, "lost: {loss:?}");
    }
}

#[test]
fn a_disk_that_is_full_from_any_call_on_keeps_what_there_is() {
    let bench = bench();
    let count = calls(&bench).len();
    let mut errors = 0;
    for call in 1..=count {
        let case = format!("full from call {call} of {count} on");
        copy(&bench, "base", "run");
        let disk = Arc::new(FaultyDisk::new(Fault::FullFrom(call)));
        let path = bench.path().join("run");
        if let Err(error) = train(&bench, "run", SAVED, &[], disk.clone()) {
            let text = with_causes(&error);
            assert!(error.is_io() && text.contains("/run") && text.contains("the disk is full"), "{case}: {text}");
            assert!(error.hint().is_some(), "{case}: {text}");
            errors += 1;
        }
        no_strays(&path, &case);
        let run = RunDir::open(&path, OpenMode::Resume).unwrap();
        for (_, checkpoint) in run.checkpoints().unwrap() {
            verify_checkpoint(&checkpoint).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
        assert!(run.newest_sound().unwrap().unwrap().0 >= BEFORE, "{case}");
        drop(run);
        goes_on(&bench, "run", &case);
    }
    assert!(errors > count / 2, "{errors} errors");
    println!("{count} calls: {errors} errors, no checkpoint lost");
}

#[test]
fn with_continue_a_save_that_fails_at_any_call_is_made_up_for() {
    let bench = bench();
    let on_error = ["checkpoint.on_error=continue"];
    // The calls of the first of two saves.
    copy(&bench, "base", "run");
    let disk = Arc::new(FaultyDisk::new(Fault::Nothing));
    train(&bench, "run", LAST, &on_error, disk.clone()).unwrap();
    let calls = disk.calls();
    let is_of_save =
        |call: &disk::Call, step: usize| call.path.to_string_lossy().contains(&format!(".saving-{step:06}"));
    let first = calls.iter().position(|call| is_of_save(call, SAVED)).unwrap();
    let end = calls.iter().position(|call| is_of_save(call, LAST)).unwrap();
    let is_old = |call: &disk::Call| call.path.to_string_lossy().ends_with("checkpoint-000002");
    let deletion = calls.iter().position(is_old).unwrap(); // of the oldest, which is only warned about
    for number in first + 1..=end {
        let case = format!("call {number}, {:?}", calls[number - 1]);
        copy(&bench, "base", "run");
        let disk = Arc::new(FaultyDisk::new(Fault::FailOnce(number)));
        train(&bench, "run", LAST, &on_error, disk).unwrap_or_else(|error| panic!("{case}: {}", with_causes(&error)));
        goes_on(&bench, "run", &case);
        // Without it, the run ends there, unless it was about an old checkpoint.
        copy(&bench, "base", "run");
        let disk = Arc::new(FaultyDisk::new(Fault::FailOnce(number)));
        match train(&bench, "run", LAST, &[], disk) {
            Err(error) => assert!(matches!(error, Error::Io { .. } | Error::Model(_)), "{case}: {error}"),
            Ok(()) => assert!(number > deletion, "{case}"),
        }
        goes_on(&bench, "run", &case);
    }
    // At the end it is an error all the same.
    copy(&bench, "base", "run");
    let disk = Arc::new(FaultyDisk::new(Fault::FullFrom(first + 1)));
    let error = train(&bench, "run", SAVED, &on_error, disk).unwrap_err();
    assert!(with_causes(&error).contains("the disk is full"), "{error}");
}

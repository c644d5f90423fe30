//! No room, no rights, no directory: a named error, nothing half done, and all of what was saved before.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Bench, files, stderr};
use fs_err as fs;
use minillm_model::checkpoint::locate::checkpoints;
use minillm_model::checkpoint::manifest::verify_checkpoint;

/// More steps than any test waits for.
const ENDLESS: [&str; 6] =
    ["--set", "train.max_steps=1000000", "--set", "schedule.decay_steps=60", "--set", "checkpoint.every_steps=5"];

/// Starts an endless run and waits for its second checkpoint.
fn endless(mut command: Command, run: &Path) -> Child {
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let (start, has_two) = (Instant::now(), || checkpoints(run).is_ok_and(|found| found.len() > 1));
    while !has_two() && start.elapsed() < Duration::from_mins(1) {
        sleep(Duration::from_millis(50));
    }
    assert!(has_two(), "no checkpoint in a minute");
    child
}

/// The run ends by itself within a minute, with an error that has these parts, and no panic.
fn failed(mut child: Child, parts: &[&str]) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_mins(1) {
        sleep(Duration::from_millis(50));
    }
    let _ = child.kill(); // nothing, if it has ended
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for part in parts {
        assert!(text.contains(part), "lacks `{part}`: {text}");
    }
    output
}

/// Every checkpoint is sound, and nothing stands beside them that a save left half done.
fn all_sound(run: &Path) -> usize {
    let found = checkpoints(run).unwrap();
    assert!(!found.is_empty());
    for (_, checkpoint) in &found {
        verify_checkpoint(checkpoint).unwrap();
    }
    let is_stray = |name: &String| name.starts_with('.') && name != ".lock";
    assert_eq!(files(run).into_keys().filter(is_stray).collect::<Vec<_>>(), Vec::<String>::new());
    found.len()
}

fn train(out: &str) -> Vec<&str> {
    [&["train", "tiny.toml", "--out", out][..], &ENDLESS].concat()
}

/// The program with files of at most 16 KiB, which metrics fit into for a while and weights do not.
fn limited(bench: &Bench, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -f 32; exec \"$0\" \"$@\""]) // in blocks of 512 bytes
        .arg(bench.command(&[]).get_program())
        .args(arguments)
        .current_dir(bench.path())
        .env("MINILLM_CACHE", bench.path().join("cache"));
    shell
}

#[test]
fn a_file_larger_than_the_limit() {
    let bench = Bench::new();
    bench.train("run", &["--set", "train.max_steps=2", "--set", "schedule.decay_steps=60"]);
    let child = limited(&bench, &[&train("run")[..], &["--resume"]].concat()).stderr(Stdio::piped()).spawn().unwrap();
    failed(child, &["cannot write the tensors", "model.safetensors", "caused by", "hint"]);
    assert_eq!(all_sound(&bench.path().join("run")), 1);
    bench.train("run", &["--resume", "--set", "train.max_steps=4", "--set", "schedule.decay_steps=60"]);
    bench.train("straight", &["--set", "train.max_steps=4", "--set", "schedule.decay_steps=60"]);
    assert!(bench.state("run", 4)[0] == bench.state("straight", 4)[0]);
}

/// They reach the limit in the middle of a record, behind whose half the next one would be lost.
#[test]
fn metrics_that_do_not_fit_are_left_out_whole() {
    let bench = Bench::new();
    let mut arguments = train("run");
    for change in ["train.max_steps=300", "log.every_steps=1", "checkpoint.every_steps=1000"] {
        arguments.extend(["--set", change]);
    }
    arguments.extend(["--set", "checkpoint.on_error=continue"]);
    let child = limited(&bench, &arguments).stderr(Stdio::piped()).spawn().unwrap();
    failed(child, &["training goes on: cannot write the metrics", "model.safetensors"]); // which the end cannot do without
    let metrics = fs::read_to_string(bench.path().join("run/metrics.jsonl")).unwrap();
    assert!(metrics.ends_with('\n') && (16_000..=16 * 1024).contains(&metrics.len()), "{}", metrics.len());
}

#[test]
fn a_directory_that_is_gone() {
    let bench = Bench::new();
    let run = bench.path().join("run");
    // With a sample at each step, which must not make the directory anew either.
    let child = endless(bench.command(&[&train("run")[..], &["--set", "eval.every_steps=1"]].concat()), &run);
    fs::rename(&run, bench.path().join("moved")).unwrap();
    // Which file it misses first depends on the moment: one it writes, reads to hash it, or the list of checkpoints.
    failed(child, &["error: cannot ", "`run", "No such file"]);
    assert!(!run.exists(), "it must not come back as an empty one");
    bench.run(&[&train("moved")[..], &["--resume", "--set", "train.max_steps=60"]].concat());
    all_sound(&bench.path().join("moved")); // what was being saved while it was moved is gone, too
}

/// The administrator may write everywhere, so that as administrator the run is another user's.
#[test]
fn a_directory_that_becomes_read_only() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;

    let bench = Bench::new();
    let set_mode = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let run = bench.path().join("run");
    let mut command = bench.command(&train("run"));
    let probe = bench.path().join("probe");
    fs::create_dir(&probe).unwrap();
    set_mode(&probe, 0o555);
    if fs::write(probe.join("file"), "").is_ok() {
        for directory in [bench.path().to_owned(), bench.path().join("cache"), run.clone()] {
            if !directory.exists() {
                fs::create_dir(&directory).unwrap();
            }
            set_mode(&directory, 0o777);
        }
        command.uid(NOBODY).gid(NOBODY);
        let mut version = bench.command(&["--version"]);
        if !version.uid(NOBODY).gid(NOBODY).status().is_ok_and(|status| status.success()) {
            println!("not tested: whoever may write everywhere cannot become somebody else here");
            return;
        }
    }
    set_mode(&probe, 0o755);
    let child = endless(command, &run);
    set_mode(&run, 0o555);
    failed(child, &["cannot write the", "run/.", "ermission denied", "hint"]);
    all_sound(&run);
    set_mode(&run, 0o777);
}

/// Only where a file system may be mounted inside a namespace of one's own.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_of_8_mib() {
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=8m tmpfs disk || exit 99
        "$0" "$@" --set train.max_steps=10 || exit 98
        head -c 7600000 /dev/zero > disk/ballast  # about half a megabyte is left: two checkpoints
        "$0" "$@" --set train.max_steps=300 --resume
        code=$?
        ls -A disk/run
        cp -r disk/run saved || exit 97
        rm disk/ballast
        "$0" "$@" --set train.max_steps=400 --set checkpoint.keep_last=2 --resume || exit 96
        exit $code"#;
    for (on_error, saves_tried) in [("stop", 1), ("continue", 50)] {
        let bench = Bench::new();
        fs::create_dir(bench.path().join("disk")).unwrap();
        let set = [format!("checkpoint.on_error={on_error}")];
        let mut arguments = vec!["train", "tiny.toml", "--out", "disk/run", "--set", &set[0]];
        for change in ["schedule.decay_steps=60", "checkpoint.every_steps=5", "checkpoint.keep_last=1000"] {
            arguments.extend(["--set", change]);
        }
        let output = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT])
            .arg(env!("CARGO_BIN_EXE_minillm-train"))
            .args(arguments)
            .current_dir(bench.path())
            .env("MINILLM_CACHE", bench.path().join("cache"))
            .output();
        let Ok(output) = output else { return };
        let text = stderr(&output);
        if output.status.code() == Some(99) || text.contains("unshare failed") {
            println!("not tested: no file system may be mounted here");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{on_error}: {text}");
        assert!(text.contains("No space left on device") && text.contains("disk/run/.saving-"), "{on_error}: {text}");
        let tried = text.matches("training goes on").count() + 1;
        assert!(tried >= saves_tried && (on_error == "continue") == (tried > 1), "{on_error}: {tried} saves, {text}");
        let listing = String::from_utf8(output.stdout).unwrap();
        assert!(!listing.contains(".saving-") && !listing.contains(".part"), "{listing}");
        assert!(all_sound(&bench.path().join("saved")) > 1, "{on_error}");
    }
}

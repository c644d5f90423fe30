//! A run that is asked to stop saves and says how to go on; asked twice, it leaves at once.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Bench, stderr};
use minillm_train::run_dir::{OpenMode, RunDir};

const ENDLESS: [&str; 4] = ["--set", "train.max_steps=1000000", "--set", "schedule.decay_steps=60"];

/// `train tiny.toml --out run`, as good as endless.
fn endless<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "tiny.toml", "--out", "run"][..], &ENDLESS, more].concat()
}

/// Until it trains: the first step is logged.
fn until_it_trains(bench: &Bench) {
    until("trains", || std::fs::metadata(bench.path().join("run/metrics.jsonl")).is_ok_and(|file| file.len() > 0));
}

fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1200 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("after a minute it is not so: {what}");
}

fn send(signal: &str, process: u32) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().unwrap().success());
}

fn start(bench: &Bench, arguments: &[&str]) -> Child {
    bench.command(arguments).stderr(Stdio::piped()).spawn().unwrap()
}

/// What was saved after the interruption is what a run becomes that ends there by itself.
fn is_what_a_quiet_run_becomes(bench: &Bench, more: &[&str]) {
    let step = bench.newest_step("run");
    let short = format!("train.max_steps={step}");
    bench.train("quiet", &[&["--set", &short, "--set", "schedule.decay_steps=60"], more].concat());
    assert!(bench.state("run", step)[0] == bench.state("quiet", step)[0], "step {step}");
}

/// Where the tests themselves run under `nohup`, no hangup arrives; elsewhere than on Linux the program guesses from stderr.
fn hangup_arrives() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 0)
}

#[test]
fn the_first_signal_saves_and_says_how_to_go_on() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 143)] {
        if signal == "HUP" && !hangup_arrives() {
            continue;
        }
        let bench = Bench::new();
        let child = start(&bench, &endless(&[]));
        until_it_trains(&bench);
        send(signal, child.id());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
        is_what_a_quiet_run_becomes(&bench, &[]);
    }
}

#[test]
fn the_second_signal_leaves_in_the_middle_of_a_step() {
    let bench = Bench::new();
    // A first step that is saved, and then steps that take some minutes each.
    bench.train("run", &["--set", "train.max_steps=1", "--set", "schedule.decay_steps=60"]);
    bench.write("slow.toml", &common::TINY.replace("batch_size = 5", "batch_size = 1000000"));
    let mut child = start(&bench, &[&["train", "slow.toml", "--out", "slow"][..], &ENDLESS].concat());
    until("is locked", || bench.path().join("slow/config.toml").exists());
    sleep(Duration::from_secs(1));
    send("INT", child.id());
    sleep(Duration::from_secs(1));
    assert_eq!(child.try_wait().unwrap(), None, "the first waits for the step");
    send("INT", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stderr(&output).contains("a second signal leaves at once, without saving"), "{}", stderr(&output));
    assert_eq!(bench.newest_step("slow"), 0);
    bench.run(&["train", "tiny.toml", "--out", "slow", "--overwrite", "--set", "train.max_steps=1"]); // it is not locked
}

/// With a terminal of its own, made by `script` (util-linux), whose end closes it.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_terminal_saves() {
    if !hangup_arrives() || Command::new("script").arg("--version").output().is_err() {
        return;
    }
    let bench = Bench::new();
    let line = [&[env!("CARGO_BIN_EXE_minillm-train")][..], &endless(&[])].concat().join(" ");
    let mut terminal = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &format!("exec {line}"), "/dev/null"])
        .current_dir(bench.path())
        .env("MINILLM_CACHE", bench.path().join("cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until_it_trains(&bench);
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let run = bench.path().join("run");
    until("the run is free", || RunDir::open(&run, OpenMode::Resume).is_ok());
    assert!(bench.newest_step("run") > 0);
    is_what_a_quiet_run_becomes(&bench, &[]);
}

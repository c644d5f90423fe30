//! A run's page: made by training, from the run's files alone, and needing nothing but itself.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, stderr};

fn page(bench: &Bench, run: &str) -> String {
    fs_err::read_to_string(bench.path().join(run).join("report.html")).unwrap()
}

#[test]
fn training_leaves_a_report_that_stands_alone() {
    let bench = Bench::new();
    bench.train("runs/a <b>", &[]);
    let html = page(&bench, "runs/a <b>");
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("a &lt;b&gt;") && !html.contains("a <b>"));
    for part in ["60 of 60 steps", "RMSNorm, RoPE, SwiGLU", "step 20<", "step 60<", "checkpoint-000060", "text.txt"] {
        assert!(html.contains(part), "lacks `{part}`");
    }
    // Loss (training and validation), speed, gradient norm (and where it is clipped), learning rate; no floor is known.
    assert_eq!(html.matches("<svg").count(), 4);
    assert!(html.matches("<polyline").count() >= 6);
    for outside in ["src=", "href=\"http", "url(", "@import", "<script"] {
        assert!(!html.contains(outside), "asks for something: `{outside}`");
    }

    // From the files alone it is made again, the same.
    fs_err::remove_file(bench.path().join("runs/a <b>/report.html")).unwrap();
    bench.run(&["report", "runs/a <b>"]);
    assert_eq!(page(&bench, "runs/a <b>"), html);

    // It goes with the run.
    bench.train("runs/a <b>", &["--overwrite", "--set", "train.max_steps=2", "--set", "schedule.decay_steps=2"]);
    assert!(page(&bench, "runs/a <b>").contains("2 of 2 steps"));
}

#[test]
fn the_floor_of_tales_is_drawn() {
    let bench = Bench::new();
    let change = ["--set", "data.files=[]", "--set", "data.source=tales", "--set", "data.order=documents"];
    let short = ["--set", "train.max_steps=4", "--set", "schedule.decay_steps=4", "--set", "schedule.warmup_steps=0"];
    bench.train("tales", &[&change[..], &short, &["--set", "eval.every_steps=2"]].concat());
    let html = page(&bench, "tales");
    assert!(html.contains(">floor</text>") && html.contains("Gap to the floor") && html.contains("the gap is"));
}

/// Whatever is missing or damaged in a run, a page is made of the rest.
#[test]
fn a_damaged_run_has_a_report_of_what_is_left() {
    let bench = Bench::new();
    let run = bench.path().join("run");
    fs_err::create_dir(&run).unwrap();
    let output = bench.command(&["report", "run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("metrics.jsonl"), "{}", stderr(&output));

    bench.write("run/metrics.jsonl", "");
    bench.run(&["report", "run"]);
    assert!(page(&bench, "run").contains("Nothing has been recorded yet"));

    let lines = "{\"step\":1,\"tokens\":64,\"train/loss\":2.5,\"train/lr\":1e400}\nhello\n\n{\"step\":2,\"tok";
    bench.write("run/metrics.jsonl", lines);
    bench.write("run/config.toml", "seed = <script>");
    fs_err::create_dir_all(run.join("samples")).unwrap();
    bench.write("run/samples/step-000001.txt", "<img src=x>");
    bench.write("run/samples/notes.txt", "not ours");
    fs_err::create_dir_all(run.join("checkpoint-000001/trainer")).unwrap();
    bench.write("run/checkpoint-000001/trainer/state.json", "{");
    bench.run(&["report", "run"]);
    let html = page(&bench, "run");
    assert!(html.contains("&lt;img src=x&gt;") && html.contains("seed = &lt;script&gt;") && !html.contains("not ours"));
}

/// A report that cannot be written is not worth a run.
#[test]
fn training_goes_on_without_a_report() {
    let bench = Bench::new();
    fs_err::create_dir_all(bench.path().join("run/report.html")).unwrap(); // a directory is in its place
    let short = ["--set", "train.max_steps=2", "--set", "schedule.decay_steps=2", "--set", "schedule.warmup_steps=0"];
    let output = bench.train("run", &short);
    assert!(stderr(&output).contains("no report"), "{}", stderr(&output));
    assert!(bench.path().join("run/checkpoint-000002/model.safetensors").exists());
}

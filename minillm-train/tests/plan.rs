//! `plan` says before the first step what `train` will need.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, stderr};
use serde_json::Value;

fn plan(bench: &Bench, arguments: &[&str]) -> Value {
    let output = bench.run(&[&["plan", "tiny.toml", "--device", "flex", "--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_parts_add_up() {
    let bench = Bench::new();
    let plan = plan(&bench, &["--memory", "8"]);
    let sum = |object: &Value| object.as_object().unwrap().values().map(|value| value.as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum(&plan["parameters_by_part"]), plan["parameters"].as_u64().unwrap());
    for form in ["fast", "readable"] {
        let memory = &plan["memory"][form];
        let moments = ["forward", "backward", "saving"].map(|moment| sum(&memory[moment]));
        assert_eq!(moments.into_iter().max(), memory["peak_memory_bytes"].as_u64());
    }
    assert_eq!(plan["peak_memory_bytes"], plan["memory"]["fast"]["peak_memory_bytes"]);
    assert!(plan["calibrating_steps"].as_u64().unwrap() >= 10);
    let (step, evaluation) =
        (plan["ms_per_step"].as_f64().unwrap() / 1e3, plan["evaluation_seconds"].as_f64().unwrap());
    // 60 steps, an evaluation after every 20.
    let seconds = plan["seconds"].as_f64().unwrap();
    assert!((seconds - 60.0 * step - 3.0 * evaluation).abs() < 1e-6 * seconds);
    assert_eq!(plan["suggestion"]["micro_batch_size"], 5, "all of the batch fits");
    assert_eq!(plan["suggestion"]["accumulation"], 1);
    assert!(!bench.path().join("runs").exists(), "nothing is run");
}

#[test]
fn the_text_says_the_same() {
    let bench = Bench::new();
    let output =
        bench.run(&["plan", "tiny.toml", "--device", "flex", "--memory", "0.001", "--set", "train.recompute=true"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in
        ["parameters", "activations", "held by allocator", "tokens a second", "60 steps", "nothing fits into 1.0 MB"]
    {
        assert!(text.contains(part), "lacks `{part}`:\n{text}");
    }
}

#[test]
fn a_size_that_is_none_is_refused() {
    let bench = Bench::new();
    for size in ["0", "-1", "nan"] {
        let output = bench.command(&["plan", "tiny.toml", &format!("--memory={size}")]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{size}");
        assert!(stderr(&output).contains("`--memory`"), "{}", stderr(&output));
    }
}

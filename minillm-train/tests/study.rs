//! Studies: what they hold equal, that they survive a kill, and that they see no difference where there is none.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Bench, root, stderr};
use minillm_train::study::design::{Design, Variant};
use minillm_train::study::file::Hold;
use minillm_train::study::summary::StudySummary;
use serde_json::Value;

/// Three variants of the bench's tiny run, one of them twice.
const PAIR: &str = r#"
title = "A pair"
question = "Is a variant different from itself?"
base = "tiny.toml"
seeds = [1, 2, 3]
hold = "parameters"
[budget]
steps = 12
[[variants]]
name = "LLaMA"
[[variants]]
name = "LLaMA again"
[[variants]]
name = "LLaMA, other seeds"
seeds = [4, 5, 6]
[[variants]]
name = "GELU, learned"
set = { "model.mlp" = "gelu", "model.position" = "learned" }
[evaluate]
contexts = [1, 2]
rope_scaling = ["linear", "dynamic", "yarn"]
decode_tokens = 8
"#;

fn shipped() -> Vec<PathBuf> {
    let entries = fs_err::read_dir(root().join("configs/studies")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths
}

fn design(path: &Path, full: bool) -> Design {
    let cache = tempfile::tempdir().unwrap();
    Design::load(path, &[], full, cache.path(), |_| panic!("no shipped study has a budget in seconds"))
        .unwrap_or_else(|error| panic!("{error}\n{:?}", error.hint()))
}

/// The largest value over the smallest.
fn spread(variants: &[Variant], value: impl Fn(&Variant) -> f64) -> f64 {
    let values = || variants.iter().map(&value);
    values().fold(f64::NEG_INFINITY, f64::max) / values().fold(f64::INFINITY, f64::min)
}

#[test]
fn every_shipped_study_loads_and_holds_what_it_says() {
    let mut names = Vec::new();
    for path in shipped() {
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        for full in [false, true] {
            let design = design(&path, full);
            let case = format!("{} full={full}", path.display());
            let least = if names.last().unwrap() == "kv-heads" { 4 } else { 3 };
            assert!(design.variants.len() >= least, "{case}");
            for variant in &design.variants {
                assert!(variant.seeds.len() >= 3, "{case}");
                assert_eq!(
                    variant.config.model.resolve(variant.model.vocab_size, variant.config.train.context),
                    variant.model
                );
            }
            let (parameters, flops) =
                (spread(&design.variants, |v| v.parameters() as f64), spread(&design.variants, Variant::flops));
            match design.hold {
                Hold::Parameters => {
                    assert!(parameters < 1.01, "{case}: parameters differ by the factor {parameters}");
                    assert!(spread(&design.variants, |v| v.tokens() as f64) <= 1.0, "{case}");
                }
                Hold::Flops => assert!(flops < 1.02, "{case}: FLOPs differ by the factor {flops}"),
                Hold::Nothing => {}
            }
        }
    }
    let expected = ["gpt-to-llama", "kv-heads", "mlp", "norms", "optimizers", "positions", "tokenizers"];
    assert_eq!(names, expected);
}

#[test]
fn variants_that_differ_in_one_key_make_a_line() {
    let path = root().join("configs/studies/norms.toml");
    let over = StudySummary::new(&design(&path, false), &[]).over.unwrap();
    let names: Vec<_> = over.lines.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names, ["LayerNorm", "RMSNorm", "q/k norm"]);
    for (index, line) in over.lines.iter().enumerate() {
        let place = |round: usize| 3 * round + index;
        assert_eq!(line.points, [(2e-3, place(0)), (6e-3, place(1)), (2e-2, place(2)), (6e-2, place(3))]);
    }
    let path = root().join("configs/studies/kv-heads.toml");
    let over = StudySummary::new(&design(&path, false), &[]).over.unwrap();
    assert_eq!(over.lines.len(), 1);
    assert_eq!(over.lines[0].points, [(1.0, 3), (2.0, 2), (4.0, 1), (8.0, 0)]);
}

fn results(bench: &Bench, out: &str) -> Value {
    serde_json::from_str(&fs_err::read_to_string(bench.path().join(out).join("results.json")).unwrap()).unwrap()
}

#[test]
fn the_same_variant_twice_shows_no_difference() {
    let bench = Bench::new();
    bench.write("pair.toml", PAIR);
    let output = bench.run(&["study", "pair.toml", "--out", "pair"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("LLaMA again: no difference: the same to the last digit (3 seeds)"), "{text}");

    let results = results(&bench, "pair");
    let variants = results["summary"]["variants"].as_array().unwrap();
    let difference = &variants[1]["difference"];
    assert_eq!(difference["estimate"]["mean"], 0.0);
    assert_eq!(difference["estimate"]["half_width"], 0.0);
    assert_eq!(difference["is_paired"], true);
    // With other seeds the runs differ, and the difference is not taken seed by seed.
    let difference = &variants[2]["difference"];
    assert_ne!(difference["estimate"]["mean"], 0.0);
    assert_eq!(difference["is_paired"], false);

    // A run is what `train` makes of its configuration.
    let run = bench.path().join("pair/runs/llama/seed-2");
    let config = run.join("config.toml");
    bench.run(&["train", config.to_str().unwrap(), "--out", "alone"]);
    let weights = |run: &Path| fs_err::read(run.join("checkpoint-000012/model.safetensors")).unwrap();
    assert!(weights(&run) == weights(&bench.path().join("alone")));

    // At its own context a trained model has the loss it ended with; beyond, learned positions have none.
    for run in results["runs"].as_array().unwrap() {
        let at = |context: u64, stretch: &str| {
            let found = run["contexts"]
                .as_array()
                .unwrap()
                .iter()
                .find(|at| at["context"] == context && at["stretch"].as_str().unwrap_or("none") == stretch);
            found.unwrap_or(&Value::Null).clone()
        };
        assert_eq!(at(16, "none")["loss"], run["validation"]["loss"]);
        let rotary = run["variant"] != "GELU, learned";
        for stretch in ["none", "linear", "dynamic", "yarn"] {
            assert_eq!(at(32, stretch)["loss"].is_f64(), rotary, "{run}");
            assert_eq!(at(32, stretch)["note"].is_string(), !rotary, "{run}");
        }
        assert_eq!(rotary, at(32, "none")["loss"] != at(32, "linear")["loss"]);
        assert!(run["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
        assert!(run["environment"]["threads"].as_u64().unwrap() > 0);
        assert!(run["config"].as_str().unwrap().contains("[optimizer]"));
        if cfg!(target_os = "linux") {
            assert!(run["peak_memory_bytes"].as_u64().unwrap() > 1_000_000);
        }
    }
    let page = fs_err::read_to_string(bench.path().join("pair/study.html")).unwrap();
    assert!(page.contains("LLaMA again") && page.contains("<svg") && !page.contains("<script"));
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("http"), "the page asks for something");
    let csv = fs_err::read_to_string(bench.path().join("pair/results.csv")).unwrap();
    let columns = |line: &str| line.matches(',').count();
    assert_eq!(csv.lines().count(), 5);
    assert_eq!(columns(csv.lines().nth(1).unwrap()), columns(csv.lines().next().unwrap()));
    assert!(fs_err::read_to_string(bench.path().join("pair/results.md")).unwrap().contains("| LLaMA again | "));
    assert!(bench.path().join("pair/figures/difference.svg").exists());
}

/// What must not depend on interruptions: everything but times and memory.
fn without_timings(mut results: Value) -> Value {
    const TIMINGS: [&str; 5] =
        ["tokens_per_second", "peak_memory_bytes", "decode_tokens_per_second", "seconds", "date"];
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !TIMINGS.contains(&name.as_str()));
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut results);
    results
}

/// 300 steps with checkpoints on the way, two variants and two seeds: four runs of about a second.
const LONG: &str = r#"
title = "Long enough to be killed"
question = "Does a kill change anything?"
base = "tiny.toml"
seeds = [1, 2]
hold = "parameters"
[budget]
steps = 300
[[variants]]
name = "RMSNorm"
set = { "model.norm" = "rmsnorm", "checkpoint.every_steps" = 20 }
[[variants]]
name = "LayerNorm"
from = "RMSNorm"
set = { "model.norm" = "layernorm" }
"#;

#[test]
fn a_killed_study_ends_with_the_same_table() {
    let bench = Bench::new();
    bench.write("long.toml", LONG);
    bench.run(&["study", "long.toml", "--out", "straight"]);
    let study = ["study", "long.toml", "--out", "killed"];
    let started = Instant::now();
    let mut kills = 0;
    let mut wait = Duration::from_millis(700);
    loop {
        let mut child = bench.command(&study).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let ended = loop {
            if child.try_wait().unwrap().is_some() {
                break true;
            }
            if begun.elapsed() > wait {
                break false;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if ended {
            break;
        }
        child.kill().unwrap(); // the study, not the run at work: that one sees its input end
        child.wait().unwrap();
        kills += 1;
        // Every time a little longer, so that it gets done on any machine.
        wait = wait * 5 / 4;
        assert!(started.elapsed() < Duration::from_mins(5), "the study does not get done");
    }
    assert!(kills >= 2, "the study was done before it was killed");
    let (straight, killed) = (results(&bench, "straight"), results(&bench, "killed"));
    assert_eq!(without_timings(straight), without_timings(killed));
    // Started once more, it has nothing to do, and says the same.
    let again = bench.run(&study);
    assert!(!stderr(&again).contains("[1/4]"), "{}", stderr(&again));
    let losses = |out: &[u8]| {
        let text = String::from_utf8(out.to_vec()).unwrap();
        text.split("\n\n").nth(1).unwrap().to_owned() // the table of losses
    };
    let straight = bench.run(&["study", "long.toml", "--out", "straight"]);
    assert_eq!(losses(&again.stdout), losses(&straight.stdout));
}

#[cfg(unix)]
#[test]
fn an_interrupted_study_says_how_to_go_on() {
    let bench = Bench::new();
    bench.write("long.toml", &LONG.replace("steps = 300", "steps = 100000"));
    let command = ["study", "long.toml", "--out", "study"];
    let child = bench.command(&command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = bench.path().join("study/runs/rmsnorm/seed-1/metrics.jsonl");
    for _ in 0..600 {
        std::thread::sleep(Duration::from_millis(50));
        if fs_err::metadata(&metrics).is_ok_and(|file| file.len() > 0) {
            break;
        }
    }
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("0 of 4 runs done; the same command goes on"), "{}", stderr(&output));
    let run = metrics.parent().unwrap();
    assert!(!run.join("result.json").exists());
    let checkpoints = fs_err::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(checkpoints.into_iter().any(|name| name.to_string_lossy().starts_with("checkpoint-")));
}

#[test]
fn a_study_may_grow_and_not_change() {
    let bench = Bench::new();
    let short = LONG.replace("steps = 300", "steps = 4");
    bench.write("study.toml", &short);
    let command = ["study", "study.toml", "--out", "study"];
    bench.run(&command);
    let result = bench.path().join("study/runs/rmsnorm/seed-1/result.json");
    let first = fs_err::read(&result).unwrap();

    for (from, to, named) in [
        ("steps = 4", "steps = 5", "`variants.RMSNorm: train.max_steps` was 4 and is now 5"),
        ("hold = \"parameters\"", "hold = \"nothing\"", "`hold` was \"parameters\" and is now \"nothing\""),
        ("seeds = [1, 2]", "seeds = [1]", "seed 2 of `variants.RMSNorm` is gone"),
        ("name = \"LayerNorm\"", "name = \"Norm\"", "`variants.LayerNorm` is gone"),
        (
            "\"layernorm\"",
            "\"layernorm\", \"optimizer.beta2\" = 0.9",
            "`variants.LayerNorm: optimizer.beta2` was 0.95 and is now 0.9",
        ),
        (
            "[[variants]]\nname = \"RMSNorm\"",
            "[evaluate]\ncontexts = [1]\n[[variants]]\nname = \"RMSNorm\"",
            "`evaluate` was",
        ),
    ] {
        let changed = short.replacen(from, to, 1);
        assert_ne!(changed, short);
        bench.write("study.toml", &changed);
        let output = bench.command(&command).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{to}: {}", stderr(&output));
        assert!(stderr(&output).contains(named), "{to}: {}", stderr(&output));
        assert!(stderr(&output).contains("only variants and seeds may be added"), "{}", stderr(&output));
    }

    let grown = short.replace("seeds = [1, 2]", "seeds = [1, 2, 3]").replace("Long enough", "Told otherwise");
    bench.write(
        "study.toml",
        &format!("{grown}[[variants]]\nname = \"MQA\"\nset = {{ \"model.num_key_value_heads\" = 1 }}\n"),
    );
    let output = bench.run(&command);
    let log = stderr(&output);
    assert_eq!(log.matches(" s)").count(), 5, "two variants with a third seed and one with three: {log}");
    assert_eq!(fs_err::read(&result).unwrap(), first, "what was done is kept");
    assert_eq!(results(&bench, "study")["summary"]["variants"].as_array().unwrap().len(), 3);
}

#[test]
fn a_run_that_diverges_is_a_result() {
    let bench = Bench::new();
    let text = LONG.replace("steps = 300", "steps = 10").replace(
        "set = { \"model.norm\" = \"layernorm\" }",
        "set = { \"optimizer.learning_rate\" = 1e30, \"schedule.warmup_steps\" = 0 }",
    );
    bench.write("study.toml", &text);
    let output = bench.run(&["study", "study.toml", "--out", "study"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("LayerNorm: diverged with all 2 seeds, first at step "), "{text}");
    let results = results(&bench, "study");
    assert_eq!(results["summary"]["variants"][1]["diverged"].as_array().unwrap().len(), 2);
    assert_eq!(results["summary"]["variants"][1]["loss"], Value::Null);
}

#[test]
fn a_budget_in_seconds_becomes_steps_once() {
    let bench = Bench::new();
    bench.write("study.toml", &LONG.replace("steps = 300", "seconds = 0.2").replace("seeds = [1, 2]", "seeds = [1]"));
    let command = ["study", "study.toml", "--out", "study"];
    bench.run(&command);
    let steps = |results: &Value| results["summary"]["variants"][0]["steps"].as_u64().unwrap();
    let first = steps(&results(&bench, "study"));
    assert!(first > 1);
    let again = bench.run(&command);
    assert!(!stderr(&again).contains("measuring"), "{}", stderr(&again));
    assert_eq!(steps(&results(&bench, "study")), first);
}

#[test]
fn mistakes_are_named() {
    let bench = Bench::new();
    let refusal = |text: &str| {
        bench.write("study.toml", text);
        let output = bench.command(&["study", "study.toml"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}\n{}", stderr(&output));
        assert!(!bench.path().join("studies").exists(), "a refusal leaves no trace");
        stderr(&output)
    };
    for (from, to, message, hint) in [
        ("seeds =", "seed =", "study.toml: `seed` is not a key", "did you mean `seeds`?"),
        ("steps =", "step =", "study.toml: `budget.step` is not a key", "did you mean `steps`?"),
        (
            "name = \"RMSNorm\"",
            "nmae = \"RMSNorm\"",
            "study.toml: `variants[0].nmae` is not a key",
            "did you mean `name`?",
        ),
        (
            "from = \"RMSNorm\"",
            "from = \"RMSnorm\"",
            "`variants.LayerNorm.from` is `RMSnorm`",
            "did you mean `RMSNorm`?",
        ),
        ("name = \"LayerNorm\"", "name = \"rmsnorm!\"", "has the folder of `RMSNorm`", "choose another `name`"),
        ("[1, 2]", "[1, 1]", "`seeds` has 1 twice", "name each once"),
        ("[1, 2]", "[]", "`seeds` is empty", "three seeds"),
        ("steps = 300", "steps = 300\ntokens = 5", "`budget` has more than one", "keep one"),
        ("hold = \"parameters\"", "hold = \"params\"", "`hold` cannot be used", "compare with"),
        (
            "\"model.norm\" = \"layernorm\"",
            "\"model.norms\" = \"layernorm\"",
            "variants.LayerNorm: `model.norms` is not a key",
            "write `model.norm=",
        ),
        ("\"layernorm\"", "\"nonorm\"", "variants.LayerNorm: `model.norm` cannot be `nonorm`", "\"rmsnorm\""),
        (
            "\"layernorm\"",
            "\"layernorm\", \"model.intermediate_size\" = 9",
            "is what `hold = \"parameters\"` solves for",
            "leave it out",
        ),
        ("\"layernorm\"", "\"layernorm\", \"model.hidden_size\" = 256", "no MLP width gives them", "more alike"),
        ("\"layernorm\"", "\"layernorm\", \"data.validation_fraction\" = 0.3", "reads another text", "`order` alone"),
        ("tiny.toml", "tinny.toml", "tinny.toml` does not exist", "configs/quickstart.toml"),
        (
            "[budget]",
            "[figure]\nover = \"optimizer.lr\"\n[budget]",
            "`figure.over` is `optimizer.lr`",
            "did you mean `optimizer.learning_rate`?",
        ),
        ("title = ", "title = = ", "study.toml:2: `title = = ", "configs/studies/"),
    ] {
        let text = LONG.replacen(from, to, 1);
        assert_ne!(text, LONG, "{from}");
        let log = refusal(&text);
        assert!(log.contains(message) && log.contains(hint), "{to}: {log}");
    }
    let output = bench.command(&["study", "missing.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`missing.toml` does not exist"), "{}", stderr(&output));
}

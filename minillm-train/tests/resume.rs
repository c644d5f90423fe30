//! Stopping and resuming anywhere changes nothing, and a killed run loses at most what it had not saved.

#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write;
use std::time::Duration;

use common::{Bench, cpu_devices, stderr};

/// The 2,900 characters give about 163 windows of 16 tokens for training: 32 steps of 5 make an epoch, and step 33 lies
/// across its end.
const STOPS: [usize; 7] = [1, 7, 10, 11, 32, 33, 34];

#[test]
fn resuming_anywhere_equals_going_straight() {
    for (device, optimizer) in cpu_devices().into_iter().flat_map(|device| [(device, "adamw"), (device, "muon")]) {
        let bench = Bench::new();
        let kind = format!("optimizer.kind={optimizer}");
        let arguments = ["--device", device, "--set", &kind];
        bench.train("straight", &arguments);
        for stop in STOPS {
            let out = format!("stopped-{stop}");
            bench.train(&out, &[&arguments[..], &["--set", &format!("train.max_steps={stop}")]].concat());
            bench.train(&out, &[&arguments[..], &["--resume"]].concat());
            let case = format!("{optimizer} on {device}, stopped after step {stop}");
            assert!(bench.state("straight", 60) == bench.state(&out, 60), "{case}");
            assert_eq!(bench.losses("straight"), bench.losses(&out), "{case}");
        }
    }
}

/// Conversations and preferences about the same lines, and a configuration that learns the first.
fn with_conversations(bench: &Bench) {
    let message = |role: &str, words: String| serde_json::json!({ "role": role, "content": words });
    let (mut conversations, mut pairs) = (String::new(), String::new());
    for i in 0..60 {
        let question = message("user", format!("{} and {} make", i % 7, i % 5));
        let [right, wrong] = [0, 1].map(|off| message("assistant", (i % 7 + i % 5 + off).to_string()));
        writeln!(conversations, "{}", serde_json::json!({ "messages": [question, right] })).unwrap();
        let pair = serde_json::json!({ "prompt": [question], "chosen": [right], "rejected": [wrong] });
        writeln!(pairs, "{pair}").unwrap();
    }
    bench.write("chat.jsonl", &conversations);
    bench.write("pairs.jsonl", &pairs);
    let chat = common::TINY
        .replace("files = [\"text.txt\"]\norder = \"shuffled\"", "files = [\"chat.jsonl\"]")
        .replace("kind = \"char\"", "kind = \"bpe\"\nvocab_size = 300")
        .replace("context = 16", "context = 64");
    bench.write("tiny.toml", &format!("{chat}[objective]\nkind = \"chat\"\n"));
    let from = "[tokenizer]\nkind = \"bpe\"\nvocab_size = 300\n[model]\n";
    let begin = chat.find(from).unwrap();
    let end = begin + chat[begin..].find("dropout = 0.1").unwrap();
    let adapted = format!("{}[model]\nfrom = \"base\"\n{}", &chat[..begin], &chat[end..]);
    bench.write(
        "lora.toml",
        &format!("{adapted}[objective]\nkind = \"chat\"\n[lora]\nrank = 2\ntargets = [\"all-linear\"]\n"),
    );
    let pairs = adapted.replace("chat.jsonl", "pairs.jsonl");
    bench.write("prefer.toml", &format!("{pairs}[objective]\nkind = \"preference\"\n"));
    bench.write("prefer-lora.toml", &format!("{pairs}[objective]\nkind = \"preference\"\n[lora]\nrank = 2\n"));
}

#[test]
fn every_objective_resumes_exactly_with_and_without_an_adapter() {
    for device in cpu_devices() {
        let bench = Bench::new();
        with_conversations(&bench);
        bench.train("base", &["--device", device, "--set", "train.max_steps=4"]);
        for config in ["tiny.toml", "lora.toml", "prefer.toml", "prefer-lora.toml"] {
            let train = |out: &str, steps: &str, more: &[&str]| {
                let arguments = ["train", config, "--out", out, "--device", device, "--set", steps];
                bench.run(&[&arguments[..], more].concat());
            };
            let [straight, stopped] = ["straight", "stopped"].map(|name| format!("{name}-{config}"));
            // 54 conversations fill about 17 rows: the fourth step of 5 begins another epoch.
            train(&straight, "train.max_steps=7", &[]);
            train(&stopped, "train.max_steps=3", &[]);
            train(&stopped, "train.max_steps=7", &["--resume"]);
            assert!(bench.state(&straight, 7) == bench.state(&stopped, 7), "{config} on {device}");
            assert_eq!(bench.losses(&straight), bench.losses(&stopped), "{config} on {device}");
            assert_eq!(bench.losses(&straight).len(), 7);
        }
        // An adapter goes on with no other weights than those that it is for.
        bench.train("base", &["--device", device, "--set", "train.max_steps=5", "--overwrite"]);
        let resume = ["train", "lora.toml", "--out", "stopped-lora.toml", "--resume", "--set", "train.max_steps=9"];
        let output = bench.command(&[&resume[..], &["--device", device]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("began with other weights"), "{}", stderr(&output));
    }
}

#[test]
fn the_same_run_twice_gives_the_same_bits() {
    for device in cpu_devices() {
        let bench = Bench::new();
        let short = ["--device", device, "--set", "train.max_steps=12"];
        bench.train("one", &short);
        bench.train("two", &short);
        assert!(bench.state("one", 12) == bench.state("two", 12), "{device}");
        bench.train("other-seed", &[&short[..], &["--set", "seed=12"]].concat());
        assert!(bench.state("one", 12)[0] != bench.state("other-seed", 12)[0], "{device}");
    }
}

#[test]
fn the_split_into_micro_batches_changes_rounding_only() {
    let bench = Bench::new();
    bench.train("whole", &["--set", "train.micro_batch_size=5", "--set", "train.max_steps=12"]);
    let whole = bench.losses("whole");
    for size in [1, 2, 3] {
        let out = format!("split-{size}");
        bench.train(&out, &["--set", &format!("train.micro_batch_size={size}"), "--set", "train.max_steps=12"]);
        for (a, b) in whole.iter().zip(bench.losses(&out)) {
            // f32 sums in another order, amplified over twelve steps
            assert!((a - b).abs() < 1e-4 * a, "micro-batches of {size}: {a} {b}");
        }
    }
}

/// `MINILLM_KILLS` asks for more kills than the default.
#[test]
fn a_killed_run_resumes() {
    let kills: usize = std::env::var("MINILLM_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(6);
    let bench = Bench::new();
    let every_step =
        ["--set", "checkpoint.every_steps=1", "--set", "train.max_steps=100000", "--set", "schedule.decay_steps=60"];
    bench.train(
        "run",
        &["--set", "checkpoint.every_steps=1", "--set", "train.max_steps=2", "--set", "schedule.decay_steps=60"],
    );
    let mut last_step = 2;
    for kill in 0..kills {
        let arguments = [&["train", "tiny.toml", "--out", "run", "--resume"], &every_step[..]].concat();
        let mut child = bench.command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
        // Spread over start, training and saving: 150 ms to 1.15 s.
        std::thread::sleep(Duration::from_millis(150 + (kill as u64 * 377) % 1000));
        child.kill().unwrap();
        child.wait().unwrap();
        let step = bench.newest_step("run");
        assert!(step >= last_step, "kill {kill}: {last_step} -> {step}");
        last_step = step;
    }
    assert!(last_step > 2, "no run got anywhere before it was killed");
    let stop = format!("train.max_steps={}", last_step + 1);
    bench.train(
        "run",
        &["--resume", "--set", "checkpoint.every_steps=1", "--set", &stop, "--set", "schedule.decay_steps=60"],
    );
    // What the killed run became is what a run that nobody killed becomes.
    bench.train("quiet", &["--set", &stop, "--set", "schedule.decay_steps=60"]);
    let weights = |out: &str| bench.state(out, last_step + 1)[0].1.clone();
    assert!(weights("run") == weights("quiet"));
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let bench = Bench::new();
    bench.train("run", &["--set", "checkpoint.every_steps=4", "--set", "train.max_steps=12"]);
    let weights = bench.path().join("run/checkpoint-000012/model.safetensors");
    let mut bytes = fs_err::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(&weights, bytes).unwrap();
    let output = bench.train("run", &["--resume"]);
    assert!(stderr(&output).contains("model.safetensors"), "{}", stderr(&output));
    bench.train("straight", &[]);
    assert!(bench.state("straight", 60) == bench.state("run", 60));
}

#[test]
fn what_may_not_change_on_resume_is_named() {
    let bench = Bench::new();
    bench.train("run", &["--set", "train.max_steps=2"]);
    let refused = |change: &str| {
        let output =
            bench.command(&["train", "tiny.toml", "--out", "run", "--resume", "--set", change]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{change}");
        stderr(&output)
    };
    for change in [
        "seed=12",
        "data.validation_fraction=0.2",
        "data.order=random",
        "model.preset=gpt2",
        "model.hidden_size=64",
        "model.num_hidden_layers=3",
        "model.num_key_value_heads=4",
        "model.mlp=gelu",
        "model.rope_theta=20000",
        "model.dropout=0",
        "train.batch_size=6",
        "train.context=8",
        "train.grad_clip=1",
        "train.kernels=readable",
        "train.recompute=true",
        "optimizer.kind=muon",
        "optimizer.learning_rate=1e-3",
        "optimizer.beta2=0.9",
        "optimizer.weight_decay=0",
        "schedule.warmup_steps=5",
    ] {
        let field = match change.split('=').next().unwrap() {
            "model.preset" => "model.", // it stands for the fields that it fills
            field => field,
        };
        let message = refused(change);
        assert!(message.contains(&format!("`{field}")), "{change}: {message}");
        assert!(message.contains("may not change on resume") && message.contains("hint:"), "{change}: {message}");
    }
    for change in [
        "train.micro_batch_size=5",
        "train.skip_spikes=true",
        "eval.every_steps=7",
        "eval.sample_tokens=0",
        "checkpoint.every_steps=7",
        "checkpoint.keep_last=5",
        "checkpoint.on_error=continue",
        "log.every_steps=3",
        "train.max_steps=4",
    ] {
        bench.run(&["train", "tiny.toml", "--out", "run", "--resume", "--set", "train.max_steps=3", "--set", change]);
    }
    // The text moved, and then changed under the run.
    bench.write("moved.txt", &fs_err::read_to_string(bench.path().join("text.txt")).unwrap());
    let moved = ["--set", "train.max_steps=5", "--set", "data.files=[\"moved.txt\"]"];
    bench.train("run", &[&["--resume"][..], &moved].concat());
    bench.write("text.txt", &"another text altogether, with the same letters\n".repeat(60));
    let output = bench.command(&["train", "tiny.toml", "--out", "run", "--resume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("another text"), "{}", stderr(&output));
}

#[test]
fn another_tokenizer_is_refused() {
    let bench = Bench::new();
    let make = |size: &str| {
        bench.run(&["tokenizer", "--input", "text.txt", "--vocab-size", size, "--out", "tokenizer.json"]);
    };
    make("270");
    let file = ["--set", "tokenizer.kind=file", "--set", "tokenizer.path=tokenizer.json", "--set", "train.max_steps=2"];
    bench.train("run", &file);
    make("260");
    let arguments = [&["train", "tiny.toml", "--out", "run", "--resume"][..], &file].concat();
    let output = bench.command(&arguments).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("another tokenizer"), "{}", stderr(&output));
    make("270");
    bench.train("run", &[&["--resume"][..], &file, &["--set", "train.max_steps=3"]].concat());
}

#[test]
fn two_trainers_do_not_share_a_run() {
    let bench = Bench::new();
    let arguments =
        ["train", "tiny.toml", "--out", "run", "--set", "train.max_steps=100000", "--set", "schedule.decay_steps=60"];
    let mut first = bench.command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(50));
        if bench.path().join("run/metrics.jsonl").exists() {
            break;
        }
    }
    for mode in ["--resume", "--overwrite"] {
        let output = bench.command(&["train", "tiny.toml", "--out", "run", mode]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("run"), "{}", stderr(&output));
    }
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn an_existing_run_is_not_overwritten_by_accident() {
    let bench = Bench::new();
    bench.train("run", &["--set", "train.max_steps=2"]);
    let output = bench.command(&["train", "tiny.toml", "--out", "run"]).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("--resume") && stderr(&output).contains("--overwrite"), "{}", stderr(&output));
    bench.train("run", &["--set", "train.max_steps=2", "--overwrite"]);
}

#[test]
fn a_run_without_a_checkpoint_begins_again() {
    let bench = Bench::new();
    bench.train("quiet", &["--set", "train.max_steps=3"]);
    bench.train("run", &["--set", "train.max_steps=3"]);
    // As a kill before the first checkpoint leaves it.
    fs_err::remove_dir_all(bench.path().join("run/checkpoint-000003")).unwrap();
    fs_err::remove_file(bench.path().join("run/best.json")).unwrap();
    let output = bench.train("run", &["--resume", "--set", "train.max_steps=3"]);
    assert!(stderr(&output).contains("no checkpoint yet"), "{}", stderr(&output));
    assert!(bench.state("run", 3) == bench.state("quiet", 3));
    let output = bench.train("run", &["--resume", "--set", "train.max_steps=3"]);
    assert!(stderr(&output).contains("all 3 steps were done before"), "{}", stderr(&output));
}

#[test]
fn the_checkpoint_knows_its_configuration() {
    let bench = Bench::new();
    bench.train("run", &["--set", "train.max_steps=2"]);
    // Somebody edits the run's file, and asks for the same: the steps taken are still those of the old value.
    let file = bench.path().join("run/config.toml");
    let text = fs_err::read_to_string(&file).unwrap().replace("beta2 = 0.95", "beta2 = 0.9");
    fs_err::write(&file, text).unwrap();
    let arguments = ["train", "tiny.toml", "--out", "run", "--resume", "--set", "optimizer.beta2=0.9"];
    let output = bench.command(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`optimizer.beta2` was 0.95"), "{}", stderr(&output));
}

#[test]
fn a_failed_overwrite_leaves_the_old_run() {
    let bench = Bench::new();
    bench.train("run", &["--set", "train.max_steps=2"]);
    let before = bench.state("run", 2);
    for (change, code) in [("data.files=[\"nowhere.txt\"]", 1), ("model.vocab_size=3", 2)] {
        let arguments = ["train", "tiny.toml", "--out", "run", "--overwrite", "--set", change];
        assert_eq!(bench.command(&arguments).output().unwrap().status.code(), Some(code), "{change}");
        assert!(bench.state("run", 2) == before, "{change}");
    }
    bench.train("run", &["--overwrite", "--set", "train.max_steps=1"]);
    assert!(!bench.path().join("run/checkpoint-000002").exists(), "the old run is gone");
}

/// Sums over another number of shares differ in the last bits: that must not happen in silence.
#[cfg(target_os = "linux")]
#[test]
fn another_number_of_threads_is_said() {
    if std::thread::available_parallelism().unwrap().get() == 1 {
        return; // no other number to be had
    }
    let bench = Bench::new();
    let device = ["--device", "flex"]; // which splits its batches; LibTorch, where it is built in, would be `auto`
    bench.train("run", &[&device[..], &["--set", "train.max_steps=2"]].concat());
    let resumed = bench.train("run", &[&device[..], &["--resume", "--set", "train.max_steps=3"]].concat());
    assert!(!stderr(&resumed).contains("not bit for bit"), "{}", stderr(&resumed));
    let output = std::process::Command::new("taskset")
        .args(["-c", "0", env!("CARGO_BIN_EXE_minillm-train"), "train", "tiny.toml", "--out", "run", "--resume"])
        .args(device)
        .current_dir(bench.path())
        .env("MINILLM_CACHE", bench.path().join("cache"))
        .output()
        .unwrap();
    assert!(output.status.success() && stderr(&output).contains("not bit for bit"), "{}", stderr(&output));
}

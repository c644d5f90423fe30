//! What a user gets wrong ends with the documented code and a message that names file, field and what to do; never a panic.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, stderr};

/// Runs `train` and checks exit code and message. Everything in `parts` must be there.
fn refused(bench: &Bench, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = bench.command(&[&["train"], arguments].concat()).env("RUST_BACKTRACE", "1").output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "stdout is for data");
    for part in parts {
        assert!(message.contains(part), "{arguments:?} lacks `{part}`:\n{message}");
    }
}

#[test]
fn a_misspelt_key() {
    let bench = Bench::new();
    bench.write("wrong.toml", "[train]\nmax_stepps = 5\n");
    refused(&bench, &["wrong.toml"], 2, &["wrong.toml", "train.max_stepps", "hint:", "max_steps"]);
    refused(&bench, &["tiny.toml", "--set", "train.batchsize=5"], 2, &["--set", "train.batchsize", "train.batch_size"]);
    refused(&bench, &["tiny.toml", "--batch_size=32"], 2, &["--batch_size", "--set train.batch_size=32"]);
}

#[test]
fn a_missing_file() {
    let bench = Bench::new();
    refused(&bench, &["nowhere.toml"], 2, &["nowhere.toml"]);
    refused(&bench, &["tiny.toml", "--set", "data.files=[\"nowhere.txt\"]"], 1, &["nowhere.txt", "hint:"]);
}

#[test]
fn an_architecture_that_cannot_be_built() {
    let bench = Bench::new();
    refused(&bench, &["tiny.toml", "--set", "model.num_attention_heads=5"], 2, &["num_attention_heads", "hint:"]);
    refused(
        &bench,
        &["tiny.toml", "--set", "model.num_key_value_heads=3"],
        2,
        &["num_key_value_heads", "which does not divide num_attention_heads = 4", "choose one of 1, 2, 4"],
    );
}

#[test]
fn sizes_that_no_machine_holds() {
    let bench = Bench::new();
    for (change, field) in [
        ("model.num_hidden_layers=1000000", "num_hidden_layers"),
        ("model.hidden_size=1000000", "times hidden_size"),
        ("train.batch_size=9223372036854775807", "train.batch_size"),
        ("train.context=0", "train.context"),
        ("eval.sample_tokens=9223372036854775807", "eval.sample_tokens"),
        ("optimizer.epsilon=1e-50", "optimizer.epsilon"),
        ("optimizer.beta2=0.99999999999", "optimizer.beta2"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate"),
    ] {
        refused(&bench, &["tiny.toml", "--set", change], 2, &[field, "hint:"]);
    }
    let bpe = ["tiny.toml", "--set", "tokenizer.kind=bpe", "--set", "tokenizer.vocab_size=1000000000000"];
    refused(&bench, &bpe, 2, &["tokenizer.vocab_size", "hint:"]);
    refused(&bench, &["tiny.toml", "--set", "model.vocab_size=5"], 2, &["model.vocab_size", "tokens", "hint:"]);
}

#[test]
fn a_device_that_is_not_there() {
    let bench = Bench::new();
    refused(&bench, &["tiny.toml", "--device", "cuda"], 2, &["`cuda`", "not compiled", "--features cuda"]);
    refused(&bench, &["tiny.toml", "--device", "gpu"], 2, &["`gpu`", "known backends", "flex"]);
    refused(&bench, &["tiny.toml", "--device", "flex:7"], 2, &["`flex:7`", "hint:"]);
}

#[test]
fn text_that_cannot_be_trained_on() {
    let bench = Bench::new();
    bench.write("empty.txt", "");
    refused(&bench, &["tiny.toml", "--set", "data.files=[\"empty.txt\"]"], 1, &["empty.txt", "hint:"]);
    bench.write("short.txt", "too short");
    refused(&bench, &["tiny.toml", "--set", "data.files=[\"short.txt\"]"], 1, &["short.txt", "hint:"]);
    fs_err::write(bench.path().join("bytes.txt"), [0xff, 0xfe, 0x00]).unwrap();
    refused(&bench, &["tiny.toml", "--set", "data.files=[\"bytes.txt\"]"], 1, &["bytes.txt", "UTF-8", "hint:"]);
}

#[test]
fn a_text_in_another_encoding() {
    let bench = Bench::new();
    let text = fs_err::read_to_string(bench.path().join("text.txt")).unwrap();
    let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    for (name, bytes, parts) in [
        ("a.txt", little(&format!("\u{feff}{text}")), ["is UTF-16 text", "iconv -f utf-16 -t utf-8"]),
        ("b.txt", little(&text), ["is UTF-16LE text", "iconv -f utf-16le -t utf-8"]),
        (
            "c.txt",
            format!("{text}caf\u{e9}").chars().map(|c| c as u8).collect(),
            ["line 81", "iconv -f latin1 -t utf-8"],
        ),
    ] {
        fs_err::write(bench.path().join(name), bytes).unwrap();
        let files = format!("data.files=[{name}]");
        refused(&bench, &["tiny.toml", "--set", &files], 1, &[name, parts[0], "hint:", parts[1]]);
    }
    // A single NUL may be meant.
    bench.write("nul.txt", &format!("{text}\0{text}"));
    let output = bench.train("nul", &["--set", "data.files=[nul.txt]", "--set", "train.max_steps=1"]);
    let message = stderr(&output);
    assert_eq!(message.matches("nul.txt`: line 81 holds a NUL character").count(), 1, "{message}");
}

#[test]
fn a_line_that_is_no_text() {
    let bench = Bench::new();
    let line =
        |i: usize| format!("{{\"score\": NaN, \"text\": \"line {i} \\ud83d says that {} is odd\"}}\n", 2 * i + 1);
    let lines: String = (0..60).map(line).collect();
    bench.write("good.jsonl", &lines);
    let output = bench.train("good", &["--set", "data.files=[good.jsonl]", "--set", "train.max_steps=1"]);
    assert_eq!(stderr(&output).matches("line 1 holds half of a surrogate pair").count(), 1, "{}", stderr(&output));
    bench.write("bad.jsonl", &format!("{lines}{{\"text\": null}}\n"));
    let output = bench.command(&["train", "tiny.toml", "--set", "data.files=[bad.jsonl]"]).output().unwrap();
    let message = stderr(&output);
    let error = message.lines().find(|line| line.starts_with("error")).unwrap();
    assert_eq!((output.status.code(), error.matches("line ").count()), (Some(1), 1), "{message}");
    assert!(error.contains("line 61: `text` is null"), "{message}");
}

#[test]
fn a_model_for_this_program_alone_is_named_before_its_first_step() {
    let bench = Bench::new();
    let train = |changes: &[&str]| {
        stderr(&bench.train("run", &[&["--overwrite", "--set", "train.max_steps=1"], changes].concat()))
    };
    assert!(!train(&[]).contains("only MiniLLM"));
    let message = train(&["--set", "model.mlp=relu2"]);
    let warning = message.find("only MiniLLM will read the checkpoints").unwrap_or_else(|| panic!("{message}"));
    assert!(message.contains("`model.mlp`") && warning < message.find("parameters on").unwrap(), "{message}");
}

#[test]
fn a_corrupt_checkpoint() {
    let bench = Bench::new();
    bench.train("run", &["--set", "train.max_steps=2"]);
    let checkpoint = bench.path().join("run/checkpoint-000002");
    fs_err::write(checkpoint.join("model.safetensors"), b"not a model").unwrap();
    refused(&bench, &["tiny.toml", "--out", "run", "--resume"], 1, &["model.safetensors", "hint:"]);
}

#[test]
fn an_out_that_cannot_be_written() {
    let bench = Bench::new();
    bench.write("a-file", "");
    refused(&bench, &["tiny.toml", "--out", "a-file/run"], 1, &["a-file"]);
    refused(&bench, &["tiny.toml", "--out", "a-file"], 1, &["a-file"]);
}

#[cfg(unix)]
#[test]
fn a_read_only_out() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let out = bench.path().join("run");
    fs_err::create_dir(&out).unwrap();
    fs_err::set_permissions(&out, std::fs::Permissions::from_mode(0o555)).unwrap();
    if fs_err::write(out.join("probe"), "").is_err() {
        refused(&bench, &["tiny.toml", "--out", "run"], 1, &["run", "ermission", "hint:"]);
    } else if cfg!(target_os = "linux") {
        // The superuser may write there, but not into the system's own files.
        refused(&bench, &["tiny.toml", "--out", "/proc/run"], 1, &["/proc/run", "hint:"]);
    }
}

#[test]
fn a_loss_that_explodes_stops_the_run_and_keeps_the_last_checkpoint() {
    for rate in ["1e20", "1e30"] {
        let bench = Bench::new();
        let rate = format!("optimizer.learning_rate={rate}");
        let mut explode = vec!["tiny.toml", "--out", "other", "--set", &rate];
        for change in
            ["train.grad_clip=0", "checkpoint.every_steps=1", "optimizer.weight_decay=0", "schedule.warmup_steps=0"]
        {
            explode.extend(["--set", change]);
        }
        refused(&bench, &explode, 1, &["step 2", "not finite", "optimizer.learning_rate"]);
        // What it had saved before is there, and nothing that is not a number was saved.
        let runs = minillm_model::checkpoint::locate::checkpoints(&bench.path().join("other")).unwrap();
        assert!(!runs.is_empty());
        for (_, checkpoint) in runs {
            for name in ["model.safetensors", "trainer/optimizer.safetensors"] {
                let tensors = minillm_model::checkpoint::weights::read(&checkpoint.join(name)).unwrap();
                assert!(tensors.values().flat_map(|tensor| &tensor.values).all(|value| value.is_finite()), "{name}");
            }
        }
    }
}

#[test]
fn a_text_of_one_token_and_a_vocabulary_of_one() {
    let bench = Bench::new();
    bench.write("one.txt", "a");
    refused(&bench, &["tiny.toml", "--set", "data.files=[\"one.txt\"]"], 1, &["one.txt", "hint:"]);
    bench.write("same.txt", &"a".repeat(2000));
    let same = ["tiny.toml", "--set", "data.files=[\"same.txt\"]"];
    refused(&bench, &same, 1, &["same.txt", "a vocabulary of 1", "hint:"]);
}

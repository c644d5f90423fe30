//! Training that starts from another model: its weights, its tokenizer, and nothing that does not fit it.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{Bench, infer, stderr};

/// The text of tiny.toml, its model replaced.
const TUNE: &str = r#"
seed = 12
[data]
files = ["text.txt"]
order = "shuffled"
[model]
from = "base"
[train]
max_steps = 20
batch_size = 5
context = 16
[optimizer]
learning_rate = 1e-3
[schedule]
warmup_steps = 2
decay_steps = 20
[eval]
every_steps = 1000
sample_tokens = 0
[checkpoint]
every_steps = 10
[log]
every_steps = 1
"#;

/// A bench with a trained run `base` and a configuration that goes on from it.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.train("base", &[]);
    bench.write("tune.toml", TUNE);
    bench
}

fn refused(bench: &Bench, settings: &[&str], parts: &[&str]) {
    let settings: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let output = bench.command(&[&["train", "tune.toml", "--out", "no"], &settings[..]].concat()).output().unwrap();
    let message = stderr(&output);
    assert_ne!(output.status.code(), Some(0), "{settings:?}");
    for part in parts {
        assert!(message.contains(part) && !message.contains("panicked"), "{settings:?} lacks `{part}`:\n{message}");
    }
    assert!(!bench.path().join("no/checkpoint-000020").exists());
}

#[test]
fn a_run_goes_on_from_a_models_weights() {
    let bench = bench();
    bench.run(&["train", "tune.toml", "--out", "tuned"]);
    let (before, after) = (bench.losses("base"), bench.losses("tuned"));
    // Dropout was on in the first run: the loss it ended with is above what the model can do.
    let (first, last) = (before[0], before[before.len() - 1]);
    assert!(after[0] < last + 0.3 && after[0] < first - 0.5, "{first} .. {last}, then {}", after[0]);

    // A GGUF file of it is the same beginning, and the original need not be there to resume.
    let export = |arguments: &[&str]| {
        let output = Command::new(infer()).args(arguments).current_dir(bench.path()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    };
    export(&["export", "base", "--to", "gguf", "--out", "base.gguf"]);
    bench.run(&[
        "train",
        "tune.toml",
        "--out",
        "again",
        "--set",
        "model.from=base.gguf",
        "--set",
        "train.max_steps=10",
    ]);
    fs_err::rename(bench.path().join("base.gguf"), bench.path().join("moved.gguf")).unwrap();
    bench.run(&["train", "tune.toml", "--out", "again", "--resume", "--set", "model.from=moved.gguf"]);
    for ((name, tuned), (_, again)) in bench.state("tuned", 20).into_iter().zip(bench.state("again", 20)) {
        assert_eq!(tuned, again, "{name}");
    }
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let bench = bench();
    refused(&bench, &["model.hidden_size=64"], &["tune.toml", "`model.from`", "but `dropout`"]);
    refused(&bench, &["train.context=17"], &["`train.context` is 17", "16 tokens", "hint: choose 16 or less"]);
    refused(&bench, &["model.from=nowhere"], &["nowhere"]);
    refused(
        &bench,
        &["tokenizer.kind=bpe", "tokenizer.vocab_size=300"],
        &["`tokenizer` has", "hint: leave [tokenizer] out"],
    );
    // As many characters, but others.
    let text = fs_err::read_to_string(bench.path().join("text.txt")).unwrap();
    bench.write("text.txt", &text.replace('m', "q"));
    refused(
        &bench,
        &["tokenizer.kind=char"],
        &["`tokenizer` is not the one of the model", "hint: leave [tokenizer] out"],
    );
}

/// Rows without a token give samples all the same, and a token without a row is an error only where a text has it.
#[test]
fn the_vocabulary_and_the_tokenizer_may_differ_in_size() {
    let bench = Bench::new();
    let settings = ["model.vocab_size=300", "eval.sample_tokens=60"];
    bench.train("padded", &settings.map(|setting| ["--set", setting]).concat());
    let samples = fs_err::read_dir(bench.path().join("padded/samples")).unwrap().count();
    assert!(samples > 0, "no sample was written");
    let export = |run: &str, out: &str| {
        let arguments = ["export", run, "--to", "hf", "--out", out];
        let output = Command::new(infer()).args(arguments).current_dir(bench.path()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    };
    export("padded", "padded-hf");
    bench.write("tune.toml", &TUNE.replace("\"base\"", "\"padded-hf\"").replace("sample_tokens = 0", ""));
    bench.run(&["train", "tune.toml", "--out", "tuned-padded"]);

    bench.train("base", &[]);
    export("base", "base-hf");
    bench.write("base-hf/tokenizer_config.json", r#"{"pad_token": "[PAD]"}"#);
    bench.write("tune.toml", &TUNE.replace("\"base\"", "\"base-hf\""));
    bench.run(&["train", "tune.toml", "--out", "tuned-base"]);
    let text = fs_err::read_to_string(bench.path().join("text.txt")).unwrap();
    bench.write("padding.txt", &(text + "and [PAD] at the end\n"));
    refused(
        &bench,
        &["data.files=[\"padding.txt\"]"],
        &["padding.txt", "needs the token `[PAD]`", "hint: leave it out"],
    );
}

#[test]
fn a_model_without_tokens_for_turns_gets_them() {
    let bench = Bench::new();
    let text = fs_err::read_to_string(bench.path().join("text.txt")).unwrap();
    // A character tokenizer must know those of the roles and of what is said.
    bench.write("text.txt", &text.replace("says that", "says that four of a user or an assistant"));
    bench.train("base", &["--set", "train.context=128", "--set", "train.max_steps=10"]);
    let turn = |i: usize| {
        let question = format!("line {} says", i % 7);
        serde_json::json!({ "messages": [{ "role": "user", "content": question }, { "role": "assistant", "content": "four" }] })
    };
    let lines: Vec<String> = (0..30).map(|i| turn(i).to_string()).collect();
    bench.write("chat.jsonl", &lines.join("\n"));
    let chat = TUNE.replace("text.txt", "chat.jsonl").replace("order = \"shuffled\"\n", "");
    let chat = chat.replace("context = 16", "context = 128") + "[objective]\nkind = \"chat\"\n";
    bench.write("chat.toml", &chat);
    bench.run(&["train", "chat.toml", "--out", "chat"]);
    let config = |run: &str| -> serde_json::Value {
        let newest = bench.newest_step(run);
        let path = bench.path().join(run).join(format!("checkpoint-{newest:06}/config.json"));
        serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
    };
    let rows = |run: &str| config(run)["vocab_size"].as_u64().unwrap();
    assert_eq!(rows("chat"), rows("base") + 2);
    let losses = bench.losses("chat");
    assert!(losses.last().unwrap() < &losses[0], "{losses:?}");
    // The adapter of such a model learns the new rows, or is refused.
    bench.write("lora.toml", &format!("{chat}[lora]\nrank = 2\n"));
    let output = bench.command(&["train", "lora.toml", "--out", "lora"]).output().unwrap();
    assert!(stderr(&output).contains("lora.modules_to_save"), "{}", stderr(&output));
}

//! What the tests of the program share: tiny runs in temporary directories, with a cache of their own.

#![allow(dead_code, missing_docs, clippy::unwrap_used)] // each test file uses its share of it

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A directory for runs, caches and text, gone at the end of the test.
pub struct Bench {
    pub folder: TempDir,
}

/// A model that a step takes milliseconds of: every mechanism, dropout, uneven micro-batches, clipping that bites.
pub const TINY: &str = r#"
seed = 11
[data]
files = ["text.txt"]
order = "shuffled"
[tokenizer]
kind = "char"
[model]
preset = "qwen3"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
dropout = 0.1
[train]
max_steps = 60
batch_size = 5
micro_batch_size = 2
context = 16
grad_clip = 0.5
[optimizer]
learning_rate = 3e-3
[schedule]
warmup_steps = 10
decay_steps = 60
[eval]
every_steps = 20
sample_tokens = 8
[checkpoint]
every_steps = 1000
[log]
every_steps = 1
"#;

impl Bench {
    /// With a text of about 2,900 characters and `tiny.toml`.
    pub fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let lines = (0..80).map(|i| format!("line {i} says that {} and {} make {}\n", i % 7, i % 5, i % 7 + i % 5));
        bench.write("text.txt", &lines.collect::<String>());
        bench.write("tiny.toml", TINY);
        bench
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs_err::write(self.path().join(name), text).unwrap();
    }

    /// `minillm-train` in the bench's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minillm-train"));
        command.args(arguments).current_dir(self.path()).env("MINILLM_CACHE", self.path().join("cache"));
        command.env_remove("RUST_LOG");
        command
    }

    /// Runs `minillm-train`; the test fails with its messages if it does.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}\n{}", stderr(&output));
        output
    }

    /// `train tiny.toml` into `out` with these further arguments.
    pub fn train(&self, out: &str, arguments: &[&str]) -> Output {
        self.run(&[&["train", "tiny.toml", "--out", out], arguments].concat())
    }

    /// The files of a run's checkpoint in which a run's whole state lies.
    pub fn state(&self, out: &str, step: usize) -> Vec<(String, Vec<u8>)> {
        let checkpoint = self.path().join(out).join(format!("checkpoint-{step:06}"));
        let is_adapter = checkpoint.join("adapter_config.json").exists();
        let weights = if is_adapter { "adapter_model.safetensors" } else { "model.safetensors" };
        [weights, "trainer/optimizer.safetensors", "trainer/state.json"]
            .map(|name| (name.to_owned(), fs_err::read(checkpoint.join(name)).unwrap()))
            .to_vec()
    }

    /// The step of a run's newest checkpoint, 0 if there is none.
    pub fn newest_step(&self, out: &str) -> usize {
        let entries = fs_err::read_dir(self.path().join(out)).into_iter().flatten();
        let step =
            |entry: fs_err::DirEntry| entry.file_name().to_string_lossy().strip_prefix("checkpoint-")?.parse().ok();
        entries.filter_map(|entry| step(entry.unwrap())).max().unwrap_or(0)
    }

    /// The losses in a run's `metrics.jsonl`, in order.
    pub fn losses(&self, out: &str) -> Vec<f64> {
        let text = fs_err::read_to_string(self.path().join(out).join("metrics.jsonl")).unwrap();
        let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["train/loss"].as_f64();
        text.lines().filter_map(loss).collect()
    }
}

/// Every file below `directory` by its relative path, with its content. (A directory that holds none is left out.)
pub fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, content)| (format!("{name}/{below}"), content)));
        } else {
            found.insert(name, fs_err::read(path).unwrap());
        }
    }
    found
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Backends on the CPU in this build: there the same run gives the same bits.
pub fn cpu_devices() -> Vec<&'static str> {
    let exact = ["flex", "ndarray"];
    minillm_infer::device::compiled().into_iter().filter(|name| exact.contains(name)).collect()
}

/// Every device that this build can use: one name per backend.
pub fn all_devices() -> Vec<String> {
    let mut names: Vec<String> = minillm_infer::device::list().into_iter().map(|found| found.name).collect();
    names.retain(|name| !name.contains(':') || name.ends_with(":0"));
    names
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `minillm-infer`, which `cargo test --workspace` builds beside this crate's program.
pub fn infer() -> PathBuf {
    let train = Path::new(env!("CARGO_BIN_EXE_minillm-train"));
    let infer = train.with_file_name(format!("minillm-infer{}", std::env::consts::EXE_SUFFIX));
    assert!(infer.exists(), "{} is missing: run the tests of the whole workspace", infer.display());
    infer
}

//! The commands of the README and of the documents it links to are promises: each is run, in order, in one folder.
//!
//! Blocks marked ```` ```sh ```` are commands. `cargo run ... -p PROGRAM ... --` becomes the program that was built for
//! the tests; training and studies are cut to two steps. Commands for a backend that is not in this build are left to the builds that have it.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Bench, infer, root, stderr};

/// In this order: a later document may use the runs of an earlier one.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "docs/devices.md",
    "docs/interoperability.md",
    "docs/performance.md",
    "docs/shakespeare.md",
    "docs/reliability.md",
];

#[test]
fn the_commands_of_the_readme_work() {
    let bench = Bench::new();
    copy_configs(&bench);
    // The text that the README tells the reader to bring.
    bench.write("input.txt", &"First Citizen:\nBefore we proceed any further, hear me speak.\n\n".repeat(200));
    for document in DOCUMENTS {
        let text = fs_err::read_to_string(root().join(document)).unwrap();
        let commands = commands(&text);
        assert!(!commands.is_empty(), "{document} has no commands");
        for line in commands {
            println!("{document}: {line}");
            if !run(&bench, &line) {
                println!("not in this build");
            }
        }
    }
}

/// Runs one line of a document; `false` if it is for a backend that is not in this build.
fn run(bench: &Bench, line: &str) -> bool {
    let Some(program) = line.strip_prefix("cargo run ") else {
        assert!(is_known_tool(line), "what is `{line}`?");
        return true;
    };
    let (build, arguments) = program.split_once(" -- ").unwrap_or((program, ""));
    let mut words = shell_words(arguments);
    if words.first().is_some_and(|word| word == "train") {
        shorten(&mut words);
    }
    if words.first().is_some_and(|word| word == "study") {
        words.extend(["--set", "model.hidden_size=32"].map(str::to_owned));
    }
    if let Some(feature) = needs_feature(build)
        && !minillm_infer::device::compiled().contains(&feature.as_str())
    {
        return false;
    }
    let mut command = match build.split_once("--example ") {
        Some((_, name)) => Command::new(example(name)),
        None if build.contains("minillm-infer") => Command::new(infer()),
        None => bench.command(&[]),
    };
    let output = command.args(&words).current_dir(bench.path()).output().unwrap();
    assert!(output.status.success(), "{line}\n{}", stderr(&output));
    assert!(!build.contains("--example") || output.stdout.len() > 20, "the example prints a story");
    true
}

/// Cuts a training to two steps, and makes it write over an earlier one.
fn shorten(words: &mut Vec<String>) {
    words.extend(["--set", "train.max_steps=2", "--set", "schedule.warmup_steps=0"].map(str::to_owned));
    words.extend(["--set", "eval.sample_tokens=4", "--set", "eval.graded=4"].map(str::to_owned));
    if words.contains(&"--device".to_owned()) {
        // Software Vulkan computes on the CPU, slowly: a smaller model.
        words.extend(["--set", "model.hidden_size=32", "--set", "model.num_hidden_layers=1"].map(str::to_owned));
    }
    if !words.contains(&"--resume".to_owned()) {
        words.push("--overwrite".to_owned());
    }
}

/// A program of `examples/`, which `cargo test` builds next to the others.
fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_minillm-train")).with_file_name("examples");
    folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn copy_configs(bench: &Bench) {
    fn copy(from: &Path, to: &Path) {
        fs_err::create_dir(to).unwrap();
        for entry in fs_err::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &to);
            } else {
                let text = fs_err::read_to_string(&path).unwrap();
                let lines = text.lines().map(|line| if line.starts_with("steps =") { "steps = 2" } else { line });
                fs_err::write(&to, lines.collect::<Vec<_>>().join("\n")).unwrap();
            }
        }
    }
    copy(&root().join("configs"), &bench.path().join("configs"));
}

/// Lines of the ```` ```sh ```` blocks, continued ones joined, comments left out.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut is_inside = false;
    let mut pending = String::new();
    for line in readme.lines() {
        match line.trim() {
            "```sh" => is_inside = true,
            "```" => is_inside = false,
            line if is_inside && !line.is_empty() && !line.starts_with('#') => {
                let line = line.split("   #").next().unwrap_or(line).trim();
                pending += line.strip_suffix('\\').unwrap_or(line);
                if !line.ends_with('\\') {
                    commands.push(std::mem::take(&mut pending));
                }
            }
            _ => {}
        }
    }
    commands
}

/// What the README shows and this test does not run: the test itself, and tools that bring a Python of their own.
fn is_known_tool(line: &str) -> bool {
    ["git clone", "cd ", "cargo test", "cargo bench", "cargo build", "python ", "pip install", "tools/", "tensorboard"]
        .iter()
        .any(|tool| line.starts_with(tool))
}

fn needs_feature(build: &str) -> Option<String> {
    let feature = build.split("--features ").nth(1)?.split([' ', ',']).next()?;
    Some(feature.to_owned())
}

/// Splits at spaces outside double quotes.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

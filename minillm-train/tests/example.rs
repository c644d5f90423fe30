//! ARCHITECTURE.md's example, an activation of one's own, is done as written there to a copy of the project, built and run.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::root;
use fs_err as fs;

/// A block of the example: the file that the comment above it names, if one does, and its code.
struct Block {
    file: Option<String>,
    code: String,
}

fn blocks() -> Vec<Block> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, example) = text.split_once("### An activation of your own").unwrap();
    let parts: Vec<_> = example.split("```").collect(); // every second part is inside the fences
    let block = |pair: &[&str]| {
        let comment = pair[0].trim_end().rsplit('\n').next().unwrap();
        let file = comment.strip_prefix("<!-- quoted from ").and_then(|rest| rest.strip_suffix(" -->"));
        Block { file: file.map(str::to_owned), code: pair[1].split_once('\n').unwrap().1.to_owned() }
    };
    parts.chunks_exact(2).map(block).collect()
}

/// Applies a difference to the one place of a file that has its unchanged lines.
fn apply(path: &Path, difference: &str) {
    let text = fs::read_to_string(path).unwrap();
    let lines = |is_wanted: fn(&str) -> bool| {
        let wanted = difference.lines().filter(|line| is_wanted(line));
        wanted.flat_map(|line| [line.get(1..).unwrap_or(""), "\n"]).collect::<String>()
    };
    let (before, after) = (lines(|line| !line.starts_with('+')), lines(|line| !line.starts_with('-')));
    assert_ne!(before, after);
    assert_eq!(text.matches(&before).count(), 1, "{before} in {}", path.display());
    fs::write(path, text.replace(&before, &after)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn an_activation_of_your_own() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path();
    for part in ["minillm-model", "minillm-infer", "minillm-train"] {
        copy(&root().join(part), &project.join(part));
    }
    for file in ["Cargo.toml", "Cargo.lock", "README.md"] {
        fs::copy(root().join(file), project.join(file)).unwrap();
    }

    let (differences, rest): (Vec<_>, Vec<_>) = blocks().into_iter().partition(|block| block.file.is_some());
    assert!(differences.len() >= 2, "a variant and what it computes");
    for Block { file, code } in differences {
        apply(&project.join(file.unwrap()), &code);
    }
    let [Block { code: variant, .. }] = rest.try_into().ok().unwrap();
    let study = project.join("study.toml");
    let base = "title = \"MLPs\"\nquestion = \"Is a sine worth it?\"\nseeds = [1, 2]\nhold = \"parameters\"\n\
        base = \"base.toml\"\n[budget]\nsteps = 2\n[[variants]]\nname = \"GELU\"\nset = { \"model.mlp\" = \"gelu\" }\n";
    fs::write(&study, format!("{base}{variant}")).unwrap();
    fs::write(project.join("base.toml"), common::TINY).unwrap();
    fs::write(project.join("text.txt"), "a line of text that repeats itself\n".repeat(60)).unwrap();

    // What does not depend on the project was built for the tests; the program itself must not replace theirs.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--offline", "--locked", "--quiet", "--package", "minillm-train"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // With the backends of the tests themselves, or all of Burn would be compiled again.
    let backends: Vec<_> = minillm_infer::device::compiled().into_iter().filter(|name| *name != "flex").collect();
    if !backends.is_empty() {
        command.arg(format!("--features={}", backends.join(",")));
    }
    command.args(["--", "study", "study.toml", "--out", "out"]);
    command
        .current_dir(project)
        .env("CARGO_BUILD_BUILD_DIR", built)
        .env("CARGO_TARGET_DIR", project.join("target"))
        .env("MINILLM_CACHE", project.join("cache"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().any(|line| line.starts_with("sine")), "{table}");
}

//! ARCHITECTURE.md's example, an activation of one's own, is done as written there to a copy of the project, built and run.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::root;
use fs_err as fs;

/// The code blocks of the example, in order.
fn blocks() -> Vec<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, example) = text.split_once("### An activation of your own").unwrap();
    let blocks = example.split("```").skip(1).step_by(2); // every second piece is inside the fences
    blocks.map(|block| block.split_once('\n').unwrap().1.to_owned()).collect()
}

/// Inserts `block` after the only line of a file that ends in `anchor`; without one, at the end.
fn insert(path: &Path, anchor: Option<&str>, block: &str) {
    let mut text = fs::read_to_string(path).unwrap();
    let place = match anchor {
        None => text.len(),
        Some(anchor) => {
            let line = format!("{anchor}\n");
            assert_eq!(text.matches(&line).count(), 1, "{anchor} in {}", path.display());
            text.find(&line).unwrap() + line.len()
        }
    };
    text.insert_str(place, block);
    fs::write(path, text).unwrap();
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
    let [arm, line, function, variant] = blocks().try_into().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path();
    for part in ["minillm-model", "minillm-infer", "minillm-train"] {
        copy(&root().join(part), &project.join(part));
    }
    for file in ["Cargo.toml", "Cargo.lock", "README.md"] {
        fs::copy(root().join(file), project.join(file)).unwrap();
    }

    insert(&project.join("minillm-model/src/config/mod.rs"), Some("    Relu2,"), &arm);
    let mlp = project.join("minillm-model/src/layers/gelu_mlp.rs");
    insert(&mlp, Some("Mlp::Relu2 => relu(up).square(),"), &line);
    insert(&mlp, None, &function);
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

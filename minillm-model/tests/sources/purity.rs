//! The model crate reads no environment variable, prints nothing, downloads nothing and keeps no global state; the libraries above it know no
//! command line.

use crate::{root, sources, without_tests};

#[test]
fn the_model_does_nothing_beside_its_work() {
    let found = sources(&root().join("minillm-model/src"));
    assert!(found.len() > 20);
    for (path, text) in found {
        let forbidden = [
            "std::env",
            "env::var",
            "println!",
            "print!(",
            "dbg!",
            "TcpStream",
            "ureq",
            "static mut",
            "OnceLock",
            "thread_local!",
        ];
        for word in forbidden {
            assert!(!without_tests(&text).contains(word), "{} has `{word}`", path.display());
        }
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = without_tests(&text);
        let statics = text.lines().filter(|line| line.trim_start().trim_start_matches("pub ").starts_with("static "));
        for line in statics {
            let changes = ["OnceLock", "LazyLock", "Mutex", "RwLock", "Atomic", "Cell"];
            assert!(!changes.iter().any(|kind| line.contains(kind)), "{} keeps state: {line}", path.display());
        }
    }
    let manifest = fs_err::read_to_string(root().join("minillm-model/Cargo.toml")).unwrap();
    assert!(!manifest.contains("default = ["), "a backend only where a program chose it");
}

/// The command line is part of the programs: the libraries build without it.
#[test]
fn the_libraries_know_no_command_line() {
    for name in ["minillm-infer", "minillm-train"] {
        let src = root().join(name).join("src");
        let library = sources(&src).into_iter().filter(|(path, _)| {
            let within = path.strip_prefix(&src).unwrap();
            !within.starts_with("cli") && within != std::path::Path::new("main.rs")
        });
        for (path, text) in library {
            assert!(!without_tests(&text).contains("clap::"), "{} uses clap", path.display());
        }
    }
}

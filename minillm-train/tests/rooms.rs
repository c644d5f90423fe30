//! The modules of the two upper crates depend on one another in one direction, and their libraries know no command line.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CRATES: [&str; 2] = ["minillm-infer", "minillm-train"];

/// The library's source files, by their paths within `src`, with what stands before their tests.
fn sources(name: &str) -> Vec<(PathBuf, String)> {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let is_tests = |path: &Path| path.iter().any(|part| part == "tests" || part == "tests.rs");
    let library = paths
        .iter()
        .map(|path| (path, path.strip_prefix(&root).unwrap()))
        .filter(|(_, within)| !within.starts_with("cli") && *within != Path::new("main.rs") && !is_tests(within));
    let read = |(path, within): (&PathBuf, &Path)| {
        let text = fs_err::read_to_string(path).unwrap();
        (within.to_owned(), text.split("#[cfg(test)]\nmod").next().unwrap().to_owned())
    };
    library.map(read).collect()
}

#[test]
fn modules_do_not_depend_on_each_other_in_a_circle() {
    for name in CRATES {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, text) in sources(name) {
            let module = path.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
            let paths = text.lines().filter_map(|line| line.trim_start().strip_prefix("use crate::"));
            let others = paths.map(|path| path.split([':', ';']).next().unwrap().to_owned());
            uses.entry(module).or_default().extend(others);
        }
        let edges = uses.values().map(BTreeSet::len).sum::<usize>();
        assert!(uses.len() > 10 && edges > 10, "{name}: read {edges} uses of {} modules", uses.len());
        // Whatever uses nothing that is left goes, until nothing goes any more.
        loop {
            let left: BTreeSet<_> = uses.keys().cloned().collect();
            uses.retain(|module, used| used.iter().any(|other| other != module && left.contains(other)));
            if uses.len() == left.len() {
                break;
            }
        }
        assert!(uses.is_empty(), "{name}: a circle within {:?}", uses.keys());
    }
}

#[test]
fn the_libraries_know_no_command_line() {
    for name in CRATES {
        for (path, text) in sources(name) {
            assert!(!text.contains("clap::"), "{name}: {} names clap", path.display());
        }
    }
}

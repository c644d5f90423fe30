//! ARCHITECTURE.md's tables of modules: every top-level module has a row, and "depends on" is what its code uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::modules::{CRATES, Graph, graphs, modules_of};
use crate::root;

/// What every module may use is not said in each row.
const EVERYWHERE: [&str; 1] = ["error"];

/// The names in backticks of one cell.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows below a crate's heading: the modules of a row and what it says they depend on.
fn rows(document: &str, name: &str) -> Vec<(BTreeSet<String>, BTreeSet<String>)> {
    let (_, after) = document.split_once(&format!("\n### {name}\n")).unwrap_or_else(|| panic!("no heading {name}"));
    let table = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = table.skip(2).map(|line| line.trim_matches('|').split(" | ").collect::<Vec<_>>());
    cells.map(|cells| (names(cells[0]), names(cells[2]))).collect()
}

/// What is wrong with a crate's table.
fn mistakes(rows: &[(BTreeSet<String>, BTreeSet<String>)], modules: &BTreeSet<String>, graph: &Graph) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut missing = modules.clone();
    for (row, listed) in rows {
        for name in row {
            if !missing.remove(name) {
                mistakes.push(format!("`{name}` is no module, or has two rows"));
            }
        }
        let used = row.iter().filter_map(|name| graph.get(name)).flat_map(BTreeMap::keys);
        let used: BTreeSet<_> =
            used.filter(|name| !row.contains(*name) && !EVERYWHERE.contains(&name.as_str())).cloned().collect();
        if used != *listed {
            let cell: Vec<_> = used.iter().map(|name| format!("`{name}`")).collect();
            mistakes.push(format!("{row:?} depends on {}", cell.join(", ")));
        }
    }
    mistakes.extend(
        missing.iter().filter(|name| !EVERYWHERE.contains(&name.as_str())).map(|name| format!("`{name}` has no row")),
    );
    mistakes
}

#[test]
fn the_tables_are_what_the_code_uses() {
    let document = fs_err::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut wrong = Vec::new();
    for name in CRATES {
        let code = modules_of(name);
        let modules = code.keys().filter(|path| path.len() == 1).map(|path| path[0].clone()).collect();
        let graph = graphs(&code).remove(&Vec::new()).unwrap();
        let mistakes = mistakes(&rows(&document, name), &modules, &graph);
        wrong.extend(mistakes.into_iter().map(|mistake| format!("{name}: {mistake}")));
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md is not what the code is:\n    {}", wrong.join("\n    "));
}

/// The files of the first hour, up to the one that begins the second, are read in an hour.
#[test]
fn the_first_hour_is_at_most_a_thousand_lines() {
    let document = fs_err::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, after) = document.split_once("\n## The first hour\n").unwrap();
    let (hour, _) = after.split_once("The second hour").unwrap();
    let targets = hour.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files: Vec<_> = targets.filter(|path| Path::new(path).extension().is_some_and(|it| it == "rs")).collect();
    assert!(files.len() > 8, "{files:?}");
    let lines: usize =
        files.iter().map(|file| fs_err::read_to_string(root().join(file)).unwrap().lines().count()).sum();
    assert!(lines <= 1000, "{lines} lines in {files:?}");
}

#[test]
fn a_wrong_row_is_found() {
    let document =
        "\n### made-up\n\n| module | what | depends on |\n|---|---|---|\n| `a`, `b` | two | `c` |\n| `c` | one | |\n";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let edge = |to: &str| BTreeMap::from([(to.to_owned(), String::new())]);
    let rows = rows(document, "made-up");
    assert_eq!(rows, [(set(&["a", "b"]), set(&["c"])), (set(&["c"]), set(&[]))]);
    let graph =
        Graph::from([("a".to_owned(), edge("b")), ("b".to_owned(), edge("c")), ("c".to_owned(), edge("error"))]);
    let modules = set(&["a", "b", "c", "error"]);
    assert!(mistakes(&rows, &modules, &graph).is_empty());
    let graph = Graph::from([("a".to_owned(), edge("c")), ("c".to_owned(), edge("b"))]);
    assert_eq!(mistakes(&rows, &modules, &graph), ["{\"c\"} depends on `b`"]);
    assert_eq!(mistakes(&rows[..1], &modules, &graph), ["`c` has no row"]);
    assert_eq!(mistakes(&rows, &set(&["a", "c"]), &graph).len(), 2);
}

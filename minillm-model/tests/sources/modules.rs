//! Modules depend on each other in one direction only: neither the top-level modules of a crate nor those of one folder form a circle.
//!
//! An edge `a -> b` is a path in `a`'s code (`crate::`, `super::`, `self::`, in a `use` or elsewhere) that ends in `b`.
//! `pub use` is followed to where the item is defined. A module and those inside it count as one where folders are compared,
//! and a folder's own `mod.rs` may use its modules and be used by them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{root, sources, without_tests};

/// The project's crates.
pub const CRATES: [&str; 3] = ["minillm-model", "minillm-infer", "minillm-train"];

/// A module's names from the crate's root; empty for the root.
pub type ModulePath = Vec<String>;

/// From each module of one folder to the others it uses, with the path that says so.
pub type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// The code of each module of one crate, without tests and comments.
pub fn modules_of(name: &str) -> BTreeMap<ModulePath, String> {
    let src = root().join(name).join("src");
    let mut modules: BTreeMap<ModulePath, String> = BTreeMap::new();
    for (path, text) in sources(&src) {
        let path = module_path(path.strip_prefix(&src).unwrap());
        if !path.iter().any(|part| part == "tests") {
            modules.entry(path).or_default().push_str(&code(&text)); // `lib.rs` and `main.rs` are both the root
        }
    }
    modules
}

fn module_path(file: &Path) -> ModulePath {
    let mut parts: ModulePath = file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if ["mod", "lib", "main"].contains(&parts.last().unwrap().as_str()) {
        parts.pop();
    }
    parts
}

/// `text` without tests, comments and items that only tests use.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut is_for_tests = false;
    for line in without_tests(text).lines() {
        let line = line.split("//").next().unwrap();
        if is_for_tests || line.trim() == "#[cfg(test)]" {
            is_for_tests = !line.contains(';'); // up to the end of `mod tests;` or `use ...;`
            continue;
        }
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// The graph of each folder, by the folder's path; the crate's own is that of the empty path.
pub fn graphs(modules: &BTreeMap<ModulePath, String>) -> BTreeMap<ModulePath, Graph> {
    let exports = exports(modules);
    let mut graphs: BTreeMap<ModulePath, Graph> = BTreeMap::new();
    for (from, code) in modules {
        for path in paths(code, &["crate::", "super::", "self::"]) {
            let Some(absolute) = absolute(from, &path) else { continue };
            let to = definition(modules, &exports, &absolute, 0);
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
                let graph = graphs.entry(from[..shared].to_vec()).or_default();
                let place = format!("{}: {}", from.join("::"), path.join("::"));
                graph.entry(a.clone()).or_default().entry(b.clone()).or_insert(place);
            }
        }
    }
    graphs
}

/// `pub use`: from the name in the module that exports it to the path of the item.
fn exports(modules: &BTreeMap<ModulePath, String>) -> BTreeMap<ModulePath, ModulePath> {
    let mut exports = BTreeMap::new();
    for (module, code) in modules {
        for mut path in paths(code, &["pub use ", "pub(crate) use "]) {
            if !["crate", "super", "self"].contains(&path[0].as_str()) {
                path.insert(0, "self".to_owned()); // a module of this folder; another crate's names lead nowhere
            }
            let name = [module.as_slice(), &path[path.len() - 1..]].concat();
            if let Some(target) = absolute(module, &path)
                && target != name
            {
                exports.insert(name, target);
            }
        }
    }
    exports
}

/// A path as it stands in `module`, from the crate's root.
fn absolute(module: &[String], path: &[String]) -> Option<ModulePath> {
    let mut absolute = module.to_vec();
    for part in path {
        match part.as_str() {
            "crate" => absolute.clear(),
            "self" => {}
            "super" => _ = absolute.pop()?,
            name => absolute.push(name.to_owned()),
        }
    }
    Some(absolute)
}

/// The module that defines what `path` names.
fn definition(
    modules: &BTreeMap<ModulePath, String>,
    exports: &BTreeMap<ModulePath, ModulePath>,
    path: &[String],
    followed: usize,
) -> ModulePath {
    let depth = (0..=path.len()).rev().find(|depth| modules.contains_key(&path[..*depth])).unwrap_or(0);
    match path.get(..=depth).and_then(|name| exports.get(name)) {
        Some(target) if followed < 8 => {
            definition(modules, exports, &[target, &path[depth + 1..]].concat(), followed + 1)
        }
        _ => path[..depth].to_vec(),
    }
}

/// Every path in `code` that begins with one of `starts`, groups in braces written out.
fn paths(code: &str, starts: &[&str]) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for start in starts {
        for (place, _) in code.match_indices(start) {
            let before = &code[..place];
            let is_inside = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == ':');
            let is_visibility = before.trim_end().ends_with("(in");
            if !is_inside && !is_visibility {
                let rest = if start.ends_with(' ') { &code[place + start.len()..] } else { &code[place..] };
                tree(rest, &[], &mut found);
            }
        }
    }
    found
}

/// Reads one tree of a `use` (`a::{b, c::d}`) after `parents`, appends its paths to `found`, and returns what follows it.
fn tree<'a>(text: &'a str, parents: &[String], found: &mut Vec<ModulePath>) -> &'a str {
    let mut path = parents.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                let after = tree(rest, &path, found).trim_start();
                rest = after.strip_prefix(',').unwrap_or(after).trim_start();
                if rest.len() == after.len() && !rest.starts_with('}') {
                    return rest; // not a tree after all
                }
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        if !name.is_empty() {
            path.push(name.to_owned());
        }
        let Some(next) = after.strip_prefix("::").filter(|_| !name.is_empty()) else {
            rest = after;
            break;
        };
        rest = next;
    }
    if path.len() > parents.len() {
        found.push(path);
    }
    let renamed = rest.trim_start().strip_prefix("as ");
    renamed.map_or(rest, |name| name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
}

/// A circle, each module once, or `None`.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| search(graph, start, &mut Vec::new(), &mut done))
}

fn search(graph: &Graph, module: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
    if let Some(first) = way.iter().position(|earlier| earlier == module) {
        return Some(way[first..].to_vec());
    }
    if done.contains(module) {
        return None;
    }
    way.push(module.to_owned());
    for next in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
        if let Some(circle) = search(graph, next, way, done) {
            return Some(circle);
        }
    }
    way.pop();
    done.insert(module.to_owned());
    None
}

/// The edges of a circle, one a line, each with a place where the code has it.
fn describe(name: &str, graph: &Graph, circle: &[String]) -> String {
    let next = circle.iter().cycle().skip(1);
    let edges =
        circle.iter().zip(next).map(|(from, to)| format!("\n    {name}: {from} -> {to}    ({})", graph[from][to]));
    edges.collect()
}

#[test]
fn modules_form_no_circle() {
    let mut circles = String::new();
    for name in CRATES {
        for (folder, graph) in graphs(&modules_of(name)) {
            let name = [&[name.to_owned()], folder.as_slice()].concat().join("::");
            if let Some(circle) = circle(&graph) {
                circles += &describe(&name, &graph, &circle);
            }
        }
    }
    assert!(circles.is_empty(), "modules that use each other in a circle:{circles}");
}

/// A crate of made-up modules.
fn made_up(modules: &[(&str, &str)]) -> BTreeMap<ModulePath, Graph> {
    let path = |name: &str| name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    graphs(&modules.iter().map(|(name, text)| (path(name), code(text))).collect())
}

#[test]
fn a_circle_is_found_and_named() {
    let crates = made_up(&[
        ("", "pub mod a; pub mod b; pub mod c; pub mod d;"),
        ("a", "use crate::{b::{self, Thing}, d};\n"),
        (
            "b",
            "// crate::a is only mentioned\npub use self::inner::Inner;\n#[cfg(test)]\nmod tests {\nuse crate::a;\n}",
        ),
        ("b::inner", "fn f() -> crate::c::Item { super::helper() }"),
        ("c", "#[cfg(test)]\nuse crate::d::OnlyInTests;\nuse super::a::Other as Renamed;"),
        ("d", "pub(in crate::a) fn f() { $crate::a::g() }"),
    ]);
    let graph = &crates[&Vec::new()];
    assert_eq!(circle(graph), Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
    assert!(!graph.contains_key("d"), "{graph:?}");
    let said = describe("made-up", graph, &["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    assert!(said.contains("made-up: b -> c    (b::inner: crate::c::Item)"), "{said}");
}

#[test]
fn a_re_export_hides_no_circle() {
    let crates = made_up(&[
        ("f", "mod a;\nmod b;\npub use b::{Item as Thing, Item};"),
        ("f::a", "use super::Item;"),
        ("f::b", "use super::{\n    a::{\n        Other,\n    },\n};"),
    ]);
    assert_eq!(circle(&crates[&vec!["f".to_owned()]]), Some(vec!["a".to_owned(), "b".to_owned()]));
}

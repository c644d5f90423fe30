//! Code in the documents is what the files hold: every ```` ```rust ```` block of the chapters and of ARCHITECTURE.md stands line
//! for line in the file that the comment above it names, and so do the unchanged lines of a ```` ```diff ```` block.

use std::path::{Path, PathBuf};

use crate::root;

/// A block of code in a document.
struct Block {
    language: String,
    /// What `<!-- quoted from FILE -->` above it names.
    file: Option<String>,
    /// The line of the document in which its code begins, counted from 1.
    line: usize,
    code: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut is_inside, mut above) = (false, "");
    for (number, line) in document.lines().enumerate() {
        if is_inside {
            is_inside = line.trim_end() != "```";
            let block = blocks.last_mut().unwrap();
            if is_inside {
                block.code += line;
                block.code.push('\n');
            }
        } else if let Some(language) = line.strip_prefix("```") {
            is_inside = true;
            let file = above.strip_prefix("<!-- quoted from ").and_then(|rest| rest.strip_suffix(" -->"));
            let (language, file) = (language.trim().to_owned(), file.map(str::to_owned));
            blocks.push(Block { language, file, line: number + 2, code: String::new() });
        }
        above = line;
    }
    blocks
}

/// What is wrong with a block: `None` if it is a quotation and true, or is not one at all.
fn mistake(block: &Block, read: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let quoted = match block.language.as_str() {
        "rust" => block.code.clone(),
        // The lines that are there before: an empty one may have lost its space.
        "diff" => {
            let context = block.code.lines().filter(|line| !line.starts_with('+'));
            context.flat_map(|line| [line.strip_prefix([' ', '-']).unwrap_or(line), "\n"]).collect()
        }
        _ => return None,
    };
    let Some(file) = &block.file else { return Some("has no line `<!-- quoted from FILE -->` above it".to_owned()) };
    let Some(text) = read(file) else { return Some(format!("quotes {file}, which is not there")) };
    let found = format!("\n{text}").matches(&format!("\n{quoted}")).count();
    match (found, block.language.as_str()) {
        (0, _) => Some(format!("is not in {file}:\n{quoted}")),
        (2.., "diff") => Some(format!("has more than one place in {file}:\n{quoted}")),
        _ => None,
    }
}

fn documents() -> Vec<PathBuf> {
    let entries = fs_err::read_dir(root().join("docs/chapters")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.push(root().join("ARCHITECTURE.md"));
    paths.push(root().join("CONTRIBUTING.md"));
    paths.sort();
    paths
}

#[test]
fn every_quotation_is_in_its_file() {
    let read = |file: &str| fs_err::read_to_string(root().join(Path::new(file))).ok();
    let (mut mistakes, mut count) = (Vec::new(), 0);
    for path in documents() {
        for block in blocks(&fs_err::read_to_string(&path).unwrap()) {
            count += usize::from(block.file.is_some());
            if let Some(mistake) = mistake(&block, &read) {
                mistakes.push(format!("{}:{} {mistake}", path.display(), block.line));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(count >= 20, "{count} quotations");
}

#[test]
fn a_wrong_quotation_is_found() {
    let read = |file: &str| (file == "a.rs").then(|| "fn a() {\n    1\n}\nfn b() {\n    1\n}\n".to_owned());
    let check = |document: &str| mistake(&blocks(document).pop().unwrap(), &read);
    let quote = |code: &str| check(&format!("text\n<!-- quoted from a.rs -->\n{code}\n```\n"));
    assert_eq!(quote("```rust\nfn a() {\n    1"), None);
    assert!(quote("```rust\nfn a() {\n    2").unwrap().contains("is not in a.rs"));
    assert!(quote("```rust\n a() {").is_some(), "a quotation begins where a line does");
    assert_eq!(quote("```diff\n fn b() {\n+    2;\n     1"), None);
    assert!(quote("```diff\n+    2;\n     1").unwrap().contains("more than one place"));
    assert!(check("<!-- quoted from b.rs -->\n```rust\n```\n").unwrap().contains("not there"));
    assert!(check("<!-- quoted from a.rs -->\n\n```rust\nfn a() {\n```\n").unwrap().contains("no line"));
    assert_eq!(check("```sh\nls\n```\n"), None);
}

//! The crate reads no environment variable, prints nothing, downloads nothing and keeps no global state.

#![allow(clippy::unwrap_used)]

use std::path::Path;

/// Every source file under `folder`.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push((path.display().to_string(), fs_err::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_model_does_nothing_beside_its_work() {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20);
    for (path, text) in found {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let forbidden =
            ["std::env", "env::var", "println!", "print!(", "dbg!", "TcpStream", "ureq", "static mut", "OnceLock"];
        for word in forbidden {
            assert!(!text.contains(word), "{path} has `{word}`");
        }
    }
    let manifest = fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("default = ["), "a backend only where a program chose it");
}

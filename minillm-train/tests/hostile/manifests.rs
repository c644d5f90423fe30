//! A checkpoint's list of its files.

use std::collections::BTreeMap;

use minillm_model::checkpoint::manifest::MANIFEST_FILE;
use serde_json::{Value, json};

use super::Loader::Listing;
use super::{Case, case, cut, fixed, nested, replace};

pub(super) fn cases() -> Vec<Case> {
    let entry = |name: &str| {
        let text = format!(
            "{{\n  \"version\": 1,\n  \"files\": {{\n    \"{name}\": {{\n      \"bytes\": 1,\n      \"sha256\": \"\"\n    }}\n  }}\n}}\n"
        );
        fixed(text)
    };
    let outside = "which is not a path inside the checkpoint";
    let none = "is not a manifest";
    vec![
        case(Listing, "empty", none, fixed([])),
        case(Listing, "not-utf8", "is not UTF-8", fixed(b"{\"version\": 1, \"files\": {\"\xff\": 1}}")),
        case(Listing, "nested", none, fixed(nested(10_000))),
        case(Listing, "cut", none, cut(1, 2)),
        case(Listing, "version-2", "`version` is 2", replace("\"version\": 1", "\"version\": 2")),
        case(Listing, "version-in-words", "expected u32", replace("\"version\": 1", "\"version\": \"1\"")),
        case(Listing, "no-files", "missing field `files`", fixed(r#"{"version": 1}"#)),
        case(Listing, "surplus-field", "unknown field `sha512`", replace("\"sha256\"", "\"sha512\"")),
        case(Listing, "bytes-negative", "integer `-1`", replace("\"bytes\": ", "\"bytes\": -1, \"b\": ")),
        case(Listing, "bytes-over-2-to-64", none, replace("\"bytes\": ", "\"bytes\": 99999999999999999999, \"b\": ")),
        case(Listing, "in-the-parent", outside, entry("../config.json")),
        case(Listing, "in-the-parent-by-a-detour", outside, entry("a/../../b")),
        case(Listing, "at-the-root", outside, entry("/etc/passwd")),
        case(Listing, "on-a-drive", outside, entry("C:/config.json")),
        case(Listing, "behind-a-backslash", outside, entry(r"a\\b")),
        case(Listing, "hidden", outside, entry(".config.json")),
        case(Listing, "no-name", outside, entry("")),
        case(Listing, "with-a-zero-byte", outside, entry("a\\u0000b")),
        case(Listing, "itself", outside, entry(MANIFEST_FILE)),
        case(Listing, "same-file-twice", "is not as it was written", |sound| {
            let text = std::str::from_utf8(sound).unwrap();
            let begin = text.find("    \"config.json\"").unwrap();
            let end = begin + text[begin..].find("},\n").unwrap() + 3;
            [&text[..end], &text[begin..]].concat().into_bytes()
        }),
        case(Listing, "not-as-written", "is not as it was written", |sound| [sound, b" "].concat()),
        case(Listing, "too-many-files", "more than 4096", |_| {
            let files: BTreeMap<String, Value> =
                (0..5000).map(|i| (format!("f{i}"), json!({"bytes": 1, "sha256": ""}))).collect();
            json!({"version": 1, "files": files}).to_string().into_bytes()
        }),
        case(Listing, "over-2-mb", "is larger than", fixed([])).of_length(1 << 30),
        case(Listing, "file-that-is-not-there", "model/f`: is missing", entry("f")),
        case(Listing, "file-left-out", "is not part of the checkpoint", {
            fixed("{\n  \"version\": 1,\n  \"files\": {}\n}\n")
        }),
        case(Listing, "another-size", "bytes, the checkpoint was saved with 1", replace("\"bytes\": ", "\"bytes\": 1")),
        case(Listing, "another-hash", "SHA-256 differs", replace("\"sha256\": \"", "\"sha256\": \"0")),
    ]
}

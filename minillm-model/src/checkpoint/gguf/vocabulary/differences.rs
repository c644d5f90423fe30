//! What a `tokenizer.json` says and llama.cpp does not do: for some texts it will give other ids.

use serde_json::Value as Json;

use super::{Kind, kind};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::llama_cpp::CONTROL_NAMES;

/// The parts of a tokenizer that llama.cpp does not follow, each with what that means, for a model with `rows` rows.
/// Nothing for a tokenizer that GGUF cannot hold at all.
pub fn differences(tokenizer: &Tokenizer, rows: usize) -> Vec<String> {
    let file: Json = serde_json::from_str(&tokenizer.to_json()).unwrap_or_default(); // parsed before
    let Ok(kind) = kind(&file) else { return Vec::new() };
    let mut found: Vec<String> = added_tokens(&file, rows);
    let scheme = file["pre_tokenizer"]["prepend_scheme"].as_str().unwrap_or("always");
    if matches!(kind, Kind::SentencePiece { adds_space: true }) && file["pre_tokenizer"]["type"] == "Metaspace" {
        let after = if scheme == "first" { " and after a special token" } else { "" };
        found.push(format!(
            "`pre_tokenizer` is Metaspace with `prepend_scheme` {scheme:?}: llama.cpp puts a space also before a text that \
             begins with one{after}"
        ));
    }
    let added: Vec<_> = file["added_tokens"].as_array().into_iter().flatten().map(|token| &token["content"]).collect();
    let is_word = |name: &&str| file["model"]["vocab"][name].is_u64() && !added.iter().any(|content| *content == name);
    for name in CONTROL_NAMES.iter().filter(|name| is_word(name)) {
        found.push(format!("`model.vocab` has `{name}` as a word: llama.cpp takes it for a control token"));
    }
    if matches!(kind, Kind::ByteLevel { .. }) && file["normalizer"]["type"] == "NFC" {
        let what = "`normalizer` is NFC: llama.cpp does not compose characters, such as an e and its accent";
        found.push(what.to_owned());
    }
    found
}

/// Whether a token is of some kind.
type Condition<'a> = dyn Fn(&Json) -> bool + 'a;

fn added_tokens(file: &Json, rows: usize) -> Vec<String> {
    let is_changed = !file["normalizer"].is_null();
    let past = format!("it has no row among the model's {rows}, and llama.cpp will not know it");
    let flag = |flag: &'static str| move |token: &Json| token[flag] == true;
    let kinds: [(&str, &Condition, &str); 5] = [
        ("lstrip", &flag("lstrip"), "llama.cpp keeps the white space before it"),
        ("rstrip", &flag("rstrip"), "llama.cpp keeps the white space after it"),
        ("single_word", &flag("single_word"), "llama.cpp finds it within words, too"),
        (
            "normalized",
            &|token| is_changed && token["normalized"] == true,
            "llama.cpp looks for it in the text as it stands, without the changes of `normalizer`",
        ),
        ("id", &|token| token["id"].as_u64().is_some_and(|id| id >= rows as u64), &past),
    ];
    let mut found = Vec::new();
    for (part, is_so, what) in kinds {
        let mut tokens = file["added_tokens"].as_array().into_iter().flatten().filter(|token| is_so(token));
        let Some(first) = tokens.next().and_then(|token| token["content"].as_str()) else { continue };
        let more = match tokens.count() {
            0 => String::new(),
            more => format!(", and {more} more,"),
        };
        found.push(format!("`added_tokens` has `{first}`{more} with `{part}`: {what}"));
    }
    found
}

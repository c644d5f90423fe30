//! `--set section.key=value`: one value of a configuration, given on the command line.

use toml::{Table, Value};

use super::errors::{config_error, did_you_mean};
use super::keys::{keys, nearest, sections};
use crate::error::Result;

/// Splits `section.key=value` and reads the value. The key must be one that a file may hold.
pub(super) fn parse(setting: &str) -> Result<(String, Value)> {
    let Some((key, raw)) = setting.split_once('=') else {
        let hint = "write `--set section.key=value`, for example `--set train.batch_size=32`";
        return Err(config_error("--set", setting, "has no value", hint));
    };
    let (key, raw) = (key.trim(), raw.trim());
    // A key may reach into the one value that is a table of its own.
    let inner = key.strip_prefix("model.rope_scaling.").is_some_and(|name| !name.contains('.'));
    if !inner && !keys().iter().any(|known| known == key) {
        if sections().iter().any(|(section, _)| *section == key) {
            let hint = format!("set one of its keys, as in `--set {key}.KEY={raw}`");
            return Err(config_error("--set", key, "is a section, not a key", hint));
        }
        let candidates: Vec<_> = nearest(key).iter().map(|known| format!("`--set {known}={raw}`")).collect();
        let hint = if candidates.is_empty() { did_you_mean(key) } else { format!("write {}", candidates.join(" or ")) };
        return Err(config_error("--set", key, "is not a key", hint));
    }
    match parse_value(raw) {
        Ok(value) => Ok((key.to_owned(), value)),
        Err(reason) => {
            let hint = format!("put the whole in quotes that your shell removes: '{key}=[\"a.txt\", \"b.txt\"]'");
            Err(config_error("--set", key, format!("cannot be `{raw}`: {reason}"), hint))
        }
    }
}

/// A TOML value, or a bare word as text. Most shells take the quotes out of `["a.txt"]`, so bare words are also allowed
/// in a list.
fn parse_value(raw: &str) -> Result<Value, String> {
    let inner = raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match (raw.parse(), inner) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(inner)) => {
            let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(parse_word).collect::<Result<_, _>>().map(Value::Array)
        }
        (Err(_), None) => parse_word(raw),
    }
}

fn parse_word(raw: &str) -> Result<Value, String> {
    match raw.parse() {
        Ok(value) => Ok(value),
        Err(_) if raw.is_empty() => Err("there is no value".to_owned()),
        // What begins like TOML was meant as TOML.
        Err(error) if raw.starts_with(['[', '{', '"', '\'']) => Err(toml::de::Error::message(&error).to_owned()),
        Err(_) => Ok(Value::String(raw.to_owned())),
    }
}

/// Section, key, and the neighbours in the file that have no place there once `--set` gives the key another value.
const REPLACED: [(&str, &str, &[&str]); 3] = [
    ("tokenizer", "kind", &["vocab_size", "path"]),
    ("data", "source", &["url", "sha256", "files", "order"]),
    ("data", "url", &["source", "sha256", "files"]),
];

/// Drops from the file's `table` what setting `key` to `value` replaces.
pub(super) fn take_out_replaced(table: &mut Table, key: &str, value: &Value) {
    for (section, name, replaced) in REPLACED {
        if key.split_once('.') != Some((section, name)) {
            continue;
        }
        if let Some(section) = table.get_mut(section).and_then(Value::as_table_mut)
            && section.get(name) != Some(value)
        {
            section.retain(|name, _| !replaced.contains(&name));
        }
    }
}

/// Puts a value at a dotted key, making the sections on the way.
pub(super) fn insert(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    match table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => insert(inner, rest, value),
        _ => Err(config_error("--set", key, "reaches into a value that is no table", "set the whole value instead")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::RunConfig;
    use crate::data::{Order, TokenizerConfig};

    fn parse(text: &str, overrides: &[&str]) -> Result<RunConfig> {
        let overrides: Vec<_> = overrides.iter().map(|&setting| setting.to_owned()).collect();
        RunConfig::parse(text, Path::new("run.toml"), &overrides)
    }

    #[track_caller]
    fn assert_refusal(setting: &str, message: &str, hint: &str) {
        let error = parse("", &[setting]).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint()), (message, Some(hint)));
    }

    #[test]
    fn override_values() {
        let text = |value: &str| parse_value(value).unwrap().to_string();
        assert_eq!(text("3"), "3");
        assert_eq!(text("1e-3"), "0.001");
        assert_eq!(text("true"), "true");
        assert_eq!(text("gpt2"), "\"gpt2\"");
        assert_eq!(text("tokenizer.json"), "\"tokenizer.json\"");
        assert_eq!(text("https://example.org/a?b=c"), "\"https://example.org/a?b=c\"");
        assert_eq!(text("[\"a.txt\", 'b.txt']"), "[\"a.txt\", \"b.txt\"]");
        assert_eq!(text("[../a.txt,b.txt]"), "[\"../a.txt\", \"b.txt\"]");
        assert_eq!(text("{ rope_type = \"linear\", factor = 2.0 }"), "{ factor = 2.0, rope_type = \"linear\" }");
        assert!(parse_value("[\"a.txt").is_err());
        assert!(parse_value("").is_err());
        assert!(parse_value(&("[".repeat(100_000) + &"]".repeat(100_000))).is_err());
        let scaled = parse("", &["model.rope_scaling.rope_type=linear", "model.rope_scaling.factor=2"]).unwrap();
        assert_eq!(scaled.model.rope_scaling, Some(minillm_model::config::RopeScaling::Linear { factor: 2.0 }));
    }

    #[test]
    fn a_decisive_override_takes_out_what_it_replaces() {
        let text = "[tokenizer]\nkind = 'bpe'\nvocab_size = 512\n[data]\nurl = 'http://x/y.txt'\norder = 'random'\n";
        let config = parse(text, &["tokenizer.kind=char", "data.source=tales"]).unwrap();
        assert_eq!(config.tokenizer, TokenizerConfig::Char);
        assert!(config.data.is_tales() && config.data.url.is_none() && config.data.order.is_none());
        let config = parse(text, &["tokenizer.kind=bpe", "data.files=[a.txt]"]).unwrap();
        assert_eq!(config.tokenizer, TokenizerConfig::Bpe { vocab_size: 512 });
        assert_eq!(config.data.order, Some(Order::Random));
        let config = parse(text, &["tokenizer.vocab_size=300", "tokenizer.kind=bpe"]).unwrap();
        assert_eq!(config.tokenizer, TokenizerConfig::Bpe { vocab_size: 300 });
    }

    #[test]
    fn unknown_overrides() {
        let hint = "write `--set train.batch_size=32`";
        assert_refusal("batch_size=32", "--set: `batch_size` is not a key", hint);
        assert_refusal("train.batchsize=32", "--set: `train.batchsize` is not a key", hint);
        let hint = "set one of its keys, as in `--set data.KEY=tales`";
        assert_refusal("data=tales", "--set: `data` is a section, not a key", hint);
        let hint = "write `--set section.key=value`, for example `--set train.batch_size=32`";
        assert_refusal("train.batch_size", "--set: `train.batch_size` has no value", hint);
        assert!(parse("", &["model.rope_scaling.a.b=1"]).is_err());
    }
}

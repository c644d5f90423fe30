//! The text in one line of a `.jsonl` file.
//!
//! JSON as people have it: Python's `json` and pandas write `NaN`, `Infinity` and `-Infinity`, and Python and JavaScript write
//! strings with half of a surrogate pair. In a field that is not read they do no harm. In the text, half a pair becomes
//! U+FFFD, as in Python's and tiktoken's encoders.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The text of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JsonText {
    pub text: String,
    /// Whether half a surrogate pair somewhere in the line was replaced.
    pub replaced_surrogate: bool,
}

/// A line of the usual kind.
#[derive(Deserialize)]
struct Line {
    text: String,
}

/// A line whose text may be anything.
#[derive(Deserialize)]
struct OddLine {
    #[serde(default, deserialize_with = "present")]
    text: Option<Value>,
}

/// `null` is a value, too.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// The field `text` of the object in `json`. `Err` says what is wrong with it, without naming the line.
pub(super) fn text_of(json: &str) -> Result<JsonText, String> {
    // serde would take an array for the object's fields in order.
    if !json.trim_start().starts_with('{') {
        return Err("is not an object".to_owned());
    }
    if let Ok(Line { text }) = serde_json::from_str(json) {
        return Ok(JsonText { text, replaced_surrogate: false });
    }
    let Strict { json, replaced_number, replaced_surrogate } = strict(json);
    let line: OddLine = serde_json::from_str(&json).map_err(|error| in_line(&error))?;
    match line.text {
        Some(Value::String(text)) => Ok(JsonText { text, replaced_surrogate }),
        Some(Value::Null) if replaced_number => Err("`text` is null, NaN or infinite, not a string".to_owned()),
        Some(Value::Null) => Err("`text` is null, not a string".to_owned()),
        Some(Value::Bool(_)) => Err("`text` is true or false, not a string".to_owned()),
        Some(Value::Number(number)) => Err(format!("`text` is the number {number}, not a string")),
        Some(Value::Array(_)) => Err("`text` is a list, not a string".to_owned()),
        Some(Value::Object(_)) => Err("`text` is an object, not a string".to_owned()),
        None => Err(missing(&json)),
    }
}

/// That there is no text, and what there is.
fn missing(json: &str) -> String {
    const MOST: usize = 8;
    #[allow(clippy::zero_sized_map_values)] // JSON has no sets: only the names are wanted
    let fields: BTreeMap<String, IgnoredAny> = serde_json::from_str(json).unwrap_or_default();
    let names: Vec<_> = fields.keys().take(MOST).map(|name| format!("`{name}`")).collect();
    let has = if names.is_empty() { String::new() } else { format!(": it has {}", names.join(", ")) };
    format!("missing field `text`{has}")
}

/// The library's reason with the column alone: it counts lines within the one that it was given.
fn in_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&place) {
        Some(reason) => format!("{reason} at column {}", error.column()),
        None => message,
    }
}

/// A line as JSON's standard has it.
struct Strict<'a> {
    json: Cow<'a, str>,
    replaced_number: bool,
    replaced_surrogate: bool,
}

/// Replaces the numbers that JSON does not have by `null`, and halves of surrogate pairs by U+FFFD.
fn strict(json: &str) -> Strict<'_> {
    let mut strict = Strict { json: Cow::Borrowed(json), replaced_number: false, replaced_surrogate: false };
    let mut made = String::new();
    let mut copied = 0; // bytes of `json` that `made` stands for
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = json.as_bytes().get(at) {
        let rest = &json.as_bytes()[at..];
        let (length, replacement) = match byte {
            b'"' => {
                in_string = !in_string;
                (1, None)
            }
            b'\\' if in_string => match (unit(rest), unit(rest.get(6..).unwrap_or_default())) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
                (Some(0xd800..=0xdfff), _) => (6, Some("\\ufffd")),
                _ => (2, None),
            },
            b'N' | b'I' | b'-' if !in_string => {
                let found = ["NaN", "Infinity", "-Infinity"].into_iter().find(|name| rest.starts_with(name.as_bytes()));
                found.map_or((1, None), |name| (name.len(), Some("null")))
            }
            _ => (1, None),
        };
        if let Some(replacement) = replacement {
            made += &json[copied..at];
            made += replacement;
            copied = at + length;
            if in_string { strict.replaced_surrogate = true } else { strict.replaced_number = true }
        }
        at += length;
    }
    if copied > 0 {
        strict.json = Cow::Owned(made + &json[copied..]);
    }
    strict
}

/// The UTF-16 code unit of an escape `\uXXXX` that `bytes` begin with.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    // `from_str_radix` would take a sign.
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    std::str::from_utf8(digits).ok().filter(|_| is_hex).and_then(|digits| u16::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        text_of(json).unwrap().text
    }

    fn problem(json: &str) -> String {
        text_of(json).unwrap_err()
    }

    #[test]
    fn numbers_that_json_does_not_have_are_no_reason_to_stop() {
        assert_eq!(text(r#"{"score": NaN, "text": "a"}"#), "a");
        assert_eq!(
            text(r#"{"text": "NaN, \"Infinity", "a": [Infinity, -Infinity, {"b": NaN}], "c": -1}"#),
            "NaN, \"Infinity"
        );
        assert_eq!(problem(r#"{"text": NaN}"#), "`text` is null, NaN or infinite, not a string");
        assert!(problem(r#"{"text": "a", "b": NaNa}"#).starts_with("expected `,` or `}` at column "));
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced() {
        assert_eq!(text(r#"{"text": "a\ud83db"}"#), "a\u{fffd}b");
        assert_eq!(text(r#"{"text": "a\uD83D"}"#), "a\u{fffd}");
        assert_eq!(text(r#"{"text": "\ude00\ud83d\ude00\\ud83d"}"#), "\u{fffd}\u{1f600}\\ud83d");
        assert_eq!(text(r#"{"text": "\ud83d\ud83d\ude00"}"#), "\u{fffd}\u{1f600}");
        assert_eq!(text(r#"{"id": "\udc00", "\ud800": NaN, "text": "a"}"#), "a");
        assert!(text_of(r#"{"text": "a\ud83db"}"#).unwrap().replaced_surrogate);
        assert!(!text_of(r#"{"text": "\ud83d\ude00", "b": NaN}"#).unwrap().replaced_surrogate);
        assert!(text_of(r#"{"text": "\ud83"}"#).is_err() && text_of(r#"{"text": "\ud83d\"#).is_err());
    }

    #[test]
    fn problems_say_what_is_there_and_name_no_line() {
        assert_eq!(problem("[1]"), "is not an object");
        assert_eq!(problem(r#"{"text": null}"#), "`text` is null, not a string");
        assert_eq!(problem(r#"{"text": 3.5}"#), "`text` is the number 3.5, not a string");
        assert_eq!(problem(r#"{"text": ["a"]}"#), "`text` is a list, not a string");
        assert_eq!(problem(r#"{"content": "a", "id": 1}"#), "missing field `text`: it has `content`, `id`");
        assert_eq!(problem("{}"), "missing field `text`");
        assert_eq!(problem(r#"{"text": "a""#), "EOF while parsing an object at column 12");
        assert_eq!(problem(r#"{"text": "a", "text": "b"}"#), "duplicate field `text` at column 20");
        assert_eq!(problem(r#"{"text": "a"} {}"#), "trailing characters at column 15");
    }
}

//! JSON texts before they are parsed: how large they will be (in memory a value takes many times its bytes, and an error
//! about a text repeats it), and what Python writes that is no JSON.

use std::borrow::Cow;

/// What a JSON text holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Elements of lists and objects, or a few more.
    pub values: usize,
    /// Bytes of the longest text in quotes.
    pub longest_text: usize,
}

impl Extent {
    /// The size of what may be JSON.
    pub fn of(json: &[u8]) -> Self {
        let mut extent = Self::default();
        let (mut text, mut escaped) = (None, false); // where a text began
        for (at, byte) in json.iter().enumerate() {
            match (text, byte) {
                (Some(_), b'\\') if !escaped => {
                    escaped = true;
                    continue;
                }
                (Some(begin), b'"') if !escaped => {
                    extent.longest_text = extent.longest_text.max(at - begin - 1);
                    text = None;
                }
                (None, b'"') => text = Some(at),
                (None, b',' | b'[' | b'{') => extent.values += 1,
                _ => {}
            }
            escaped = false;
        }
        // A text without an end is no JSON, but its error would be as long.
        let open = text.map_or(0, |begin| json.len() - begin - 1);
        Self { longest_text: extent.longest_text.max(open), ..extent }
    }
}

/// The text with Python's `NaN`, `Infinity` and `-Infinity`, which are no JSON, in quotes, and without a byte order mark. So
/// a number that is none is an error only where a number is wanted, and names its field there.
pub(crate) fn quote_non_finite(json: &str) -> Cow<'_, str> {
    let json = json.trim_start_matches('\u{feff}');
    let bytes = json.as_bytes();
    let (mut quoted, mut copied) = (String::new(), 0);
    let (mut at, mut in_text) = (0, false);
    while at < bytes.len() {
        let word = match bytes[at] {
            b'-' | b'I' | b'N' if !in_text => {
                ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| bytes[at..].starts_with(word.as_bytes()))
            }
            b'\\' if in_text => {
                at += 1; // the next byte is escaped
                None
            }
            b'"' => {
                in_text = !in_text;
                None
            }
            _ => None,
        };
        if let Some(word) = word {
            quoted.extend([&json[copied..at], "\"", word, "\""]);
            copied = at + word.len();
        }
        at += word.map_or(1, str::len);
    }
    if copied == 0 { Cow::Borrowed(json) } else { Cow::Owned(quoted + &json[copied..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_numbers_become_texts() {
        for (python, json) in [
            (r#"{"a": [0.0, Infinity, -Infinity], "b": NaN}"#, r#"{"a": [0.0, "Infinity", "-Infinity"], "b": "NaN"}"#),
            (r#"{"NaN": "Infinity \" NaN", "c\\": NaN}"#, r#"{"NaN": "Infinity \" NaN", "c\\": "NaN"}"#),
            ("\u{feff}{\"a\": -1}", "{\"a\": -1}"),
            ("NaN", "\"NaN\""),
            ("[null, -1e-5, \"\u{e9}\\", "[null, -1e-5, \"\u{e9}\\"),
        ] {
            assert_eq!(quote_non_finite(python), json);
        }
    }

    #[test]
    fn texts_end_at_a_quote_that_is_not_escaped() {
        for (json, values, longest_text) in [
            ("", 0, 0),
            ("{}", 1, 0),
            (r#"{"a": [1, 2], "bcd": {}}"#, 5, 3),
            (r#"["a\"],[", 1]"#, 2, 6),
            (r#"["a\\", "b"]"#, 2, 3),
            (r#"["never ends"#, 1, 10),
        ] {
            assert_eq!(Extent::of(json.as_bytes()), Extent { values, longest_text }, "{json}");
        }
    }
}

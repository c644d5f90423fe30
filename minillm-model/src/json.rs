//! How large a JSON text will be, told before it is parsed: in memory a value takes many times its bytes, and an error
//! about a text repeats it.

/// What a JSON text holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Elements of lists and objects, or a few more.
    pub values: usize,
    /// Bytes of the longest text in quotes.
    pub longest_text: usize,
}

impl Extent {
    /// Of what may be JSON.
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

#[cfg(test)]
mod tests {
    use super::*;

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

//! What templates expect of Python: `json.dumps`, and the functions that transformers adds.

use std::fmt::Write;

use jiff::civil::DateTime;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

/// Adds transformers' functions and filters, for this local time.
pub fn add_to(environment: &mut Environment<'_>, now: DateTime) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", |value: &Value, options: Kwargs| {
        let format = JsonFormat::new(&options)?;
        options.assert_all_used()?;
        let mut json = String::new();
        format.write(value, 0, &mut json)?;
        Ok::<_, Error>(Value::from_safe_string(json))
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
    });
    environment.add_function("strftime_now", move |format: &str| {
        let text = jiff::fmt::strtime::format(format, now);
        text.map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
}

/// The source of errors that a template raises in its own words.
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
pub struct Raised;

/// More is no layout but an attack on memory.
const LARGEST_INDENT: usize = 64;

/// How `json.dumps(value, ensure_ascii=False, ..)` writes: keys in the order of the text, a space behind commas and colons.
struct JsonFormat {
    indent: Option<usize>,
    comma: String,
    colon: String,
    is_ascii: bool,
    is_sorted: bool,
}

impl JsonFormat {
    fn new(options: &Kwargs) -> Result<Self, Error> {
        let indent: Option<usize> = options.get("indent")?;
        if indent.is_some_and(|indent| indent > LARGEST_INDENT) {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson indents by at most {LARGEST_INDENT}")));
        }
        let separators: Option<Vec<String>> = options.get("separators")?;
        let [comma, colon] = match separators {
            None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
            Some(given) => <[String; 2]>::try_from(given)
                .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson takes two separators"))?,
        };
        let is_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
        let is_sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
        Ok(Self { indent, comma, colon, is_ascii, is_sorted })
    }

    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Seq | ValueKind::Iterable => {
                out.push('[');
                let items: Vec<Value> = value.try_iter()?.collect();
                for (index, item) in items.iter().enumerate() {
                    self.begin_item(index, depth, out);
                    self.write(item, depth + 1, out)?;
                }
                self.end(items.is_empty(), depth, out);
                out.push(']');
            }
            ValueKind::Map => {
                out.push('{');
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.is_sorted {
                    keys.sort();
                }
                for (index, key) in keys.iter().enumerate() {
                    self.begin_item(index, depth, out);
                    self.write_text(key.as_str().unwrap_or(&key.to_string()), out);
                    out.push_str(&self.colon);
                    self.write(&value.get_item(key)?, depth + 1, out)?;
                }
                self.end(keys.is_empty(), depth, out);
                out.push('}');
            }
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), out),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&value.to_string()),
            kind => {
                let problem = format!("a value of kind {kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::BadSerialization, problem));
            }
        }
        Ok(())
    }

    fn begin_item(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.comma);
        }
        self.begin_line(depth + 1, out);
    }

    fn end(&self, is_empty: bool, depth: usize, out: &mut String) {
        if !is_empty {
            self.begin_line(depth, out);
        }
    }

    fn begin_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_text(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                _ if character < ' ' || self.is_ascii && !character.is_ascii() => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").unwrap_or_else(|_| unreachable!("a text takes every character"));
                    }
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

//! What templates expect of Python: `json.dumps`, and the functions that transformers adds.

use std::fmt::Write;

use jiff::civil::DateTime;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

/// Adds transformers' functions and filters, for this local time.
pub fn add_to(environment: &mut Environment<'_>, now: DateTime) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", |value: &Value, options: Kwargs| {
        // Also by position in Python, but no template is known that does it.
        let indent: Option<usize> = options.get("indent")?;
        let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
        let _: (Option<Value>, Option<Value>) = (options.get("separators")?, options.get("sort_keys")?);
        options.assert_all_used()?;
        let mut json = String::new();
        write_json(value, indent, ensure_ascii.unwrap_or(false), 0, &mut json)?;
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

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: a space behind commas and colons, keys in the order of the text.
fn write_json(value: &Value, indent: Option<usize>, ascii: bool, depth: usize, out: &mut String) -> Result<(), Error> {
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { comma } else { "" });
                line(depth + 1, out);
                write_json(item, indent, ascii, depth + 1, out)?;
            }
            if !items.is_empty() {
                line(depth, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            let keys: Vec<Value> = value.try_iter()?.collect();
            out.push('{');
            for (index, key) in keys.iter().enumerate() {
                out.push_str(if index > 0 { comma } else { "" });
                line(depth + 1, out);
                write_text(key.as_str().unwrap_or(&key.to_string()), ascii, out);
                out.push_str(": ");
                write_json(&value.get_item(key)?, indent, ascii, depth + 1, out)?;
            }
            if !keys.is_empty() {
                line(depth, out);
            }
            out.push('}');
        }
        ValueKind::String => write_text(value.as_str().unwrap_or_default(), ascii, out),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        kind => {
            let problem = format!("a value of kind {kind} is not JSON serializable");
            return Err(Error::new(ErrorKind::BadSerialization, problem));
        }
    }
    Ok(())
}

fn write_text(text: &str, ascii: bool, out: &mut String) {
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
            _ if character < ' ' || ascii && !character.is_ascii() => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").unwrap_or_else(|_| unreachable!("a text takes every character"));
                }
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

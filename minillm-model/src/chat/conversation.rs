//! Messages as people write them in JSON: `[{"role": "user", "content": "..."}, ..]`, with whatever else a template may ask for.

use minijinja::Value;
use minijinja::value::ValueKind;

use crate::error::{Error, Result};

/// The messages of a conversation, in order.
#[derive(Clone, Debug)]
pub struct Conversation(Vec<Value>);

impl Conversation {
    /// Reads a list of messages, or an object with such a list as `messages`. Each has a `role`, and a `content` that is a text, a list of
    /// parts, or null. Keys keep their order, which a template may show.
    pub fn from_json(json: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(json).map_err(|error| wrong(format!("the messages are not JSON: {error}")))?;
        let messages =
            if value.kind() == ValueKind::Map { value.get_attr("messages").unwrap_or_default() } else { value };
        if messages.kind() != ValueKind::Seq {
            return Err(wrong("the messages are not a list".to_owned()));
        }
        Self::new(messages.try_iter().into_iter().flatten().collect())
    }

    /// One message of each pair of role and text.
    pub fn from_texts<'a>(messages: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let message =
            |(role, content)| Value::from_pairs([("role", Value::from(role)), ("content", Value::from(content))]);
        Self(messages.into_iter().map(message).collect())
    }

    fn new(messages: Vec<Value>) -> Result<Self> {
        for (index, message) in messages.iter().enumerate() {
            let number = index + 1;
            if message.kind() != ValueKind::Map {
                return Err(wrong(format!("message {number} is not an object")));
            }
            let part = |name| message.get_attr(name).unwrap_or_default();
            if part("role").as_str().is_none() {
                return Err(wrong(format!("message {number} has no `role` that is a text")));
            }
            let content = part("content").kind();
            if ![ValueKind::String, ValueKind::Seq, ValueKind::None, ValueKind::Undefined].contains(&content) {
                return Err(wrong(format!(
                    "message {number} has a `content` that is neither a text nor a list of parts"
                )));
            }
        }
        if messages.is_empty() {
            return Err(wrong("there are no messages".to_owned()));
        }
        Ok(Self(messages))
    }

    /// What is said in the messages, in order.
    pub fn texts(&self) -> Vec<String> {
        let content = |message: &Value| message.get_attr("content").ok()?.as_str().map(str::to_owned);
        self.0.iter().filter_map(content).collect()
    }

    /// The messages as a template sees them.
    pub(super) fn messages(&self) -> &[Value] {
        &self.0
    }

    /// The same with every text changed: contents, names, calls of tools. Roles stay.
    pub(super) fn map_texts(&self, change: &impl Fn(&str) -> String) -> Self {
        Self(self.0.iter().map(|message| map_texts(message, change)).collect())
    }

    /// The same with `mark` behind the last message's text; `None` if that message has no text.
    pub(super) fn with_end_marked(&self, mark: &str) -> Option<Self> {
        let mut messages = self.0.clone();
        let last = messages.last_mut()?;
        let content = last.get_attr("content").ok()?;
        let marked = format!("{}{mark}", content.as_str()?);
        let entries: Vec<_> = entries(last).collect();
        let content_marked =
            |(key, value)| if is(&key, "content") { (key, Value::from(&*marked)) } else { (key, value) };
        *last = Value::from_pairs(entries.into_iter().map(content_marked));
        Some(Self(messages))
    }
}

fn wrong(problem: String) -> Error {
    let hint = r#"write [{"role": "user", "content": "..."}, ..]"#;
    Error::Chat { problem, hint: hint.to_owned() }
}

fn is(key: &Value, name: &str) -> bool {
    key.as_str() == Some(name)
}

/// The keys and values of an object.
fn entries(object: &Value) -> impl Iterator<Item = (Value, Value)> {
    let entry = |key: Value| {
        let value = object.get_item(&key).unwrap_or_default();
        (key, value)
    };
    object.try_iter().into_iter().flatten().map(entry)
}

fn map_texts(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match value.kind() {
        ValueKind::String => value.as_str().map_or_else(|| value.clone(), |text| Value::from(change(text))),
        ValueKind::Seq => value.try_iter().into_iter().flatten().map(|item| map_texts(&item, change)).collect(),
        ValueKind::Map => Value::from_pairs(entries(value).map(|(key, value)| {
            // What a part is, is not said by the user's words.
            let value = if is(&key, "role") || is(&key, "type") { value } else { map_texts(&value, change) };
            (key, value)
        })),
        _ => value.clone(),
    }
}

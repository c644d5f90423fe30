//! Lines of JSON as people have them: one conversation each, in one of five kinds.
//!
//! | kind | a line |
//! |---|---|
//! | messages | `{"messages": [{"role": "user", "content": "..."}, ..]}` |
//! | ShareGPT | `{"conversations": [{"from": "human", "value": "..."}, ..]}` |
//! | Alpaca | `{"instruction": "...", "input": "...", "output": "..."}` |
//! | prompt and completion | `{"prompt": .., "completion": ..}`, two texts or two lists of messages |
//! | preferences | `{"prompt": .., "chosen": .., "rejected": ..}` |
//!
//! The keys of the first line decide; a line of another kind is an error with its number.

use std::io::Read;
use std::path::{Path, PathBuf};

use minillm_infer::text_files::{Format, Progress, TextFile};
use minillm_model::chat::Conversation;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The longest line that is read, in bytes: a conversation of this length has no place in any context.
const LONGEST_LINE_BYTES: u64 = 64 << 20;

/// How conversations are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `messages`.
    Messages,
    /// `conversations` of `from` and `value`.
    ShareGpt,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// `prompt`, `completion`.
    PromptCompletion,
    /// `chosen`, `rejected`.
    Preferences,
}

/// One line.
#[derive(Clone, Debug)]
pub enum Record {
    /// Messages; the assistant's are learned.
    Conversation(Conversation),
    /// Messages, of which the last few answer the others: only these are learned.
    Completion {
        /// What is given.
        prompt: Conversation,
        /// All messages.
        whole: Conversation,
    },
    /// Two answers to one prompt, each a [`Record::Completion`] or [`Record::Texts`].
    Preference {
        /// The better one.
        chosen: Box<Record>,
        /// The other.
        rejected: Box<Record>,
    },
    /// Texts without a chat template; the second is learned.
    Texts {
        /// What is given.
        prompt: String,
        /// What follows it.
        completion: String,
    },
}

/// Names for who speaks, as chat templates have them.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// ShareGPT's names.
const SHARE_GPT: [(&str, &str); 7] = [
    ("system", "system"),
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("observation", "tool"),
    ("tool", "tool"),
];

impl Record {
    /// All that is said in it.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Conversation(messages) | Self::Completion { whole: messages, .. } => messages.texts(),
            Self::Preference { chosen, rejected } => [chosen.texts(), rejected.texts()].concat(),
            Self::Texts { prompt, completion } => vec![prompt.clone(), completion.clone()],
        }
    }
}

impl Kind {
    /// What a line with these keys is.
    fn of(keys: &Map<String, Value>) -> Option<Self> {
        let has = |key: &str| keys.contains_key(key);
        if has("chosen") && has("rejected") {
            Some(Self::Preferences)
        } else if has("messages") {
            Some(Self::Messages)
        } else if has("conversations") {
            Some(Self::ShareGpt)
        } else if has("prompt") && has("completion") {
            Some(Self::PromptCompletion)
        } else if has("instruction") && has("output") {
            Some(Self::Alpaca)
        } else {
            None
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::ShareGpt => "ShareGPT",
            Self::Alpaca => "Alpaca",
            Self::PromptCompletion => "prompt and completion",
            Self::Preferences => "preferences",
        }
    }
}

/// Reads the conversations of all files, in order, and hands each with its file and line, counted from 1, to `take`. Returns their kind.
///
/// # Errors
/// Names file and line: no JSON, another kind than the first line's, a role that no template knows, a message without words, a
/// conversation without an answer.
pub fn read(
    files: &[PathBuf],
    progress: &dyn Progress,
    mut take: impl FnMut(&Path, usize, Record) -> Result<()>,
) -> Result<Kind> {
    let mut first: Option<Kind> = None;
    for path in files {
        let file = TextFile::new(path)?;
        if file.format != Format::JsonLines {
            return Err(Error::Data {
                path: path.clone(),
                problem: "is plain text, and conversations are lines of JSON".to_owned(),
                hint: "give a .jsonl file, one conversation a line".to_owned(),
            });
        }
        let mut reader = file.open(progress)?;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = std::io::BufRead::read_until(&mut reader.by_ref().take(LONGEST_LINE_BYTES), b'\n', &mut line);
            let read = read.map_err(|error| Error::Data {
                path: path.clone(),
                problem: format!("cannot be read behind line {}: {error}", number - 1),
                hint: "copy or download the file again".to_owned(),
            })?;
            if read == 0 {
                break;
            }
            let at = |problem: String| Error::Data {
                path: path.clone(),
                problem: format!("line {number} {problem}"),
                hint: "mend or remove the line; the documentation of `data.files` lists what can be read".to_owned(),
            };
            if read as u64 == LONGEST_LINE_BYTES {
                return Err(at("is longer than 64 MiB".to_owned()));
            }
            let text = std::str::from_utf8(&line).map_err(|_| at("is not UTF-8".to_owned()))?;
            let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
            if text.trim().is_empty() {
                continue;
            }
            let keys: Map<String, Value> =
                serde_json::from_str(text).map_err(|error| at(format!("is not an object in JSON: {error}")))?;
            let Some(kind) = Kind::of(&keys) else {
                let names: Vec<_> = keys.keys().take(8).map(|key| format!("`{key}`")).collect();
                return Err(at(format!("has the keys {}, which are those of no kind that is known", names.join(", "))));
            };
            let expected = *first.get_or_insert(kind);
            if kind != expected {
                return Err(at(format!("is of the kind {}, the lines before are {}", kind.name(), expected.name())));
            }
            take(path, number, record(kind, &keys, text).map_err(at)?)?;
        }
    }
    first.ok_or_else(|| Error::Data {
        path: files.first().cloned().unwrap_or_default(),
        problem: "holds no conversation".to_owned(),
        hint: "give a file with one conversation a line".to_owned(),
    })
}

/// An error about what became of a line.
pub fn at_line(path: &Path, line: usize, error: &Error) -> Error {
    Error::Data {
        path: path.to_owned(),
        problem: format!("line {line} cannot be written as the chat template has it: {error}"),
        hint: error.hint().unwrap_or("mend or remove the line").to_owned(),
    }
}

/// One line, `text` with these keys, as a record. Errors continue "line 7 ".
fn record(kind: Kind, keys: &Map<String, Value>, text: &str) -> Result<Record, String> {
    match kind {
        Kind::Messages => {
            let read = conversation(&keys["messages"])?;
            let has_parts =
                |list: &Value| list.as_array().into_iter().flatten().any(|message| message["content"].is_array());
            if has_parts(&keys["messages"]) {
                return Ok(Record::Conversation(read));
            }
            // From the text, where the keys of a message keep their order.
            Conversation::from_json(text).map(Record::Conversation).map_err(unreadable)
        }
        Kind::ShareGpt => conversation(&share_gpt(&keys["conversations"])?).map(Record::Conversation),
        Kind::Alpaca => {
            let [instruction, input, output] = ["instruction", "input", "output"].map(|key| field(keys, key));
            let input = if keys.get("input").is_none_or(Value::is_null) { String::new() } else { input? };
            let question = if input.is_empty() { instruction? } else { format!("{}\n\n{input}", instruction?) };
            let output = output?;
            Ok(Record::Conversation(Conversation::from_texts([("user", &*question), ("assistant", &*output)])))
        }
        Kind::PromptCompletion => match (&keys["prompt"], &keys["completion"]) {
            (Value::String(prompt), Value::String(completion)) => {
                Ok(Record::Texts { prompt: prompt.clone(), completion: completion.clone() })
            }
            (Value::Array(prompt), Value::Array(completion)) => {
                let whole = conversation(&Value::Array([&prompt[..], completion].concat()))?;
                let prompt = messages(&Value::Array(prompt.clone()))?;
                Ok(Record::Completion { prompt, whole })
            }
            _ => {
                Err("has a `prompt` and a `completion` that are neither two texts nor two lists of messages".to_owned())
            }
        },
        Kind::Preferences => preference(keys),
    }
}

/// Two answers. Without `prompt`, or with it repeated in them, it is what they have in common at their beginning.
fn preference(keys: &Map<String, Value>) -> Result<Record, String> {
    let both = |chosen, rejected| Record::Preference { chosen: Box::new(chosen), rejected: Box::new(rejected) };
    match (&keys["chosen"], &keys["rejected"]) {
        (Value::String(chosen), Value::String(rejected)) => {
            let (prompt, chosen, rejected) = if let Some(prompt) = keys.get("prompt").and_then(Value::as_str) {
                (prompt, &**chosen, &**rejected)
            } else {
                let same = chosen.char_indices().zip(rejected.chars()).find(|((_, a), b)| a != b);
                let same = same.map_or(chosen.len().min(rejected.len()), |((place, _), _)| place);
                (&chosen[..same], &chosen[same..], &rejected[same..])
            };
            let texts =
                |completion: &str| Record::Texts { prompt: prompt.to_owned(), completion: completion.to_owned() };
            Ok(both(texts(chosen), texts(rejected)))
        }
        (Value::Array(chosen), Value::Array(rejected)) => {
            let given = keys.get("prompt").and_then(Value::as_array);
            let same = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
            let whole = |answer: &[Value]| given.map_or_else(|| answer.to_vec(), |prompt| [prompt, answer].concat());
            let prompt = given.map_or(&chosen[..same], |prompt| &prompt[..]);
            if prompt.is_empty() {
                return Err("has no prompt: the two answers have no message in common at their beginning".to_owned());
            }
            let prompt = messages(&Value::Array(prompt.to_vec()))?;
            let completion = |answer: &[Value]| -> Result<Record, String> {
                Ok(Record::Completion { prompt: prompt.clone(), whole: conversation(&Value::Array(whole(answer)))? })
            };
            Ok(both(completion(chosen)?, completion(rejected)?))
        }
        _ => Err("has a `chosen` and a `rejected` that are neither two texts nor two lists of messages".to_owned()),
    }
}

fn field(keys: &Map<String, Value>, key: &str) -> Result<String, String> {
    keys.get(key).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("has no text as `{key}`"))
}

fn unreadable(error: impl std::fmt::Display) -> String {
    format!("cannot be read: {error}")
}

/// Messages with an answer to learn.
fn conversation(list: &Value) -> Result<Conversation, String> {
    let answers = |message: &Value| message["role"] == "assistant";
    let conversation = messages(list)?;
    if !list.as_array().is_some_and(|messages| messages.iter().any(answers)) {
        return Err("has no message of the assistant, so there is nothing to learn".to_owned());
    }
    Ok(conversation)
}

/// Messages of known roles, each with words or a call of a tool.
fn messages(list: &Value) -> Result<Conversation, String> {
    let list = &with_parts_joined(list);
    let conversation = Conversation::from_json(&list.to_string()).map_err(unreadable)?;
    for (number, message) in (1..).zip(list.as_array().into_iter().flatten()) {
        let role = message["role"].as_str().unwrap_or_default();
        if !ROLES.contains(&role) {
            return Err(format!("has a message {number} of the role `{role}`; there are {}", ROLES.join(", ")));
        }
        let calls = message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
        if message["content"].is_null() && !calls {
            return Err(format!("has a message {number} without words: its `content` is null or missing"));
        }
    }
    Ok(conversation)
}

/// A list of nothing but texts is one text, as most templates take no other.
fn with_parts_joined(list: &Value) -> Value {
    let mut list = list.clone();
    for message in list.as_array_mut().into_iter().flatten() {
        let parts = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |part: &Value| if part["type"] == "text" { part["text"].as_str().map(str::to_owned) } else { None };
        let texts = parts.iter().map(text).collect::<Option<Vec<_>>>();
        if let (Some(texts), Some(message)) = (texts.filter(|texts| !texts.is_empty()), message.as_object_mut()) {
            message.insert("content".to_owned(), texts.concat().into());
        }
    }
    list
}

/// ShareGPT's turns as messages.
fn share_gpt(turns: &Value) -> Result<Value, String> {
    let turns = turns.as_array().ok_or("has `conversations` that are not a list")?;
    let message = |(number, turn): (usize, &Value)| {
        if turn["role"].is_string() {
            return Ok(turn.clone()); // messages under ShareGPT's key
        }
        let from = turn["from"].as_str().ok_or_else(|| format!("has a turn {number} without `from`"))?;
        let (_, role) = SHARE_GPT.iter().find(|(name, _)| *name == from).ok_or_else(|| {
            let names: Vec<_> = SHARE_GPT.iter().map(|(name, _)| *name).collect();
            format!("has a turn {number} from `{from}`; there are {}", names.join(", "))
        })?;
        let value = turn["value"].as_str().ok_or_else(|| format!("has a turn {number} without a text as `value`"))?;
        Ok(serde_json::json!({ "role": role, "content": value }))
    };
    (1..).zip(turns).map(message).collect::<Result<Vec<_>, String>>().map(Value::Array)
}

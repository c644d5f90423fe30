//! Rendering a chat template, as transformers does it with Jinja. A template is a stranger's file: its steps and its memory are limited, and
//! it reaches no file.

use std::error::Error as _;

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error as JinjaError, ErrorKind};

use super::Conversation;
use super::generation_tag::{FILTER, rewrite};
use super::python::{self, Raised};
use crate::error::{Error, Result};

/// The template of models made here: each turn is `<|im_start|>`, the role, a line break, the text, `<|im_end|>` and a line break. What an assistant
/// says, with the end of its turn, is what is trained on.
pub const CHATML: &str = include_str!("chatml.jinja");

/// Steps of a template, and 64 times as many bytes: a thousand turns of [`CHATML`] take less than a tenth of it.
const FUEL: u64 = 1_000_000;

/// Most bytes of a template; Qwen3's has 4,168.
const MAX_BYTES: usize = 64 << 10;

/// The stack of the thread that compiles a template: 2 KB for each of its bytes, two of which may be one step of recursion (`1+1+1`).
const STACK_BYTES: usize = 128 << 20;

/// Characters that Unicode leaves to programs' own use (noncharacters), of which three mark places in the rendered text.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    has_generation_tag: bool,
    /// Of the tokenizer; a template that asks for one that is not there finds it undefined.
    bos_token: Option<String>,
    eos_token: Option<String>,
    /// What a message's words must not become.
    control_tokens: Vec<String>,
}

/// How a conversation goes on behind the last message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// It does not: the whole conversation, for training.
    #[default]
    Ended,
    /// The assistant begins to speak (transformers' `add_generation_prompt`).
    Assistant,
    /// The last message's text is not at its end (`continue_final_message`).
    Continued,
}

/// What a template is given beside the messages.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// How the conversation goes on.
    pub turn: Turn,
    /// Further variables: `enable_thinking`, `tools`.
    pub variables: Vec<(String, Value)>,
    /// The local time, for templates that tell the date.
    pub now: DateTime,
}

/// A part of a rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    text: String,
    /// Whether the model said it.
    is_trained: bool,
}

/// A conversation as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    parts: Vec<Part>,
    /// The character inside texts that are not to become control tokens.
    text_mark: char,
}

impl Rendered {
    /// The whole text.
    pub fn text(&self) -> String {
        self.parts.iter().flat_map(|part| part.text.chars()).filter(|character| *character != self.text_mark).collect()
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, bool)> {
        self.parts.iter().map(|part| (&*part.text, part.is_trained))
    }

    pub(super) fn text_mark(&self) -> char {
        self.text_mark
    }
}

/// What the template is told of the tokenizer.
#[derive(Clone, Debug, Default)]
pub struct TemplateTokens {
    /// Begins a text, if there is such a token.
    pub bos: Option<String>,
    /// Ends a text or a turn.
    pub eos: Option<String>,
    /// All control tokens.
    pub control: Vec<String>,
}

impl ChatTemplate {
    /// Compiles a template.
    pub fn new(source: &str, tokens: TemplateTokens) -> Result<Self> {
        let syntax = || SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = || syntax().unwrap_or_else(|_| unreachable!("Jinja's own signs"));
        let (rewritten, has_generation_tag) = rewrite(source, syntax());
        let mut environment = Environment::new();
        environment.set_syntax(syntax());
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let environment = compile(environment, rewritten)?;
        let TemplateTokens { bos: bos_token, eos: eos_token, control: control_tokens } = tokens;
        Ok(Self { environment, source: source.to_owned(), has_generation_tag, bos_token, eos_token, control_tokens })
    }

    /// Whether it says what the model says, and so what is trained on.
    pub fn has_generation_tag(&self) -> bool {
        self.has_generation_tag
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation as a text. What a message says stays words, even if it spells a control token.
    pub fn render(&self, conversation: &Conversation, options: &RenderOptions) -> Result<Rendered> {
        let mut used = self.source.clone();
        for message in conversation.messages() {
            used.push_str(&message.to_string());
        }
        let mut marks = MARKS.filter(|mark| !used.contains(*mark));
        let [Some(begin), Some(end), Some(text_mark), Some(last)] = std::array::from_fn(|_| marks.next()) else {
            return Err(Error::Chat {
                problem: "the messages hold nearly all of the characters U+FDD0 to U+FDEF".to_owned(),
                hint: "leave these characters out: no text needs them".to_owned(),
            });
        };

        let conversation = conversation.map_texts(&|text| self.keep_words(text, text_mark));
        // With a space behind it, whose loss says that the template trims; as transformers does it.
        let end_mark = format!("{last} ");
        let conversation = match options.turn {
            Turn::Continued => conversation.with_end_marked(&end_mark).ok_or_else(|| Error::Chat {
                problem: "the last message, which is to be continued, has no text".to_owned(),
                hint: "give its `content` as a text".to_owned(),
            })?,
            _ => conversation,
        };

        let mut environment = self.environment.clone();
        python::add_to(&mut environment, options.now);
        environment.add_filter(FILTER, move |text: &str| format!("{begin}{text}{end}"));
        let own = [
            ("messages", Value::from(conversation.messages().to_vec())),
            ("add_generation_prompt", Value::from(options.turn == Turn::Assistant)),
        ];
        let tokens = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
        let tokens = tokens.into_iter().filter_map(|(name, token)| Some((name, Value::from(token.as_deref()?))));
        let further = options.variables.iter().map(|(name, value)| (&**name, value.clone()));
        let variables = Value::from_pairs(further.chain(own).chain(tokens));
        let template = environment.get_template(NAME).map_err(|error| wrong(&error))?;
        let mut text = template.render(variables).map_err(|error| wrong(&error))?;

        if options.turn == Turn::Continued {
            let Some(place) = text.rfind(last) else {
                return Err(Error::Chat {
                    problem: "the template does not show the last message's text, which is to be continued".to_owned(),
                    hint: "end the conversation with the message before it".to_owned(),
                });
            };
            let is_whole = text[place..].starts_with(&end_mark);
            text.truncate(place);
            if !is_whole {
                text.truncate(text.trim_end().len());
            }
        }
        Ok(Rendered { parts: cut(&text, begin, end), text_mark })
    }

    /// `text` with `mark` inside every control token that it spells.
    fn keep_words(&self, text: &str, mark: char) -> String {
        let mut kept = text.to_owned();
        for token in self.control_tokens.iter().filter(|token| text.contains(&***token)) {
            let first = token.chars().next().map_or(0, char::len_utf8);
            let (head, tail) = token.split_at(first);
            // A token of one character has no inside.
            let marked = if tail.is_empty() { format!("{mark}{head}") } else { format!("{head}{mark}{tail}") };
            kept = kept.replace(&**token, &marked);
        }
        kept
    }
}

/// Adds the template to its environment. The compiler's recursion must not end the program.
fn compile(mut environment: Environment<'static>, source: String) -> Result<Environment<'static>> {
    if source.len() > MAX_BYTES {
        return Err(Error::Chat {
            problem: format!("the chat template has {} bytes; at most {MAX_BYTES} are read", source.len()),
            hint: "give the file with the template alone".to_owned(),
        });
    }
    let add = move || {
        environment.add_template_owned(NAME, source).map_err(|error| wrong(&error))?;
        Ok(environment)
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(add);
    let thread =
        thread.map_err(|source| Error::Io { action: "start a thread for", what: "the chat template", source })?;
    thread.join().unwrap_or_else(|_| {
        let hint = "give another template".to_owned();
        Err(Error::Chat { problem: "the chat template cannot be compiled".to_owned(), hint })
    })
}

/// The template's name, in its own errors.
const NAME: &str = "chat_template";

/// The parts of a text, in which `begin` and `end` stand around what the model said.
fn cut(text: &str, begin: char, end: char) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut depth = 0_usize;
    for piece in text.split_inclusive([begin, end]) {
        let (text, mark) = match piece.chars().next_back() {
            Some(last) if last == begin || last == end => (&piece[..piece.len() - last.len_utf8()], Some(last)),
            _ => (piece, None),
        };
        match parts.last_mut() {
            _ if text.is_empty() => {}
            Some(part) if part.is_trained == (depth > 0) => part.text.push_str(text),
            _ => parts.push(Part { text: text.to_owned(), is_trained: depth > 0 }),
        }
        match mark {
            Some(mark) if mark == begin => depth += 1,
            Some(_) => depth = depth.saturating_sub(1),
            None => {}
        }
    }
    parts
}

/// The template's error: what it raised, in its own words, or where it is wrong.
fn wrong(error: &JinjaError) -> Error {
    if error.source().and_then(|source| source.downcast_ref::<Raised>()).is_some() {
        let problem = error.detail().unwrap_or_default().to_owned();
        return Error::Chat { problem, hint: "the model's chat template refuses this conversation".to_owned() };
    }
    let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
    let (problem, hint) = match error.kind() {
        ErrorKind::OutOfFuel => {
            (format!("has taken {FUEL} steps{line}"), "it may go on for ever: give another template".to_owned())
        }
        _ => (format!("fails{line}: {error}"), "repair it, or give another template".to_owned()),
    };
    Error::Chat { problem: format!("the chat template {problem}"), hint }
}

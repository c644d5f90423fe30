//! `minillm-infer tokenize`: what a model is given.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use minillm_infer::error::{Error, Result};
use minillm_infer::output::print;
use minillm_model::chat::{ChatEncoder, ChatTemplate, ChatTokens, Conversation, RenderOptions, Turn};
use minillm_model::checkpoint::{self, TextFiles, locate};
use minillm_model::tokenizer::Tokenizer;
use serde_json::json;

use super::arguments::JsonArgs;

/// Show the tokens that a model is given for a text or a conversation
///
/// A conversation is rendered by the model's chat template. What training on conversations is about, the words of the assistant
/// with the end of its turn, is marked; in a text, everything is. What a message says stays words: a written `<|im_end|>` does not
/// end its turn.
///
///   minillm-infer tokenize runs/quickstart --text "Once upon a time"
///   minillm-infer tokenize MODEL --messages conversation.json
///   minillm-infer tokenize MODEL --messages question.json --generation-prompt --json
///
/// MESSAGES: [{"role": "user", "content": "Who was Max?"}, {"role": "assistant", "content": "A goat."}]
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["text", "file", "messages"]))]
pub struct Args {
    /// A model directory, a .gguf file, a checkpoint, a run, or a directory with a tokenizer.json
    model: PathBuf,
    /// The text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// A file with the text, UTF-8
    #[arg(long, value_name = "TEXT.txt", allow_hyphen_values = true)]
    file: Option<PathBuf>,
    /// A JSON file with the messages of a conversation
    #[arg(long, value_name = "MESSAGES.json", allow_hyphen_values = true)]
    messages: Option<PathBuf>,
    /// The assistant is to speak next: its turn is begun
    #[arg(long, requires = "messages")]
    generation_prompt: bool,
    /// A chat template in Jinja instead of the model's
    #[arg(long, value_name = "TEMPLATE.jinja", requires = "messages", allow_hyphen_values = true)]
    template: Option<PathBuf>,
    /// A further variable of the template, as JSON: `enable_thinking=false`
    #[arg(long = "variable", value_name = "NAME=JSON", requires = "messages", allow_hyphen_values = true)]
    variables: Vec<String>,
    #[command(flatten)]
    output: JsonArgs,
}

/// What the model is given.
struct Given {
    text: String,
    tokens: ChatTokens,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let given = text_files(&args.model).and_then(|files| {
        let Some(tokenizer) = &files.tokenizer else {
            let hint = "give a model with a tokenizer.json".to_owned();
            return Err(Error::Request { problem: format!("`{}` has no tokenizer", args.model.display()), hint });
        };
        let given = given(args, &files, tokenizer)?;
        Ok((given, tokenizer.clone()))
    });
    let (Given { text, tokens }, tokenizer) = match given {
        Ok(given) => given,
        Err(error) => {
            if args.output.json {
                print(&format!("{}\n", json!({ "error": error.to_string() })))?;
            }
            return Err(error);
        }
    };
    let pieces = tokens.ids.iter().map(|&id| piece(&tokenizer, id));
    if args.output.json {
        let mask: Vec<u8> = tokens.is_trained.iter().map(|&is_trained| is_trained.into()).collect();
        let pieces: Vec<_> = pieces.collect();
        let object = json!({ "text": text, "ids": tokens.ids, "tokens": pieces, "mask": mask });
        return print(&format!("{object}\n"));
    }
    let trained = tokens.is_trained.iter().filter(|is_trained| **is_trained).count();
    let mut lines = format!("{text}\n\n{} tokens, {trained} of them (*) trained on\n", tokens.ids.len());
    for ((piece, id), is_trained) in pieces.zip(&tokens.ids).zip(&tokens.is_trained) {
        let mark = if *is_trained { '*' } else { ' ' };
        writeln!(lines, "{mark} {id:>7}  {piece:?}").unwrap_or_else(|_| unreachable!("a text takes every line"));
    }
    print(&lines)
}

/// A directory that holds no model may still be a tokenizer's.
fn text_files(path: &Path) -> Result<TextFiles> {
    if path.join("tokenizer.json").exists() {
        return Ok(checkpoint::load_text_files(path)?);
    }
    let (directory, warnings) = locate::model_dir(path)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(checkpoint::load_text_files(&directory)?)
}

fn given(args: &Args, files: &TextFiles, tokenizer: &Tokenizer) -> Result<Given> {
    let Some(messages) = &args.messages else {
        let text = match (&args.text, &args.file) {
            (Some(text), _) => text.clone(),
            (_, Some(file)) => read(file, "the text")?,
            _ => unreachable!("one of the three is required"),
        };
        let (prefix, ids) = (tokenizer.prompt_prefix(), tokenizer.encode_prompt(&text)?);
        let is_trained = (0..ids.len()).map(|index| index >= prefix.len()).collect();
        return Ok(Given { text, tokens: ChatTokens { ids, is_trained } });
    };
    let source = match (&args.template, &files.chat_template) {
        (Some(file), _) => read(file, "the chat template")?,
        (None, Some(template)) => template.clone(),
        (None, None) => {
            let hint = "give one with --template".to_owned();
            return Err(Error::Request { problem: format!("`{}` has no chat template", args.model.display()), hint });
        }
    };
    let template = ChatTemplate::new(&source, files.template_tokens.clone())?;
    if !template.has_generation_tag() {
        tracing::warn!(
            "the chat template has no {{% generation %}}, which would mark what the model says: nothing of it is trained on"
        );
    }
    let conversation = Conversation::from_json(&read(messages, "the messages")?)?;
    let variables = args.variables.iter().map(|variable| {
        let (name, value) = variable.split_once('=').ok_or_else(|| not_a_variable(variable))?;
        Ok((name.to_owned(), serde_json::from_str(value).map_err(|_| not_a_variable(variable))?))
    });
    let options = RenderOptions {
        turn: if args.generation_prompt { Turn::Assistant } else { Turn::Ended },
        variables: variables.collect::<Result<_>>()?,
        now: Zoned::now().datetime(),
    };
    let rendered = template.render(&conversation, &options)?;
    Ok(Given { text: rendered.text(), tokens: ChatEncoder::new(tokenizer).encode(&rendered)? })
}

fn not_a_variable(variable: &str) -> Error {
    Error::Request {
        problem: format!("`--variable {variable}` is not a name and a value"),
        hint: "write NAME=JSON, such as enable_thinking=false or date_string=\"today\"".to_owned(),
    }
}

fn read(path: &Path, what: &'static str) -> Result<String> {
    fs_err::read_to_string(path).map_err(super::io_error("read", what))
}

/// What a token is, for the eye: its text, or its name if it has none.
fn piece(tokenizer: &Tokenizer, id: u32) -> String {
    match tokenizer.token_bytes(id) {
        [] => tokenizer.name(id).unwrap_or_default(),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    }
}

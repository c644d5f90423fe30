//! A tokenizer in GGUF's keys.
//!
//! llama.cpp does not read `tokenizer.json`: it has the tokens, their merges or scores, and a name for the rule that cuts
//! a text into words. Three kinds can be said so:
//!
//! | tokenizer | `tokenizer.ggml.model` | `tokenizer.ggml.pre` |
//! |---|---|---|
//! | byte-level BPE cut by a pattern that llama.cpp knows | `gpt2` | `qwen2` (ours), `llama-bpe`, `gpt-2`, ... |
//! | SentencePiece as in Llama 2 | `llama` | |
//! | one token per character | `gpt2`, with merges that make each character of its bytes | `qwen2` (any would do) |
//! | the same without a token for the end of a text | `rwkv`: the longest token that fits, which is the next character | |
//!
//! (Where none is named, `gpt2` takes id 11 for the end of a text, and there it would be a letter; `rwkv` takes none, but
//! cannot put a token before a text.) The file `tokenizer.json` itself is stored beside them under
//! `tokenizer.huggingface.json`, a key of the format's specification, so that it comes back as it was.

mod differences;
mod pre;
mod read;
#[cfg(test)]
mod tests;
mod write;

use serde_json::Value as Json;

pub use self::differences::differences;
pub use self::read::{begin_id, chat_template, end_ids, llama_cpp, read};
pub use self::write::keys;
use crate::error::{Error, Result};
use crate::tokenizer::llama_cpp::{SPACE, token_type};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const JSON: &str = "tokenizer.huggingface.json";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Readers refuse longer texts.
const LONGEST_JSON_BYTES: usize = 16 << 20;

/// The kinds of tokenizers that GGUF can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ByteLevel { pre: &'static str },
    SentencePiece { adds_space: bool },
    Characters { has_end: bool },
}

impl Kind {
    fn model(self) -> &'static str {
        match self {
            Self::ByteLevel { .. } | Self::Characters { has_end: true } => "gpt2",
            Self::SentencePiece { .. } => "llama",
            Self::Characters { has_end: false } => "rwkv",
        }
    }
}

fn cannot(part: &str, problem: &str) -> Error {
    Error::Tokenizer {
        problem: format!("`{part}` of tokenizer.json {problem}, so GGUF cannot hold it"),
        hint: "export to hf instead; GGUF takes byte-level BPE with the pattern of Qwen2, Llama 3 or GPT-2, SentencePiece \
               BPE, and characters"
            .to_owned(),
    }
}

fn kind(file: &Json) -> Result<Kind> {
    let model = &file["model"];
    match model["type"].as_str() {
        Some("WordLevel") => {
            let is_character = |token: &String| token.chars().count() == 1;
            let vocabulary = model["vocab"].as_object();
            if !vocabulary.is_some_and(|vocabulary| vocabulary.keys().all(is_character)) || !splits_characters(file) {
                return Err(cannot("model", "has whole words"));
            }
            let has_end = file["added_tokens"].as_array().is_some_and(|added| !added.is_empty());
            Ok(Kind::Characters { has_end })
        }
        Some("BPE") | None if model["merges"].is_array() => {
            for part in ["continuing_subword_prefix", "end_of_word_suffix"] {
                if model[part].as_str().is_some_and(|text| !text.is_empty()) {
                    return Err(cannot(&format!("model.{part}"), "is set"));
                }
            }
            if model["byte_fallback"] == true { sentence_piece(file) } else { byte_level(file) }
        }
        other => Err(cannot("model.type", &format!("is {}", other.unwrap_or("missing")))),
    }
}

fn splits_characters(file: &Json) -> bool {
    file["normalizer"].is_null() && file["pre_tokenizer"]["pattern"]["Regex"] == r"[\s\S]"
}

fn byte_level(file: &Json) -> Result<Kind> {
    let cutter = &file["pre_tokenizer"];
    let Some(patterns) = pre::patterns(cutter) else {
        return Err(cannot("pre_tokenizer", "is none that llama.cpp has a name for"));
    };
    let adds_space = |step: &Json| step["add_prefix_space"] == true;
    if adds_space(cutter) || cutter["pretokenizers"].as_array().is_some_and(|steps| steps.iter().any(adds_space)) {
        return Err(cannot("pre_tokenizer", "adds a space before a text"));
    }
    // Qwen2's own files compose characters first (NFC), and everyone exports them so.
    if !file["normalizer"].is_null() && file["normalizer"]["type"] != "NFC" {
        return Err(cannot("normalizer", "changes the text"));
    }
    // llama.cpp takes a whole word for its token, merges or not, exactly where the name says so.
    let ignores_merges = file["model"]["ignore_merges"] == true;
    match (pre::name(&patterns, ignores_merges), pre::name(&patterns, !ignores_merges)) {
        (Some(pre), _) => Ok(Kind::ByteLevel { pre }),
        (None, Some(other)) => Err(cannot("model.ignore_merges", &format!("is not what llama.cpp does for `{other}`"))),
        (None, None) => Err(cannot("pre_tokenizer", "cuts words by a pattern that llama.cpp has no name for")),
    }
}

/// The steps of the normalizer, if it has any.
fn sentence_piece_steps(file: &Json) -> &[Json] {
    let normalizer = &file["normalizer"];
    match normalizer["normalizers"].as_array() {
        Some(steps) => steps,
        None if normalizer.is_null() => &[],
        None => std::slice::from_ref(normalizer),
    }
}

fn sentence_piece(file: &Json) -> Result<Kind> {
    let replaces =
        |step: &Json| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == SPACE;
    let prepends = |step: &Json| step["type"] == "Prepend" && step["prepend"] == SPACE;
    let cutter = &file["pre_tokenizer"];
    let adds_space = match sentence_piece_steps(file) {
        [prepend, replace] if prepends(prepend) && replaces(replace) => true,
        [replace] if replaces(replace) => false,
        [] if cutter["type"] == "Metaspace" => {
            if cutter["split"] != false {
                return Err(cannot("pre_tokenizer", "is Metaspace with `split`, and llama.cpp does not cut at spaces"));
            }
            if cutter["replacement"] != SPACE {
                return Err(cannot("pre_tokenizer", "is Metaspace with a `replacement` of its own"));
            }
            return Ok(Kind::SentencePiece { adds_space: cutter["prepend_scheme"] != "never" });
        }
        _ => return Err(cannot("normalizer", "is not SentencePiece's")),
    };
    if !cutter.is_null() {
        return Err(cannot("pre_tokenizer", "cuts words, and llama.cpp does not"));
    }
    Ok(Kind::SentencePiece { adds_space })
}

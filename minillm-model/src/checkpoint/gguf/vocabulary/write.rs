//! From `tokenizer.json` to GGUF's keys.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::super::write::KeyList;
use super::super::{Texts, Value};
use super::{
    ADD_BOS, ADD_SPACE, BOS, CHAT_TEMPLATE, EOM, EOS, EOT, JSON, Kind, LONGEST_JSON_BYTES, MERGES, MODEL, PRE, SCORES,
    TOKENS, TYPES, cannot, kind, token_type,
};
use crate::error::{Error, Result};
use crate::tokenizer::llama_cpp::LlamaCpp;
use crate::tokenizer::{Tokenizer, byte_symbols};

/// The keys of a tokenizer, for a model of `vocab_size` tokens whose texts stand between `begin_id` and one of `end_ids`.
/// `None` stands for a model without a tokenizer. Errors name the part of `tokenizer.json` that cannot be said.
pub fn keys(
    tokenizer: Option<&Tokenizer>,
    vocab_size: usize,
    begin_id: Option<u32>,
    end_ids: &[u32],
    chat_template: Option<&str>,
) -> Result<KeyList> {
    let end = |index: usize| end_ids.get(index).copied();
    let bounds = [(BOS, begin_id), (EOS, end(0)), (EOT, end(1)), (EOM, end(2))];
    let bounds = bounds.into_iter().filter_map(|(key, id)| Some((key.to_owned(), Value::Int(id?.into()))));
    let Some(tokenizer) = tokenizer else {
        let none = (MODEL.to_owned(), Value::Text("no_vocab".to_owned()));
        return Ok([none].into_iter().chain(bounds).collect());
    };
    if let Some(problem) = tokenizer.encoding_problem() {
        let hint = "convert the model's original files with a name that is known".to_owned();
        return Err(Error::Tokenizer { problem: problem.to_owned(), hint });
    }
    let text = tokenizer.to_json();
    let file: Json = serde_json::from_str(&text).unwrap_or_default(); // parsed before, when the tokenizer was read
    let kind = kind(&file)?;
    let (tokens, types) = tokens(&file, kind, vocab_size);
    let mut keys = vec![(MODEL, Value::Text(kind.model().to_owned()))];
    match kind {
        Kind::ByteLevel { pre } => {
            keys.push((PRE, Value::Text(pre.to_owned())));
            keys.push((MERGES, Value::Texts(merges(&file).map(|(left, right)| format!("{left} {right}")).collect())));
        }
        Kind::SentencePiece { adds_space } => {
            keys.push((PRE, Value::Text("default".to_owned())));
            let known = tokenizer.rules().and_then(LlamaCpp::scores).filter(|scores| scores.len() == tokens.len());
            keys.push((SCORES, Value::Floats(known.unwrap_or_else(|| scores(&file, &tokens)))));
            keys.push((ADD_SPACE, Value::Bool(adds_space)));
        }
        Kind::Characters { has_end: true } => {
            keys.push((PRE, Value::Text("qwen2".to_owned())));
            keys.push((MERGES, Value::Texts(character_merges(&file))));
        }
        Kind::Characters { has_end: false } => {}
    }
    keys.push((TOKENS, Value::Texts(tokens)));
    keys.push((TYPES, Value::Ints(types)));
    let prefix = tokenizer.prompt_prefix();
    if prefix.len() > 1 || !prefix.is_empty() && prefix.first() != begin_id.as_ref() {
        return Err(cannot("post_processor", "puts before a text what is not its one beginning"));
    }
    if end_ids.is_empty() && kind.model() != "rwkv" {
        return Err(cannot(
            "added_tokens",
            "has no token for the end of a text, and llama.cpp would take another for it",
        ));
    }
    keys.push((ADD_BOS, Value::Bool(!prefix.is_empty())));
    keys.extend(chat_template.map(|template| (CHAT_TEMPLATE, Value::Text(template.to_owned()))));
    // Where the scores say more than tokenizer.json, they alone are to be read.
    if text.len() <= LONGEST_JSON_BYTES && !tokenizer.follows_llama_cpp() {
        keys.push((JSON, Value::Text(text)));
    }
    Ok(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(bounds).collect())
}

/// The texts of all ids and what they are; ids without a token are filled in.
pub(super) fn tokens(file: &Json, kind: Kind, vocab_size: usize) -> (Texts, Vec<i64>) {
    let mut tokens: Vec<Option<(String, i64)>> = vec![None; vocab_size];
    let mut set = |id: &Json, text: &str, kind: i64| {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        if let Some(slot) = id.and_then(|id| tokens.get_mut(id)) {
            *slot = Some((text.to_owned(), kind));
        }
    };
    let unknown = file["model"]["unk_token"].as_str();
    for (token, id) in file["model"]["vocab"].as_object().into_iter().flatten() {
        match kind {
            Kind::Characters { has_end: true } => set(id, &in_byte_alphabet(token), token_type::NORMAL),
            Kind::Characters { has_end: false } => set(id, &escape(token), token_type::NORMAL),
            Kind::SentencePiece { .. } if is_byte(token) => set(id, token, token_type::BYTE),
            Kind::SentencePiece { .. } if Some(token.as_str()) == unknown => set(id, token, token_type::UNKNOWN),
            _ => set(id, token, token_type::NORMAL),
        }
    }
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let content = token["content"].as_str().unwrap_or_default();
        let is_unknown = matches!(kind, Kind::SentencePiece { .. }) && Some(content) == unknown;
        let special = if is_unknown { token_type::UNKNOWN } else { token_type::CONTROL };
        set(&token["id"], content, if token["special"] == true { special } else { token_type::USER_DEFINED });
    }
    let (mut texts, mut kinds) = (Texts::default(), Vec::new());
    let taken: HashSet<String> = tokens.iter().flatten().map(|(text, _)| text.clone()).collect();
    for (id, token) in tokens.into_iter().enumerate() {
        // llama.cpp wants a name for each row, and no name twice.
        let unused = || {
            let name = format!("[PAD{id}]");
            (if taken.contains(&name) { format!("[UNUSED{id}]") } else { name }, token_type::UNUSED)
        };
        let (text, kind) = token.unwrap_or_else(unused);
        texts.push(&text);
        kinds.push(kind);
    }
    (texts, kinds)
}

fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

/// A text as byte-level BPE writes it: a symbol for each byte.
fn in_byte_alphabet(text: &str) -> String {
    let symbols = byte_symbols();
    let symbol =
        |byte: u8| symbols.iter().position(|found| *found == Some(byte)).and_then(|at| char::from_u32(at as u32));
    text.bytes().filter_map(symbol).collect()
}

/// Merges that make each character of its bytes, one byte after the other.
fn character_merges(file: &Json) -> Texts {
    let mut merges = std::collections::BTreeSet::new();
    for character in file["model"]["vocab"].as_object().into_iter().flat_map(|vocabulary| vocabulary.keys()) {
        let symbols = in_byte_alphabet(character);
        let cuts: Vec<usize> = symbols.char_indices().map(|(at, _)| at).chain([symbols.len()]).collect();
        for cut in cuts.windows(2).skip(1) {
            merges.insert((cut[0], format!("{} {}", &symbols[..cut[0]], &symbols[cut[0]..cut[1]])));
        }
    }
    merges.into_iter().map(|(_, merge)| merge).collect()
}

/// llama.cpp reads a token of RWKV with these escapes, and would end it at a zero byte.
fn escape(token: &str) -> String {
    let mut escaped = String::new();
    for character in token.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\0' => escaped.push_str("\\x00"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn merges(file: &Json) -> impl Iterator<Item = (&str, &str)> {
    let merges = file["model"]["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    merges.iter().filter_map(|merge| match merge {
        Json::String(line) => line.split_once(' '), // the older form
        _ => Some((merge[0].as_str()?, merge[1].as_str()?)),
    })
}

/// SentencePiece merges what makes the token with the highest score first: minus the rank of the first merge that makes it.
fn scores(file: &Json, tokens: &Texts) -> Vec<f32> {
    let mut ranks = HashMap::new();
    for (rank, (left, right)) in merges(file).enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let last = ranks.len() as f32;
    tokens.iter().map(|token| -ranks.get(token).map_or(last, |rank| *rank as f32)).collect()
}

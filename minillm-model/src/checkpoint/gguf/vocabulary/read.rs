//! From GGUF's keys to a `tokenizer.json`.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::super::Texts;
use super::super::read::Keys;
use super::write::tokens as tokens_of;
use super::{
    ADD_BOS, ADD_SPACE, BOS, CHAT_TEMPLATE, EOS, EOT, JSON, MERGES, MODEL, PRE, SCORES, SPACE, TOKENS, TYPES, kind,
    token_type,
};
use crate::error::Result;
use crate::tokenizer::{LLAMA3_PATTERN, QWEN2_PATTERN, Tokenizer};

/// A token of SentencePiece that is longer is refused: its merges are every way to cut it in two.
const LONGEST_PIECE_BYTES: usize = 256;
/// In all tokens of a SentencePiece vocabulary: a quarter million have 2 million.
const MOST_PIECE_BYTES: usize = 8 << 20;
/// Ways to cut its tokens in two: a quarter million tokens have half a million.
const MOST_MERGES: usize = 1 << 20;

/// A file's tokenizer for a model of `vocab_size` tokens; `None` if the file says that it has none.
pub fn read(keys: &Keys, vocab_size: usize) -> Result<Option<Tokenizer>> {
    let model = match keys.text(MODEL)? {
        None | Some("no_vocab" | "none") => return Ok(None),
        Some(model) => model,
    };
    let Some(tokens) = keys.texts(TOKENS)? else {
        return Err(keys.refuse(TOKENS, "is missing", "convert the model again"));
    };
    if tokens.len() != vocab_size {
        let problem = format!("has {} tokens, and `token_embd.weight` {vocab_size} rows", tokens.len());
        return Err(keys.refuse(TOKENS, &problem, "convert the model again"));
    }
    let (key, text) = if let Some(text) = keys.text(JSON)? {
        (JSON, text.to_owned())
    } else {
        (MODEL, assemble(keys, model, tokens)?.to_string())
    };
    let refuse = |problem: &str| keys.refuse(key, problem, "convert the model again");
    let tokenizer = Tokenizer::from_json(&text).map_err(|error| refuse(&error.to_string()))?;
    // Both descriptions must be of one vocabulary.
    let file: Json = serde_json::from_str(&text).unwrap_or_default();
    let agrees = |kind| tokens_of(&file, kind, vocab_size).0 == *tokens && kind.model() == model;
    if tokenizer.vocab_size() > vocab_size || !kind(&file).is_ok_and(agrees) {
        return Err(refuse(&format!("is another vocabulary than `{TOKENS}`")));
    }
    Ok(Some(tokenizer))
}

/// The token that begins a text.
pub fn begin_id(keys: &Keys) -> Result<Option<u32>> {
    Ok(keys.count(BOS)?.and_then(|id| u32::try_from(id).ok()))
}

/// The tokens that end a text.
pub fn end_ids(keys: &Keys) -> Result<Vec<u32>> {
    let ids = [keys.count(EOS)?, keys.count(EOT)?];
    Ok(ids.into_iter().flatten().filter_map(|id| u32::try_from(id).ok()).collect())
}

/// The chat template, if there is one.
pub fn chat_template(keys: &Keys) -> Result<Option<&str>> {
    keys.text(CHAT_TEMPLATE)
}

/// The `tokenizer.json` that the keys describe.
fn assemble(keys: &Keys, model: &str, tokens: &Texts) -> Result<Json> {
    let types = keys.ints(TYPES)?.unwrap_or_default();
    if !types.is_empty() && types.len() != tokens.len() {
        return Err(keys.refuse(TYPES, "is not as long as the list of tokens", "convert the model again"));
    }
    let kind_of = |id: usize| types.get(id).copied().unwrap_or(token_type::NORMAL);
    let (mut vocabulary, mut added) = (BTreeMap::new(), Vec::new());
    for (id, token) in tokens.iter().enumerate() {
        let kind = kind_of(id);
        if kind == token_type::UNUSED {
            continue;
        }
        if vocabulary.insert(token, id).is_some() {
            return Err(keys.refuse(TOKENS, &format!("holds `{token}` twice"), "convert the model again"));
        }
        if [token_type::CONTROL, token_type::USER_DEFINED, token_type::UNKNOWN].contains(&kind) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind != token_type::USER_DEFINED,
            }));
        }
    }
    let (adds_bos, mut file) = match model {
        "gpt2" => byte_level_file(keys, &vocabulary)?,
        "llama" => sentence_piece_file(keys, tokens, &vocabulary, types)?,
        other => {
            let problem = format!("is `{other}`, which is not supported");
            return Err(keys.refuse(MODEL, &problem, "supported: gpt2, llama, and files made here"));
        }
    };
    file["added_tokens"] = added.into();
    if keys.flag(ADD_BOS)?.unwrap_or(adds_bos) {
        let id = keys.required_count(BOS)?;
        let Some(token) = tokens.iter().nth(id) else {
            return Err(keys.refuse(BOS, &format!("is {id}, past the vocabulary"), "convert the model again"));
        };
        file["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
        });
    }
    Ok(file)
}

/// All but the added tokens, and whether a text begins with a token of its own unless the file says otherwise.
fn byte_level_file(keys: &Keys, vocabulary: &BTreeMap<&str, usize>) -> Result<(bool, Json)> {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let cut = |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
    };
    let pre = keys.required_text(PRE)?;
    let cutter = match pre {
        "qwen2" => cut(QWEN2_PATTERN),
        "llama-bpe" | "llama3" | "llama-v3" => cut(LLAMA3_PATTERN),
        "gpt-2" => bytes(true),
        other => {
            let problem = format!("is `{other}`, which is not supported");
            return Err(keys.refuse(PRE, &problem, "supported: qwen2, llama-bpe, gpt-2"));
        }
    };
    let is_llama = cutter["pretokenizers"][0]["pattern"]["Regex"] == LLAMA3_PATTERN;
    let Some(merges) = keys.texts(MERGES)? else {
        return Err(keys.refuse(MERGES, "is missing", "convert the model again"));
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "pre_tokenizer": cutter,
        "decoder": bytes(false),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": is_llama,
            "vocab": vocabulary, "merges": merges.iter().collect::<Vec<_>>(),
        },
    });
    Ok((is_llama, file))
}

/// The same for SentencePiece, whose merges are every way to make a token of two others, the highest score first.
fn sentence_piece_file(
    keys: &Keys,
    tokens: &Texts,
    vocabulary: &BTreeMap<&str, usize>,
    types: &[i64],
) -> Result<(bool, Json)> {
    let scores = keys.floats(SCORES)?.unwrap_or_default();
    if scores.len() != tokens.len() || scores.iter().any(|score| score.is_nan()) {
        return Err(keys.refuse(SCORES, "does not have a number for each token", "convert the model again"));
    }
    let refuse = |problem: &str| Err(keys.refuse(TOKENS, problem, "convert the model again"));
    if tokens.iter().map(str::len).sum::<usize>() > MOST_PIECE_BYTES {
        return refuse("has more text than a SentencePiece vocabulary");
    }
    let mut merges = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        if token.len() > LONGEST_PIECE_BYTES {
            return refuse("has a token that is too long for SentencePiece");
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut ways: Vec<_> = cuts
            .filter_map(|(left, right)| Some((vocabulary.get(left)?, vocabulary.get(right)?, left, right, score)))
            .collect();
        ways.sort_unstable_by_key(|&(left, right, ..)| (left, right));
        merges.extend(ways.into_iter().map(|(.., left, right, score)| (left, right, score)));
        if merges.len() > MOST_MERGES {
            return refuse("can be cut in too many ways for SentencePiece");
        }
    }
    merges.sort_by(|(.., one), (.., other)| other.total_cmp(one));
    let merges: Vec<_> = merges.into_iter().map(|(left, right, _)| json!([left, right])).collect();
    let unknown = types.iter().position(|kind| *kind == token_type::UNKNOWN).and_then(|id| tokens.iter().nth(id));
    let adds_space = keys.flag(ADD_SPACE)?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let prepend = json!({"type": "Prepend", "prepend": SPACE});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if adds_space {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null, "pre_tokenizer": null,
        "normalizer": if adds_space { json!({"type": "Sequence", "normalizers": [prepend, replace]}) } else { replace },
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    });
    Ok((true, file))
}

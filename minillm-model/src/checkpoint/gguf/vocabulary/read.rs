//! From GGUF's keys to a `tokenizer.json`.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::super::Texts;
use super::super::read::Keys;
use super::write::tokens as tokens_of;
use super::{
    ADD_BOS, ADD_SPACE, BOS, CHAT_TEMPLATE, EOM, EOS, EOT, JSON, Kind, MERGES, MODEL, PRE, SCORES, SPACE, TOKENS,
    TYPES, kind, pre, token_type,
};
use crate::error::Result;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::llama_cpp::{CONTROL_NAMES, LlamaCpp, Rules};

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
    let tokenizer = match keys.text(JSON)? {
        Some(text) => stored(keys, model, tokens, text)?,
        None => described(keys, model, tokens)?,
    };
    let unknown = keys.iter().map(|(key, _)| key).filter(|key| key.starts_with("tokenizer.") && !is_known(key));
    let warning = |key| format!("`{key}` is not known here, and not followed");
    Ok(Some(tokenizer.with_warnings(unknown.map(warning).collect())))
}

/// Whether a key of the tokenizer is followed, or changes nothing: neither what ends a prompt, which is continued, nor
/// roles of tokens that the types give, nor what llama.cpp does for other kinds of tokenizers alone.
fn is_known(key: &str) -> bool {
    const IDS: [&str; 18] = [
        "bos",
        "eos",
        "eot",
        "eom",
        "unknown",
        "seperator",
        "separator",
        "padding",
        "mask",
        "cls",
        "prefix",
        "suffix",
        "middle",
        "fim_pre",
        "fim_suf",
        "fim_mid",
        "fim_pad",
        "fim_rep",
    ];
    const OTHERS: [&str; 15] = [
        "model",
        "pre",
        "tokens",
        "token_type",
        "scores",
        "merges",
        "added_tokens",
        "add_bos_token",
        "add_eos_token",
        "add_sep_token",
        "add_space_prefix",
        "remove_extra_whitespaces",
        "precompiled_charsmap",
        "token_type_count",
        "fim_sep_token_id",
    ];
    let Some(name) = key.strip_prefix("tokenizer.ggml.") else {
        return key == JSON || key.starts_with(CHAT_TEMPLATE);
    };
    OTHERS.contains(&name)
        || name.starts_with("normalizer.")
        || name.strip_suffix("_token_id").is_some_and(|role| IDS.contains(&role))
}

/// The tokenizer that the keys beside `tokenizer.json` describe.
fn described(keys: &Keys, model: &str, tokens: &Texts) -> Result<Tokenizer> {
    let file = assemble(keys, model, tokens)?.to_string();
    let refuse = |problem: &str| keys.refuse(MODEL, problem, "convert the model again");
    let tokenizer = Tokenizer::from_json(&file).map_err(|error| refuse(&error.to_string()))?;
    if let Some(problem) = unknown_rule(keys, model)? {
        return Ok(tokenizer.without_encoder(&problem));
    }
    // The library cannot say that two pairs are equally important; it does the rest as llama.cpp does.
    if model != "llama" {
        return Ok(tokenizer);
    }
    Ok(match llama_cpp(keys)? {
        Ok(rules) => tokenizer.with_rules(rules),
        Err(problem) => tokenizer.without_encoder(&format!("`{SCORES}` {problem}")),
    })
}

/// The `tokenizer.json` in the file, which must be of the same vocabulary as the other keys.
fn stored(keys: &Keys, model: &str, tokens: &Texts, text: &str) -> Result<Tokenizer> {
    let refuse = |problem: &str| keys.refuse(JSON, problem, "convert the model again");
    let tokenizer = Tokenizer::from_json(text).map_err(|error| refuse(&error.to_string()))?;
    let file: Json = serde_json::from_str(text).unwrap_or_default();
    let kind = kind(&file);
    let is_its_model = kind.as_ref().ok().is_none_or(|kind| kind.model() == model);
    let (own, _) = tokens_of(&file, kind.unwrap_or(Kind::ByteLevel { pre: "" }), tokens.len());
    let types = types(keys, tokens)?;
    // An id that tokenizer.json has no token for may have any name here.
    let is_unused =
        |id: usize| !tokenizer.has_token(id as u32) && types.get(id).is_none_or(|kind| *kind == token_type::UNUSED);
    let agrees = own.iter().zip(tokens.iter()).enumerate().all(|(id, (own, here))| own == here || is_unused(id));
    if !is_its_model || !agrees {
        return Err(refuse(&format!("is another vocabulary than `{TOKENS}`")));
    }
    Ok(tokenizer.for_rows(tokens.len()))
}

/// Why no text can be encoded, if the file asks for a rule that is not known here.
fn unknown_rule(keys: &Keys, model: &str) -> Result<Option<String>> {
    let unknown = |key: &str, name: &str| {
        Some(format!("`{key}` is `{name}`, a rule that is not known here, so no text can be encoded"))
    };
    Ok(match model {
        "llama" => None,
        "gpt2" => {
            let name = keys.text(PRE)?.unwrap_or("default");
            if pre::rule(name).is_some() { None } else { unknown(PRE, name) }
        }
        other => unknown(MODEL, other),
    })
}

/// llama.cpp's way from text to ids for the vocabulary of a file that has one; what is wrong with it, if anything.
pub fn llama_cpp(keys: &Keys) -> Result<std::result::Result<LlamaCpp, String>> {
    let empty = Texts::default();
    let tokens = keys.texts(TOKENS)?.unwrap_or(&empty);
    let types = types(keys, tokens)?;
    let rules = match keys.text(MODEL)? {
        Some("llama") => {
            Rules::SentencePiece { scores: scores(keys, tokens)?, adds_space: keys.flag(ADD_SPACE)?.unwrap_or(true) }
        }
        Some("gpt2") => {
            let name = keys.text(PRE)?.unwrap_or("default");
            let Some(rule) = pre::rule(name) else { return Ok(Err(format!("`{PRE}` is `{name}`"))) };
            let merges = keys.texts(MERGES)?.into_iter().flat_map(Texts::iter);
            Rules::ByteLevel {
                patterns: rule.patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
                merges: merges.map(str::to_owned).collect(),
                ignores_merges: rule.ignores_merges,
            }
        }
        Some("rwkv") => {
            let tokens: Vec<String> = tokens.iter().map(unescape).collect();
            return Ok(LlamaCpp::new(tokens.iter().map(String::as_str), types, Rules::LongestMatch));
        }
        other => return Ok(Err(format!("`{MODEL}` is `{}`", other.unwrap_or("missing")))),
    };
    Ok(LlamaCpp::new(tokens.iter(), types, rules))
}

/// A token of RWKV without the escapes that are written.
fn unescape(token: &str) -> String {
    let mut rest = token;
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once('\\') {
        text += before;
        let (character, length) = match after.as_bytes() {
            [b'n', ..] => ('\n', 1),
            [b'r', ..] => ('\r', 1),
            [b't', ..] => ('\t', 1),
            [b'x', b'0', b'0', ..] => ('\0', 3),
            _ => ('\\', usize::from(after.starts_with('\\'))),
        };
        text.push(character);
        rest = &after[length..];
    }
    text + rest
}

/// What each token is; an empty list if the file does not say.
fn types<'a>(keys: &'a Keys, tokens: &Texts) -> Result<&'a [i64]> {
    let types = keys.ints(TYPES)?.unwrap_or_default();
    if !types.is_empty() && types.len() < tokens.len() {
        return Err(keys.refuse(TYPES, "is not as long as the list of tokens", "convert the model again"));
    }
    Ok(types)
}

/// The score of each token; an empty list, which means 0 for all, if the file has none.
fn scores(keys: &Keys, tokens: &Texts) -> Result<Vec<f32>> {
    // Some converters write whole numbers.
    let scores = match keys.ints(SCORES) {
        Ok(Some(ints)) => ints.iter().map(|&score| score as f32).collect(),
        Ok(None) => return Ok(Vec::new()),
        Err(_) => keys.floats(SCORES)?.unwrap_or_default().to_vec(),
    };
    if scores.len() < tokens.len() {
        return Err(keys.refuse(SCORES, "does not have a number for each token", "convert the model again"));
    }
    Ok(scores)
}

/// The token that begins a text.
pub fn begin_id(keys: &Keys) -> Result<Option<u32>> {
    Ok(keys.count(BOS)?.and_then(|id| u32::try_from(id).ok()))
}

/// The tokens that end a text.
pub fn end_ids(keys: &Keys) -> Result<Vec<u32>> {
    let ids = [keys.count(EOS)?, keys.count(EOT)?, keys.count(EOM)?];
    Ok(ids.into_iter().flatten().filter_map(|id| u32::try_from(id).ok()).collect())
}

/// The chat template, if there is one.
pub fn chat_template(keys: &Keys) -> Result<Option<&str>> {
    keys.text(CHAT_TEMPLATE)
}

/// The `tokenizer.json` that the keys describe.
fn assemble(keys: &Keys, model: &str, tokens: &Texts) -> Result<Json> {
    let types = types(keys, tokens)?;
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
        let kind = if CONTROL_NAMES.contains(&token) { token_type::CONTROL } else { kind };
        if [token_type::CONTROL, token_type::USER_DEFINED, token_type::UNKNOWN].contains(&kind) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind != token_type::USER_DEFINED,
            }));
        }
    }
    let (adds_bos, usual_bos, mut file) = match model {
        "gpt2" => {
            let (adds_bos, file) = byte_level_file(keys, &vocabulary)?;
            (adds_bos, 11, file)
        }
        // Other models write their tokens as SentencePiece does, and their rules are not known.
        _ => (model == "llama", 1, sentence_piece_file(keys, tokens, &vocabulary, types)?),
    };
    file["added_tokens"] = added.into();
    if keys.flag(ADD_BOS)?.unwrap_or(adds_bos) {
        let id = keys.count(BOS)?.unwrap_or(usual_bos);
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
    // Without a known rule the file is good for decoding alone.
    let rule = pre::rule(keys.text(PRE)?.unwrap_or("default"));
    let cutter = rule.map_or(Json::Null, |rule| {
        let is_gpt2 = |pattern: &&&str| **pattern == pre::GPT2_PATTERN;
        let splits = rule.patterns.iter().filter(|pattern| !is_gpt2(pattern)).map(
            |pattern| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}),
        );
        let bytes = bytes(rule.patterns.iter().any(|pattern| is_gpt2(&pattern)));
        match rule.patterns {
            [pre::GPT2_PATTERN] => bytes,
            _ => json!({"type": "Sequence", "pretokenizers": splits.chain([bytes]).collect::<Vec<_>>()}),
        }
    });
    let ignores_merges = rule.is_some_and(|rule| rule.ignores_merges);
    let Some(merges) = keys.texts(MERGES)? else {
        return Err(keys.refuse(MERGES, "is missing", "convert the model again"));
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "pre_tokenizer": cutter,
        "decoder": bytes(false),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignores_merges,
            "vocab": vocabulary, "merges": merges.iter().collect::<Vec<_>>(),
        },
    });
    Ok((rule.is_some_and(|rule| rule.adds_begin), file))
}

/// The same for SentencePiece, whose merges are every way to make a token of two others, the highest score first.
fn sentence_piece_file(keys: &Keys, tokens: &Texts, vocabulary: &BTreeMap<&str, usize>, types: &[i64]) -> Result<Json> {
    let scores = scores(keys, tokens)?;
    let scores = scores.iter().copied().chain(std::iter::repeat(0.0));
    let refuse = |problem: &str| Err(keys.refuse(TOKENS, problem, "convert the model again"));
    if tokens.iter().map(str::len).sum::<usize>() > MOST_PIECE_BYTES {
        return refuse("has more text than a SentencePiece vocabulary");
    }
    let mut merges = Vec::new();
    // Rows without a token have a name here all the same.
    for (token, score) in tokens.iter().zip(scores).filter(|(token, _)| vocabulary.contains_key(token)) {
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
    Ok(file)
}

//! A tokenizer in GGUF's keys.
//!
//! llama.cpp does not read `tokenizer.json`: it has the tokens, their merges or scores, and a name for the rule that cuts
//! a text into words. Three kinds can be said so:
//!
//! | tokenizer | `tokenizer.ggml.model` | `tokenizer.ggml.pre` |
//! |---|---|---|
//! | byte-level BPE cut by a pattern that llama.cpp knows | `gpt2` | `qwen2` (ours), `llama-bpe`, `gpt-2` |
//! | SentencePiece as in Llama 2 | `llama` | |
//! | one token per character | `gpt2`, with merges that make each character of its bytes | `qwen2` (any would do) |
//! | the same without a token for the end of a text | `rwkv`: the longest token that fits, which is the next character | |
//!
//! (Where none is named, `gpt2` takes id 11 for the end of a text, and there it would be a letter; `rwkv` takes none, but
//! cannot put a token before a text.) The file `tokenizer.json` itself is stored beside them under
//! `tokenizer.huggingface.json`, a key of the format's specification, so that it comes back as it was.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value as Json, json};

use super::read::Keys;
use super::write::KeyList;
use super::{Texts, Value};
use crate::error::{Error, Result};
use crate::tokenizer::{LLAMA3_PATTERN, QWEN2_PATTERN, Tokenizer, byte_symbols};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const JSON: &str = "tokenizer.huggingface.json";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Readers refuse longer texts.
const LONGEST_JSON_BYTES: usize = 16 << 20;
/// A token of SentencePiece that is longer is refused: its merges are every way to cut it in two.
const LONGEST_PIECE_BYTES: usize = 256;
/// SentencePiece's space.
const SPACE: &str = "\u{2581}";

/// What a token is to llama.cpp.
mod token_type {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
    pub const UNUSED: i64 = 5;
    pub const BYTE: i64 = 6;
}

/// The kinds of tokenizers that GGUF can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ByteLevel { pre: &'static str },
    SentencePiece { adds_space: bool },
    Characters { has_end: bool },
}

/// The keys of a tokenizer, for a model of `vocab_size` tokens whose texts stand between `begin_id` and one of `end_ids`.
/// `None` stands for a model without a tokenizer. Errors name the part of `tokenizer.json` that cannot be said.
pub fn keys(
    tokenizer: Option<&Tokenizer>,
    vocab_size: usize,
    begin_id: Option<u32>,
    end_ids: &[u32],
    chat_template: Option<&str>,
) -> Result<KeyList> {
    let bounds = [(BOS, begin_id), (EOS, end_ids.first().copied()), (EOT, end_ids.get(1).copied())];
    let bounds = bounds.into_iter().filter_map(|(key, id)| Some((key.to_owned(), Value::Int(id?.into()))));
    let Some(tokenizer) = tokenizer else {
        let none = (MODEL.to_owned(), Value::Text("no_vocab".to_owned()));
        return Ok([none].into_iter().chain(bounds).collect());
    };
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
            keys.push((SCORES, Value::Floats(scores(&file, &tokens))));
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
    if text.len() <= LONGEST_JSON_BYTES {
        keys.push((JSON, Value::Text(text)));
    }
    Ok(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(bounds).collect())
}

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
    let agrees = |kind| self::tokens(&file, kind, vocab_size).0 == *tokens && kind.model() == model;
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
    let steps = cutter["pretokenizers"].as_array();
    let pre = match steps.map(Vec::as_slice) {
        None if cutter["type"] == "ByteLevel" && cutter["use_regex"] != false => "gpt-2",
        Some([split, bytes])
            if split["type"] == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] != true
                && bytes["type"] == "ByteLevel"
                && bytes["use_regex"] == false =>
        {
            match split["pattern"]["Regex"].as_str() {
                Some(QWEN2_PATTERN) => "qwen2",
                Some(LLAMA3_PATTERN) => "llama-bpe",
                _ => return Err(cannot("pre_tokenizer", "cuts words by a pattern that llama.cpp has no name for")),
            }
        }
        _ => return Err(cannot("pre_tokenizer", "is none that llama.cpp has a name for")),
    };
    let adds_space = |step: &Json| step["add_prefix_space"] == true;
    if adds_space(cutter) || steps.is_some_and(|steps| steps.iter().any(adds_space)) {
        return Err(cannot("pre_tokenizer", "adds a space before a text"));
    }
    // Qwen2's own files compose characters first (NFC), and everyone exports them so.
    if !file["normalizer"].is_null() && file["normalizer"]["type"] != "NFC" {
        return Err(cannot("normalizer", "changes the text"));
    }
    // llama.cpp takes a whole word for its token, merges or not, exactly where it is Llama 3's.
    if (file["model"]["ignore_merges"] == true) != (pre == "llama-bpe") {
        return Err(cannot("model.ignore_merges", &format!("is not what llama.cpp does for `{pre}`")));
    }
    Ok(Kind::ByteLevel { pre })
}

fn sentence_piece(file: &Json) -> Result<Kind> {
    let normalizer = &file["normalizer"];
    let single = std::slice::from_ref(normalizer);
    let steps = normalizer["normalizers"].as_array().map_or(single, Vec::as_slice);
    let replaces =
        |step: &Json| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == SPACE;
    let prepends = |step: &Json| step["type"] == "Prepend" && step["prepend"] == SPACE;
    let cutter = &file["pre_tokenizer"];
    let adds_space = match steps {
        [prepend, replace] if prepends(prepend) && replaces(replace) && cutter.is_null() => true,
        [replace] if replaces(replace) && cutter.is_null() => false,
        [none] if none.is_null() && cutter["type"] == "Metaspace" && cutter["split"] == false => {
            cutter["prepend_scheme"] != "never"
        }
        _ => return Err(cannot("normalizer", "is not SentencePiece's")),
    };
    Ok(Kind::SentencePiece { adds_space })
}

/// The texts of all ids and what they are; ids without a token are filled in.
fn tokens(file: &Json, kind: Kind, vocab_size: usize) -> (Texts, Vec<i64>) {
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
    let filled = tokens.into_iter().enumerate();
    filled.map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), token_type::UNUSED))).unzip_texts()
}

/// `unzip` for texts in one piece.
trait UnzipTexts {
    fn unzip_texts(self) -> (Texts, Vec<i64>);
}

impl<I: Iterator<Item = (String, i64)>> UnzipTexts for I {
    fn unzip_texts(self) -> (Texts, Vec<i64>) {
        let (mut texts, mut kinds) = (Texts::default(), Vec::new());
        for (text, kind) in self {
            texts.push(&text);
            kinds.push(kind);
        }
        (texts, kinds)
    }
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
    let mut merges = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        if token.len() > LONGEST_PIECE_BYTES {
            return Err(keys.refuse(
                TOKENS,
                "has a token that is too long for SentencePiece",
                "convert the model again",
            ));
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut ways: Vec<_> = cuts
            .filter_map(|(left, right)| Some((vocabulary.get(left)?, vocabulary.get(right)?, left, right, score)))
            .collect();
        ways.sort_unstable_by_key(|&(left, right, ..)| (left, right));
        merges.extend(ways.into_iter().map(|(.., left, right, score)| (left, right, score)));
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

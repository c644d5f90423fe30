//! Models whose tokenizer has fewer tokens than the embedding has rows, or more, and tokenizers that llama.cpp follows in
//! part only.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use minillm_infer::export::{Exported, Options, Target, export};
use minillm_infer::generate::{Tokens, text};
use minillm_infer::sampling::Sampling;
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::{self, Checkpoint};
use minillm_model::config::ModelOptions;
use minillm_model::decoder::LanguageModel;
use minillm_model::encoding::Encoding;
use minillm_model::init;
use minillm_model::tokenizer::Tokenizer;
use serde_json::{Value, json};
use tempfile::TempDir;

/// As Llama 2's: 266 tokens.
fn sentence_piece() -> Value {
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = ["\u{2581}", "a", "n", "d", "\u{2581}a", "nd", "\u{2581}and"].map(str::to_owned);
    let all = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes).chain(pieces);
    let vocabulary: serde_json::Map<_, _> = all.zip(0..).map(|(token, id): (_, u32)| (token, id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "post_processor": {"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": [["n", "d"], ["\u{2581}", "a"], ["\u{2581}a", "nd"]]},
    })
}

fn added(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true})
}

/// A directory with a model of so many rows and this tokenizer.
fn model(tokenizer: &Value, rows: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let options = ModelOptions { hidden_size: Some(16), num_hidden_layers: Some(1), ..ModelOptions::default() };
    let config = options.resolve(rows, 64);
    let model = init::initialize(LanguageModel::new(&config, &Device::flex()).unwrap(), 1);
    let tokenizer = Tokenizer::from_json(&tokenizer.to_string()).unwrap();
    checkpoint::save(&System, folder.path(), &model, &tokenizer).unwrap();
    folder
}

fn load(path: &Path) -> Checkpoint {
    checkpoint::load(path, &Device::flex()).unwrap()
}

fn exported(source: &Checkpoint, target: Target, out: PathBuf) -> Result<Exported, minillm_infer::error::Error> {
    let options = Options { target, out, encoding: Encoding::F32, name: "tiny".to_owned(), largest_shard: None };
    export(source, &options)
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_minillm-infer")).args(arguments).output().unwrap()
}

#[test]
fn rows_without_a_token_are_never_drawn() {
    let folder = model(&sentence_piece(), 2000);
    let Checkpoint { model, tokenizer, .. } = load(folder.path());
    let tokenizer = tokenizer.unwrap();
    let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    let tokens = || Tokens::new(&model, &[1, 5], 60, &sampling).unwrap();
    // Without a tokenizer every row may be drawn, and most are.
    assert!(tokens().map(Result::unwrap).filter(|id| *id >= 266).count() > 30);
    let generated = text(tokens(), &tokenizer, &[], |_| Ok(())).unwrap();
    assert_eq!(generated.ids.len(), 60);
    assert!(generated.ids.iter().all(|id| *id < 266), "{:?}", generated.ids);
    // What ends a text may be a row without a token.
    let ends: Vec<u32> = (266..2000).collect();
    let generated = text(tokens().end_at(&ends), &tokenizer, &[], |_| Ok(())).unwrap();
    assert!(generated.ids.len() < 60 && generated.ids.last().is_some_and(|id| *id >= 266), "{:?}", generated.ids);
}

#[test]
fn ids_without_a_token_may_be_given() {
    let folder = model(&sentence_piece(), 300);
    let path = folder.path().to_str().unwrap();
    let output = run(&["generate", path, "--prompt-ids", "1,299,5", "--max-new-tokens", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = run(&["inspect", path, "--prompt-ids", "1,299", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["labels"]["299"], "#299");
}

#[test]
fn only_a_text_with_a_token_without_a_row_is_an_error() {
    let mut tokenizer = sentence_piece();
    tokenizer["added_tokens"].as_array_mut().unwrap().push(added(266, "[PAD]"));
    let folder = model(&tokenizer, 266);
    let path = folder.path().to_str().unwrap();
    let texts = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = texts.path().join(name);
        fs_err::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, bad) = (file("good.txt", "and and a"), file("bad.txt", "and[PAD] a"));
    for arguments in [
        &["generate", path, "--prompt", "and a", "--max-new-tokens", "5"][..],
        &["generate", path, "--prompt-ids", "1,5", "--max-new-tokens", "5"],
        &["inspect", path],
        &["inspect", path, "--prompt", "and", "--json"],
        &["score", path, "--file", &good],
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for arguments in [
        &["generate", path, "--prompt", "and[PAD]"][..],
        &["inspect", path, "--prompt", "[PAD]"],
        &["score", path, "--file", &bad],
    ] {
        let output = run(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(message.contains("needs the token `[PAD]`, whose id 266 is past"), "{message}");
    }
    // It goes through both formats, and llama.cpp is known to cut `[PAD]` into pieces.
    let source = load(folder.path());
    let out = tempfile::tempdir().unwrap();
    let gguf = exported(&source, Target::Gguf, out.path().join("a.gguf")).unwrap();
    assert!(gguf.warnings[0].contains("`added_tokens` has `[PAD]` with `id`"), "{:?}", gguf.warnings);
    let read = load(&gguf.model).tokenizer.unwrap();
    assert!(read.encode("[PAD]").is_err());
    assert_eq!(read.encode("and").unwrap(), [265]);
    let hf = exported(&source, Target::Hf, out.path().join("hf")).unwrap();
    assert_eq!(hf.warnings, [""; 0]);
    assert_eq!(load(&hf.model).tokenizer.unwrap().to_json(), source.tokenizer.unwrap().to_json());
}

/// llama.cpp gave these ids for the exported files; those of the tokenizer are the library's.
#[test]
fn an_export_says_where_llama_cpp_will_differ() {
    let metaspace = |scheme: &str| {
        let mut tokenizer = sentence_piece();
        tokenizer["normalizer"] = Value::Null;
        tokenizer["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": false});
        tokenizer
    };
    let with = |flag: &str| {
        let mut tokenizer = sentence_piece();
        let mut token = added(266, "<x>");
        token[flag] = true.into();
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
        tokenizer
    };
    let without_strip = {
        let mut tokenizer = sentence_piece();
        tokenizer["decoder"]["decoders"][0]["content"] = "_".into();
        tokenizer
    };
    let out = tempfile::tempdir().unwrap();
    for (index, (tokenizer, part, all_equal)) in [
        (sentence_piece(), None, true),
        (metaspace("never"), None, true),
        (metaspace("first"), Some("prepend_scheme"), false),
        (metaspace("always"), Some("prepend_scheme"), false),
        (with("special"), None, true),
        (with("lstrip"), Some("`<x>` with `lstrip`"), false),
        (with("rstrip"), Some("`<x>` with `rstrip`"), false),
        (with("single_word"), Some("`<x>` with `single_word`"), false),
        (with("normalized"), Some("`<x>` with `normalized`"), false),
        (without_strip, Some("`decoder` makes \"_\" of the token 259"), true),
    ]
    .into_iter()
    .enumerate()
    {
        let rows = 266 + usize::from(tokenizer["added_tokens"].as_array().unwrap().len() == 4);
        let folder = model(&tokenizer, rows);
        let file = out.path().join(format!("{index}.gguf"));
        let Exported { comparison, warnings, .. } = exported(&load(folder.path()), Target::Gguf, file).unwrap();
        match part {
            None => assert_eq!(warnings, [""; 0]),
            Some(part) => assert!(warnings[0].contains(part), "{warnings:?}"),
        }
        let equal = comparison.texts_equal.unwrap();
        assert_eq!(equal == comparison.texts, all_equal, "{part:?}: {comparison}");
        assert!(comparison.texts > 70 && equal > 5, "{comparison}");
    }
}

/// A merge order that scores cannot say: `nd` before `an`, but `and` from `an`.
#[test]
fn merges_that_are_no_scores_show_in_a_text() {
    let mut tokenizer = sentence_piece();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.insert("an".to_owned(), 266.into());
    vocabulary.insert("and".to_owned(), 267.into());
    tokenizer["model"]["merges"] = json!([["n", "d"], ["a", "n"], ["an", "d"]]);
    let folder = model(&tokenizer, 268);
    let out = tempfile::tempdir().unwrap();
    let warnings = exported(&load(folder.path()), Target::Gguf, out.path().join("a.gguf")).unwrap().warnings;
    assert!(warnings[0].starts_with("`model.merges`"), "{warnings:?}");
}

#[test]
fn a_vocabulary_with_equal_scores_is_read_and_written_again() {
    let folder = model(&sentence_piece(), 266);
    let out = tempfile::tempdir().unwrap();
    let first = out.path().join("first.gguf");
    exported(&load(folder.path()), Target::Gguf, first.clone()).unwrap();
    // As another program would have written it: no tokenizer.json, one score for all.
    let (keys, tensors) = checkpoint::gguf::read::open(&first).unwrap();
    let changed = keys.iter().filter(|(key, _)| *key != "tokenizer.huggingface.json").map(|(key, value)| {
        let value = match (key, value) {
            ("tokenizer.ggml.scores", _) => checkpoint::gguf::Value::Floats(vec![-1000.0; 266]),
            _ => value.clone(),
        };
        (key.to_owned(), value)
    });
    let second = out.path().join("second.gguf");
    let tensors = tensors.read_all().unwrap();
    checkpoint::gguf::write::write(&second, &changed.collect(), &tensors, Encoding::F32).unwrap();
    let source = load(&second);
    let third = exported(&source, Target::Gguf, out.path().join("third.gguf")).unwrap();
    assert_eq!(third.warnings, [""; 0]);
    assert_eq!(third.comparison.texts_equal, Some(third.comparison.texts));
    let hf = exported(&source, Target::Hf, out.path().join("hf")).unwrap();
    assert!(
        hf.warnings[0].contains("`tokenizer.ggml.scores` gives several tokens the same score"),
        "{:?}",
        hf.warnings
    );
}

/// A rule that is not known keeps texts out, and nothing else.
#[test]
fn an_unknown_cutter_is_an_error_for_texts_alone() {
    let tokenizer = Tokenizer::train_bpe(270, std::iter::once("and and and".to_owned())).unwrap();
    let folder = model(&serde_json::from_str(&tokenizer.to_json()).unwrap(), 270);
    let out = tempfile::tempdir().unwrap();
    let known = out.path().join("known.gguf");
    exported(&load(folder.path()), Target::Gguf, known.clone()).unwrap();
    let (keys, tensors) = checkpoint::gguf::read::open(&known).unwrap();
    let changed = keys.iter().filter(|(key, _)| *key != "tokenizer.huggingface.json").map(|(key, value)| {
        let is_pre = key == "tokenizer.ggml.pre";
        (key.to_owned(), if is_pre { checkpoint::gguf::Value::Text("new".to_owned()) } else { value.clone() })
    });
    let unknown = out.path().join("unknown.gguf");
    let tensors = tensors.read_all().unwrap();
    checkpoint::gguf::write::write(&unknown, &changed.collect(), &tensors, Encoding::F32).unwrap();
    let path = unknown.to_str().unwrap();
    let output = run(&["generate", path, "--prompt-ids", "1,5", "--max-new-tokens", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = run(&["generate", path, "--prompt", "and"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && message.contains("`tokenizer.ggml.pre` is `new`"), "{message}");
    let source = load(&unknown);
    for (target, name) in [(Target::Hf, "hf"), (Target::Gguf, "again.gguf")] {
        let error = exported(&source, target, out.path().join(name)).unwrap_err().to_string();
        assert!(error.contains("`tokenizer.ggml.pre` is `new`"), "{error}");
    }
}

//! Tokenizers through GGUF's keys, with `tokenizer.json` inside and, as in strangers' files, without.

use serde_json::json;

use super::super::super::tensor_files::{HostTensor, HostTensors};
use super::super::read::open;
use super::super::write::{KeyList, write};
use super::super::{Texts, Value};
use super::{JSON, PRE, TOKENS, keys, read};
use crate::encoding::Encoding;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

const TEXTS: [&str; 6] = [
    "Once upon a time there was a little fox.",
    "it's 12345 \u{4f60}\u{597d}, caf\u{e9}\n\n\tend  ",
    "<|endoftext|>a<|endoftext|>",
    " leading and trailing ",
    "\u{1f469}\u{200d}\u{1f680}",
    "",
];

fn bpe() -> Tokenizer {
    let texts = ["Once upon a time there was a little fox. ", "The fox said: \"it's 12 years old!\"\n\n\tcaf\u{e9}"];
    Tokenizer::train_bpe(330, texts.iter().cycle().take(40).map(|text| (*text).to_owned())).unwrap()
}

/// As Llama 2's: a space before a text, bytes for what has no token.
fn sentence_piece() -> Tokenizer {
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = ["\u{2581}", "a", "n", "d", "\u{2581}a", "nd", "\u{2581}and"].map(str::to_owned);
    let all = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes).chain(pieces);
    let vocabulary: serde_json::Map<_, _> = all.zip(0..).map(|(token, id): (_, u32)| (token, id.into())).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
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
            "vocab": vocabulary,
            "merges": [["n", "d"], ["\u{2581}", "a"], ["\u{2581}a", "nd"]]},
    });
    Tokenizer::from_json(&file.to_string()).unwrap()
}

/// The tokenizer that a file of these keys holds, for a model with room for three tokens more.
fn through_a_file(keys: &KeyList, vocab_size: usize) -> Result<Option<Tokenizer>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let embedding = HostTensor { shape: vec![vocab_size, 1], values: vec![0.0; vocab_size] };
    let tensors = HostTensors::from([("token_embd.weight".to_owned(), embedding)]);
    write(&path, keys, &tensors, Encoding::F32).unwrap();
    let (keys, _) = open(&path)?;
    read(&keys, vocab_size)
}

fn keys_of(tokenizer: &Tokenizer, vocab_size: usize) -> KeyList {
    let begin = tokenizer.prompt_prefix().first().copied();
    let end: Vec<u32> = tokenizer.end_of_text().into_iter().collect();
    keys(Some(tokenizer), vocab_size, begin, &end, None).unwrap()
}

#[test]
fn without_tokenizer_json_the_ids_are_the_same() {
    for tokenizer in [bpe(), sentence_piece()] {
        let vocab_size = tokenizer.vocab_size() + 3;
        let mut keys = keys_of(&tokenizer, vocab_size);
        let whole = through_a_file(&keys, vocab_size).unwrap().unwrap();
        assert_eq!(whole.to_json(), tokenizer.to_json());
        keys.retain(|(key, _)| key != JSON);
        let assembled = through_a_file(&keys, vocab_size).unwrap().unwrap();
        assert_eq!(assembled.vocab_size(), tokenizer.vocab_size());
        for text in TEXTS {
            let ids = tokenizer.encode_prompt(text).unwrap();
            assert_eq!(assembled.encode_prompt(text).unwrap(), ids, "{text:?}");
            assert_eq!(assembled.decode(&ids).unwrap(), tokenizer.decode(&ids).unwrap(), "{text:?}");
        }
    }
}

#[test]
fn two_vocabularies_in_one_file_are_refused() {
    let tokenizer = bpe();
    let vocab_size = tokenizer.vocab_size();
    let mut keys = keys_of(&tokenizer, vocab_size);
    let tokens = keys.iter_mut().find(|(key, _)| key == TOKENS).unwrap();
    let Value::Texts(texts) = &tokens.1 else { unreachable!() };
    let mut swapped: Vec<_> = texts.iter().map(str::to_owned).collect();
    swapped.swap(70, 71);
    tokens.1 = Value::Texts(swapped.into_iter().collect::<Texts>());
    let error = through_a_file(&keys, vocab_size).unwrap_err().to_string();
    assert!(error.contains("`tokenizer.huggingface.json` is another vocabulary"), "{error}");
}

#[test]
fn what_cannot_be_cut_alike_is_refused_by_name() {
    let tokenizer = bpe();
    let vocab_size = tokenizer.vocab_size();
    let mut keys = keys_of(&tokenizer, vocab_size);
    keys.retain(|(key, _)| key != JSON);
    keys.iter_mut().find(|(key, _)| key == PRE).unwrap().1 = Value::Text("deepseek-llm".to_owned());
    let error = through_a_file(&keys, vocab_size).unwrap_err().to_string();
    assert!(error.contains("`tokenizer.ggml.pre` is `deepseek-llm`"), "{error}");

    // In the other direction: a pattern, a normalizer, a template that llama.cpp has no name for.
    for (part, value) in [
        ("pre_tokenizer", json!({"type": "Whitespace"})),
        ("normalizer", json!({"type": "Lowercase"})),
        ("added_tokens", json!([])),
    ] {
        let mut file: serde_json::Value = serde_json::from_str(&tokenizer.to_json()).unwrap();
        file[part] = value;
        file["post_processor"] = serde_json::Value::Null;
        let changed = Tokenizer::from_json(&file.to_string()).unwrap();
        let end: Vec<u32> = changed.end_of_text().into_iter().collect();
        let error = super::keys(Some(&changed), vocab_size, None, &end, None).unwrap_err();
        assert!(error.to_string().contains(&format!("`{part}` of tokenizer.json")), "{error}");
    }
}

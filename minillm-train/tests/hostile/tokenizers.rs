//! `tokenizer.json`, which a library reads that takes files at their word.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Loader::TokenizerJson;
use super::{Case, SOUND, case, cut, edit, fixed, nested, replace, set};

fn with_step(part: &'static str, step: Value) -> impl Fn(&[u8]) -> Vec<u8> {
    edit(move |file| file[part] = step.clone())
}

/// A sequence in a sequence, so many deep, around `leaf`.
fn sequences(list: &str, depth: usize, leaf: Value) -> Value {
    (0..depth).fold(leaf, |inner, _| json!({"type": "Sequence", list: [inner]}))
}

/// A sequence of so many times the same step.
fn repeated(list: &str, count: usize, step: &Value) -> Value {
    json!({"type": "Sequence", list: vec![step; count]})
}

fn added(content: &str, normalized: bool) -> Value {
    json!({"id": 10, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": normalized, "special": false})
}

fn model(model: &Value) -> impl Fn(&[u8]) -> Vec<u8> + use<> {
    fixed(json!({"version": "1.0", "added_tokens": [], "model": model}).to_string())
}

/// A BPE of so many tokens, two of them with one id, and merges.
fn large_vocabulary(tokens: usize, merges: usize) -> Vec<u8> {
    let mut text = r#"{"version":"1.0","model":{"type":"BPE","vocab":{"x":0"#.to_owned();
    (1..tokens).for_each(|id| write!(text, ",\"{id}\":{}", id % (tokens - 1)).unwrap());
    text += "},\"merges\":[[\"1\",\"2\"]";
    // A number of four digits and one of one.
    (1..merges).for_each(|i| write!(text, ",[\"{}\",\"{}\"]", 1000 + i % 9000, i % 9 + 1).unwrap());
    (text + "]}}").into_bytes()
}

pub(super) fn files() -> Vec<Case> {
    let merge = |value: Value| set("/model/merges/0", value);
    let no_token = "the merge 0, ";
    vec![
        case(TokenizerJson, "empty", "is not JSON: EOF", fixed([])),
        case(TokenizerJson, "not-utf8", "is not UTF-8", |sound| [sound, b"\xff"].concat()),
        case(TokenizerJson, "not-a-number", "is not JSON", replace("\"id\":0", "\"id\":NaN")),
        case(TokenizerJson, "nested", "recursion limit", fixed(nested(10_000))),
        case(TokenizerJson, "an-array", "is not a tokenizer", fixed("[]")),
        case(TokenizerJson, "cut", "is not JSON: EOF", cut(1, 2)),
        case(TokenizerJson, "version-2", "Unknown tokenizer version '2.0'", set("/version", json!("2.0"))),
        case(TokenizerJson, "no-model", "odel", fixed(r#"{"version": "1.0"}"#)),
        case(TokenizerJson, "model-as-text", "is not a tokenizer", set("/model", json!("BPE"))),
        case(TokenizerJson, "unknown-model", "is not a tokenizer", set("/model/type", json!("Byte"))),
        case(TokenizerJson, "vocabulary-as-list", "is not a tokenizer", set("/model/vocab", json!(["a", "b"]))),
        case(TokenizerJson, "no-tokens", "it has no tokens", model(&json!({"type": "BPE", "vocab": {}, "merges": []}))),
        case(
            TokenizerJson,
            "id-4-billion",
            "a token has the id 4000000000",
            set("/model/vocab/a", json!(4_000_000_000_u32)),
        ),
        case(TokenizerJson, "id-over-32-bits", "is not a tokenizer", set("/model/vocab/a", json!(1_u64 << 32))),
        case(TokenizerJson, "id-negative", "is not a tokenizer", set("/model/vocab/a", json!(-1))),
        case(TokenizerJson, "two-tokens-with-one-id", "two tokens have the id 4", set("/model/vocab/n", json!(4))),
        case(TokenizerJson, "more-tokens-than-the-model", SOUND, set("/model/vocab/x", json!(12))),
        case(TokenizerJson, "merge-makes-no-token", no_token, merge(json!(["a", "a"]))),
        case(TokenizerJson, "merge-of-what-is-no-token", no_token, merge(json!(["x", "y"]))),
        case(TokenizerJson, "merge-longer-than-any-token", no_token, merge(json!(["▁and", "▁and"]))),
        case(TokenizerJson, "merge-of-three", "MergeType", merge(json!(["n", "d", "a"]))),
        case(TokenizerJson, "merge-as-number", no_token, merge(json!(7))),
        case(TokenizerJson, "merges-as-object", "is not a tokenizer", set("/model/merges", json!({"a": "b"}))),
        case(TokenizerJson, "merge-with-a-longer-prefix", no_token, {
            set("/model/continuing_subword_prefix", json!("and much more"))
        }),
        case(
            TokenizerJson,
            "added-id-of-another",
            "`<s>` the id 9, where 1 is its turn",
            set("/added_tokens/1/id", json!(9)),
        ),
        case(
            TokenizerJson,
            "added-without-content",
            "missing field `content`",
            set("/added_tokens/1", json!({"id": 1})),
        ),
        case(TokenizerJson, "added-of-4-mb", "`added_tokens`", {
            edit(|file| file["added_tokens"].as_array_mut().unwrap().push(added(&"0".repeat(1 << 22), false)))
        }),
        case(TokenizerJson, "unigram-unknown-past-the-end", "is not a tokenizer", {
            model(&json!({"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}))
        }),
        case(TokenizerJson, "unigram-with-an-empty-token", SOUND, {
            model(&json!({"type": "Unigram", "unk_id": 0, "vocab": [["", 0.0], ["a", 0.0]]}))
        }),
        case(TokenizerJson, "wordpiece-with-an-empty-token", SOUND, {
            model(&json!({"type": "WordPiece", "unk_token": "", "continuing_subword_prefix": "",
                "max_input_chars_per_word": u32::MAX, "vocab": {"": 0, "a": 1}}))
        }),
        case(TokenizerJson, "merge-with-an-empty-token", SOUND, {
            model(&json!({"type": "BPE", "vocab": {"": 0, "a": 1}, "merges": [["", "a"], ["a", ""], ["", ""]]}))
        }),
        case(TokenizerJson, "added-empty", "the added token `` the id 10", {
            edit(|file| file["added_tokens"].as_array_mut().unwrap().push(added("", true)))
        }),
        case(TokenizerJson, "million-tokens", "`model.vocab` has 1000000 tokens", |_| large_vocabulary(1_000_000, 0)),
        case(TokenizerJson, "as-many-tokens-as-llama-3", "two tokens have the id 0", |_| {
            large_vocabulary(128_000, 280_000)
        }),
        case(TokenizerJson, "million-merges", "holds 3100005 values", |_| large_vocabulary(100_000, 1_000_000)),
        case(TokenizerJson, "unigram-of-nothing", "it has no tokens", {
            model(&json!({"type": "Unigram", "unk_id": null, "vocab": []}))
        }),
        case(TokenizerJson, "unigram-score-in-words", "is not a tokenizer", {
            model(&json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", "b"]]}))
        }),
        case(TokenizerJson, "wordpiece-without-unknown", "is not a tokenizer", {
            model(&json!({"type": "WordPiece", "vocab": {"a": 0}}))
        }),
        case(TokenizerJson, "20-mb-of-zeros", "holds 10000003 values", |_| {
            format!("{{\"version\":\"1.0\",\"model\":[{}0]}}", "0,".repeat(10_000_000)).into_bytes()
        }),
        case(TokenizerJson, "over-48-mb", "is larger than", fixed([])).of_length(1 << 30),
    ]
}

pub(super) fn parts() -> Vec<Case> {
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let wide = json!({"type": "Split", "pattern": {"Regex": r"\p{L}{90}"}, "behavior": "Isolated", "invert": false});
    let template = |ids: Value| {
        json!({"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": ids})
    };
    let normalized = |normalizer: Value| {
        edit(move |file| {
            file["normalizer"] = normalizer.clone();
            file["added_tokens"].as_array_mut().unwrap().push(added("a\u{e9}a", true));
        })
    };
    let charsmap = |text: &str| with_step("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": text}));
    vec![
        case(TokenizerJson, "60-sequences-of-normalizers", SOUND, {
            with_step("normalizer", sequences("normalizers", 60, json!({"type": "NFC"})))
        }),
        case(TokenizerJson, "60-sequences-of-cutters", SOUND, {
            with_step(
                "pre_tokenizer",
                sequences("pretokenizers", 60, json!({"type": "Digits", "individual_digits": true})),
            )
        }),
        case(TokenizerJson, "60-sequences-of-decoders", SOUND, {
            with_step("decoder", sequences("decoders", 60, json!({"type": "Fuse"})))
        }),
        case(TokenizerJson, "60-sequences-of-processors", SOUND, {
            with_step("post_processor", sequences("processors", 60, bytes.clone()))
        }),
        case(TokenizerJson, "60-sequences-around-nothing", "is not a tokenizer", {
            edit(|file| {
                file["normalizer"] = sequences("normalizers", 60, json!({"type": "Nothing"}));
                file["pre_tokenizer"] = sequences("pretokenizers", 60, json!({"type": "Nothing"}));
            })
        }),
        case(TokenizerJson, "60-processors-around-nothing", "is not a tokenizer", {
            with_step("post_processor", sequences("processors", 60, json!({"type": "Nothing"})))
        }),
        case(TokenizerJson, "template-of-a-missing-token", SOUND, with_step("post_processor", template(json!({})))),
        case(TokenizerJson, "template-past-the-vocabulary", "`post_processor`", {
            with_step(
                "post_processor",
                template(json!({"<s>": {"id": "<s>", "ids": [4_000_000_000_u32], "tokens": ["<s>"]}})),
            )
        }),
        case(TokenizerJson, "truncation-to-less-than-its-stride", SOUND, {
            with_step(
                "truncation",
                json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5}),
            )
        }),
        case(TokenizerJson, "padding-to-multiples-of-0", SOUND, {
            with_step(
                "padding",
                json!({"strategy": {"Fixed": 90}, "direction": "Right", "pad_to_multiple_of": 0,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}),
            )
        }),
        case(TokenizerJson, "dropout-2", "is not a tokenizer", set("/model/dropout", json!(2.0))),
        case(TokenizerJson, "decoder-strips-more-than-there-is", "strips the end of tokens, `stop`", {
            with_step("decoder", json!({"type": "Strip", "content": "a", "start": 0, "stop": 9}))
        }),
        case(TokenizerJson, "pattern-is-none", "is not a tokenizer", {
            with_step("normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}))
        }),
        case(TokenizerJson, "pattern-too-large", "is not a tokenizer", {
            with_step(
                "normalizer",
                json!({"type": "Replace", "pattern": {"Regex": r"(?:\p{L}{1000}){1000}"}, "content": ""}),
            )
        }),
        case(TokenizerJson, "200-large-patterns", "`pre_tokenizer`", {
            with_step("pre_tokenizer", repeated("pretokenizers", 200, &wide))
        }),
        case(TokenizerJson, "text-grows-in-decoding", "`decoder`", {
            with_step("decoder", repeated("decoders", 34, &double))
        }),
        case(
            TokenizerJson,
            "text-grows-in-normalizing",
            "`normalizer`",
            normalized(repeated("normalizers", 34, &double)),
        ),
        case(TokenizerJson, "bytes-of-bytes", "`normalizer`", {
            normalized(repeated("normalizers", 34, &json!({"type": "ByteLevel"})))
        }),
        case(TokenizerJson, "bytes-of-bytes-in-cutting", "`pre_tokenizer`", {
            with_step("pre_tokenizer", repeated("pretokenizers", 34, &bytes))
        }),
        case(TokenizerJson, "pieces-of-length-0", "`pre_tokenizer`", {
            with_step("pre_tokenizer", json!({"type": "FixedLength", "length": 0}))
        }),
        case(TokenizerJson, "charsmap-not-base64", "`precompiled_charsmap`", charsmap("?")),
        case(TokenizerJson, "charsmap-claims-4-gb", "`precompiled_charsmap` is damaged", charsmap("/////2FhYWE=")),
        case(TokenizerJson, "charsmap-leads-out", "`precompiled_charsmap` is damaged", charsmap("BAAAAP////8=")),
        case(TokenizerJson, "charsmap-of-nothing", "`precompiled_charsmap` is damaged", charsmap("AAAAAA==")),
    ]
}

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
            assert_eq!(assembled.decode(&ids), tokenizer.decode(&ids), "{text:?}");
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

/// The keys of a tokenizer without its `tokenizer.json`, with some changed.
fn foreign(tokenizer: &Tokenizer, changes: &[(&str, Option<Value>)]) -> Result<Tokenizer> {
    let vocab_size = tokenizer.vocab_size();
    let mut keys = keys_of(tokenizer, vocab_size);
    keys.retain(|(key, _)| key != JSON && changes.iter().all(|(changed, _)| key != changed));
    for (key, value) in changes {
        keys.extend(value.clone().map(|value| ((*key).to_owned(), value)));
    }
    through_a_file(&keys, vocab_size).map(Option::unwrap)
}

fn name(name: &str) -> Value {
    Value::Text(name.to_owned())
}

#[test]
fn an_unknown_rule_keeps_texts_out_and_ids_not() {
    for (tokenizer, key, value, part) in [
        (bpe(), PRE, Some(name("deepseek-llm")), "`tokenizer.ggml.pre` is `deepseek-llm`"),
        (bpe(), PRE, None, "`tokenizer.ggml.pre` is `default`"),
        (sentence_piece(), super::MODEL, Some(name("t5")), "`tokenizer.ggml.model` is `t5`"),
        (
            sentence_piece(),
            super::SCORES,
            Some(Value::Floats(vec![f32::NAN; sentence_piece().vocab_size()])),
            "`tokenizer.ggml.scores` has a score that is not a number",
        ),
    ] {
        let read = foreign(&tokenizer, &[(key, value)]).unwrap();
        let ids = tokenizer.encode(" and a").unwrap();
        assert_eq!(read.decode(&ids), tokenizer.decode(&ids));
        let error = read.encode("and").unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        let end: Vec<u32> = read.end_of_text().into_iter().collect();
        assert!(super::keys(Some(&read), read.vocab_size(), None, &end, None).unwrap_err().to_string().contains(part));
    }
}

#[test]
fn names_of_one_pattern_are_one() {
    let tokenizer = bpe();
    let text = "it's 12345 \u{4f60}\u{597d}, caf\u{e9}\n\n\tend  ";
    for alias in ["deepseek-r1-qwen", "megrez", "stablelm2", "kormo"] {
        let read = foreign(&tokenizer, &[(PRE, Some(name(alias)))]).unwrap();
        assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{alias}");
    }
    // Digits are words of their own in SmolLM, and not in GPT-2.
    let fox = |pre| foreign(&tokenizer, &[(PRE, Some(name(pre)))]).unwrap();
    assert_eq!(fox("smollm").encode(" 12").unwrap().len(), 3);
    assert_eq!(fox("smollm").encode(" 12").unwrap(), fox("starcoder").encode(" 12").unwrap());
    // Llama 3's begin with a token of their own, the others with none, unless the file says so.
    let begins = |pre: &str| {
        let changes = [(PRE, Some(name(pre))), (super::ADD_BOS, None)];
        foreign(&tokenizer, &changes).unwrap().prompt_prefix().len()
    };
    assert_eq!([begins("llama-bpe"), begins("pixtral"), begins("dbrx"), begins("qwen2")], [1, 1, 0, 0]);
    // A tokenizer of each rule can be written again, and is of the same rule then.
    for pre in ["gpt-2", "qwen2", "llama-bpe", "smaug-bpe", "starcoder"] {
        let read = fox(pre);
        let keys = keys_of(&read, read.vocab_size());
        assert!(keys.contains(&(PRE.to_owned(), Value::Text(pre.to_owned()))), "{pre}");
    }
}

#[test]
fn equal_missing_and_whole_scores_are_llama_cpps() {
    let tokenizer = sentence_piece();
    let count = tokenizer.vocab_size();
    // `and`: of equal scores the leftmost pair, then what it makes. The merges of tokenizer.json begin with `n d`.
    let [space, a, n, _, space_a, nd, and] = [259, 260, 261, 262, 263, 264, 265];
    assert_eq!(tokenizer.encode("and").unwrap(), [and]);
    for scores in [
        None,
        Some(Value::Floats(vec![-1000.0; count])),
        Some(Value::Ints(vec![-1000; count])),
        Some(Value::Floats(vec![0.0; count + 3])),
    ] {
        let read = foreign(&tokenizer, &[(super::SCORES, scores)]).unwrap();
        assert_eq!(read.encode("and nand a").unwrap(), [and, space, n, a, nd, space_a]);
        assert!(read.follows_llama_cpp() && read.json_problem(true).unwrap().contains("tokenizer.ggml.scores"));
        // Written again, the scores are what they were, and so are the ids.
        let keys = keys_of(&read, count);
        assert!(keys.iter().all(|(key, _)| key != JSON));
        let again = through_a_file(&keys, count).unwrap().unwrap();
        assert_eq!(again.encode("and nand a").unwrap(), [and, space, n, a, nd, space_a]);
    }
    assert_eq!(foreign(&tokenizer, &[]).unwrap().json_problem(true), None);
}

#[test]
fn sentence_piece_begins_with_its_usual_token_where_none_is_named() {
    let read = foreign(&sentence_piece(), &[(super::BOS, None), (super::ADD_BOS, None)]).unwrap();
    assert_eq!(read.prompt_prefix(), [1]);
    let bare = [(super::ADD_BOS, Some(Value::Bool(false))), (super::ADD_SPACE, Some(Value::Bool(false)))];
    let read = foreign(&sentence_piece(), &bare).unwrap();
    assert_eq!(read.encode_prompt("a").unwrap(), [260]);
    assert_eq!(read.encode_prompt(" a").unwrap(), [263]);
}

#[test]
fn a_key_that_is_not_known_is_a_warning() {
    let int = Some(Value::Int(1));
    let changes = [("tokenizer.ggml.suppress", int.clone()), ("tokenizer.ggml.padding_token_id", int)];
    let warnings = foreign(&sentence_piece(), &changes).unwrap().warnings().join("; ");
    assert_eq!(warnings, "`tokenizer.ggml.suppress` is not known here, and not followed");
    assert_eq!(foreign(&bpe(), &[]).unwrap().warnings(), [""; 0]);
}

#[test]
fn a_row_without_a_token_may_have_any_name() {
    for tokenizer in [bpe(), sentence_piece()] {
        let vocab_size = tokenizer.vocab_size() + 3;
        let mut keys = keys_of(&tokenizer, vocab_size);
        let tokens = keys.iter_mut().find(|(key, _)| key == TOKENS).unwrap();
        let Value::Texts(texts) = &tokens.1 else { unreachable!() };
        let kept = texts.iter().take(vocab_size - 3).map(str::to_owned);
        // `anda` could be made of two tokens.
        let named = ["<reserved_0>", "anda", "[PAD9]"].map(str::to_owned);
        tokens.1 = Value::Texts(kept.chain(named).collect::<Texts>());
        for with_json in [true, false] {
            keys.retain(|(key, _)| with_json || key != JSON);
            let read = through_a_file(&keys, vocab_size).unwrap().unwrap();
            assert_eq!(read.encode_prompt("a fox").unwrap(), tokenizer.encode_prompt("a fox").unwrap());
            assert_eq!(read.decode(&[vocab_size as u32 - 3]), "");
            assert!(!read.has_token(vocab_size as u32 - 2));
        }
    }
}

#[test]
fn what_llama_cpp_does_not_do_is_named() {
    let rows = sentence_piece().vocab_size();
    let found = |change: &dyn Fn(&mut serde_json::Value), rows: usize| {
        let mut file: serde_json::Value = serde_json::from_str(&sentence_piece().to_json()).unwrap();
        change(&mut file);
        super::differences(&Tokenizer::from_json(&file.to_string()).unwrap(), rows).join("; ")
    };
    let metaspace = |scheme: &'static str| {
        move |file: &mut serde_json::Value| {
            file["normalizer"] = serde_json::Value::Null;
            file["pre_tokenizer"] =
                json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": false});
        }
    };
    assert_eq!(found(&|_| (), rows), "");
    assert_eq!(found(&metaspace("never"), rows), "");
    for scheme in ["first", "always"] {
        let found = found(&metaspace(scheme), rows);
        assert!(found.contains("`pre_tokenizer` is Metaspace with `prepend_scheme`"), "{found}");
        assert_eq!(found.contains("after a special token"), scheme == "first");
    }
    for flag in ["lstrip", "rstrip", "single_word", "normalized"] {
        let found = found(&|file| file["added_tokens"][2][flag] = true.into(), rows);
        assert!(found.starts_with(&format!("`added_tokens` has `</s>` with `{flag}`: ")), "{found}");
    }
    assert!(found(&|_| (), 2).contains("`added_tokens` has `</s>` with `id`"));
    // Without a normalizer there is nothing for `normalized` to mean.
    let plain = |file: &mut serde_json::Value| {
        metaspace("never")(file);
        file["added_tokens"][2]["normalized"] = true.into();
    };
    assert_eq!(found(&plain, rows), "");
    let mut composed: serde_json::Value = serde_json::from_str(&bpe().to_json()).unwrap();
    composed["normalizer"] = json!({"type": "NFC"});
    let composed = Tokenizer::from_json(&composed.to_string()).unwrap();
    assert!(super::differences(&composed, 330)[0].contains("`normalizer` is NFC"));
    // What GGUF cannot hold is refused by the name of the part.
    for (part, value, problem) in [
        ("split", json!(true), "is Metaspace with `split`"),
        ("replacement", json!("_"), "is Metaspace with a `replacement`"),
    ] {
        let mut file: serde_json::Value = serde_json::from_str(&sentence_piece().to_json()).unwrap();
        metaspace("always")(&mut file);
        file["pre_tokenizer"][part] = value;
        let changed = Tokenizer::from_json(&file.to_string()).unwrap();
        let error = super::keys(Some(&changed), rows, Some(1), &[2], None).unwrap_err().to_string();
        assert!(error.contains(&format!("`pre_tokenizer` of tokenizer.json {problem}")), "{error}");
    }
}

#[test]
fn what_cannot_be_cut_alike_is_refused_by_name() {
    let tokenizer = bpe();
    let vocab_size = tokenizer.vocab_size();

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

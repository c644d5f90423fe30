//! Both kinds of tokenizer, and files from elsewhere, against the library.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;

static BPE_300: LazyLock<Tokenizer> = LazyLock::new(bpe);

fn bpe() -> Tokenizer {
    let texts = ["Once upon a time there was a little fox.", "The fox said: \"I'm 12 years old!\"\n\nThe end."];
    Tokenizer::train_bpe(300, texts.iter().cycle().take(40).map(|text| (*text).to_owned())).unwrap()
}

fn characters(text: &str, end_of_text: bool) -> Tokenizer {
    Tokenizer::char_level(&text.chars().collect(), end_of_text).unwrap()
}

/// As Llama 2: `▁` for the space, bytes for what has no token, the first space dropped.
fn llama() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "byte_fallback": true, "unk_token": null, "merges": ["▁ a"],
            "vocab": {"<s>": 0, "<0xC3>": 1, "<0xA9>": 2, "▁": 3, "a": 4, "▁a": 5, "b": 6}},
    })
}

#[test]
fn characters_are_numbered_by_code_point() {
    let tokenizer = characters("hello\n wörld", false);
    assert_eq!(tokenizer.vocab_size(), 10); // \n, space, d, e, h, l, o, r, w, ö
    let ids = tokenizer.encode("\n dö").unwrap();
    assert_eq!(ids, [0, 1, 2, 9]);
    assert_eq!(tokenizer.decode(&ids), "\n dö");
    assert_eq!(tokenizer.end_of_text(), None);
}

#[test]
fn the_fast_way_of_characters_is_the_librarys() {
    let tokenizer = characters("a\r\n\t  \u{301}é👋<|>", true);
    assert!(matches!(tokenizer.encoder, Encoder::Characters(_)));
    for text in ["", "a \r\n é👋", "a<|endoftext|>\u{301}\n<|endoftext|>", "<||>"] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids, tokenizer.inner.encode_fast(text, false).unwrap().get_ids());
        assert_eq!(tokenizer.decode(&ids), tokenizer.inner.decode(&ids, true).unwrap());
    }
    assert!(tokenizer.inner.encode_fast("b", false).is_err());
}

#[test]
fn a_character_that_is_not_there_is_named() {
    let error = characters("ab", false).encode("abc").unwrap_err();
    assert!(error.to_string().contains("'c'"), "{error}");
    assert!(error.hint().unwrap().contains("bpe"));
}

#[test]
fn end_of_text_comes_last_among_characters_and_first_in_bpe() {
    let tokenizer = characters("ab", true);
    assert_eq!((tokenizer.end_of_text(), tokenizer.vocab_size()), (Some(2), 3));
    assert_eq!(tokenizer.encode("a<|endoftext|>b").unwrap(), [0, 2, 1]);
    assert_eq!(bpe().end_of_text(), Some(0));
    assert_eq!(bpe().decode(&[0]), "");
    assert_eq!(bpe().encode_prompt("").unwrap(), [0]);
    assert_eq!(tokenizer.encode_prompt("ab").unwrap(), [2, 0, 1]);
    assert_eq!(characters("ab", false).encode_prompt("ab").unwrap(), [0, 1]);
    assert!(bpe().config_json(64).contains("\"eos_token\": \"<|endoftext|>\",\n  \"model_max_length\": 64,"));
    let nameless = serde_json::from_str::<Value>(&characters("ab", false).config_json(8)).unwrap();
    assert_eq!(nameless.get("eos_token"), None);
}

#[test]
fn training_depends_on_neither_run_nor_order() {
    assert_eq!(bpe().to_json(), bpe().to_json());
    assert_eq!(bpe().vocab_size(), 300);
    assert_eq!(bpe().fingerprint().len(), 64);
    let trained = |texts: [&str; 3]| Tokenizer::train_bpe(270, texts.map(str::to_owned).into_iter()).unwrap().to_json();
    assert_eq!(trained(["ab ab", "cd", "abc<|endoftext|>"]), trained(["abc", "cd", "ab ab"]));
}

#[test]
fn vocabularies_of_no_use_are_refused() {
    assert!(Tokenizer::train_bpe(256, std::iter::empty()).unwrap_err().hint().unwrap().contains("259"));
    assert!(Tokenizer::train_bpe(usize::MAX, std::iter::empty()).unwrap_err().to_string().contains("too large"));
    assert!(Tokenizer::char_level(&BTreeSet::new(), true).unwrap_err().to_string().contains("no characters"));
}

#[test]
fn a_text_without_spaces_does_not_take_for_ever() {
    let tokenizer = Tokenizer::train_bpe(300, std::iter::once("ab".repeat(1 << 18))).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode("ababa").unwrap()), "ababa");
    assert!(tokenizer.encode(&"ab".repeat(256)).unwrap().len() < 4);
}

#[test]
fn a_saved_tokenizer_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    for tokenizer in [bpe(), characters(" aeflnort", true), Tokenizer::from_json(&llama().to_string()).unwrap()] {
        fs::write(&path, tokenizer.to_json()).unwrap();
        let read = Tokenizer::from_file(&path).unwrap();
        assert_eq!(read.encode("a").unwrap(), tokenizer.encode("a").unwrap());
        assert_eq!(read.fingerprint(), tokenizer.fingerprint());
        assert_eq!(matches!(read.encoder, Encoder::Characters(_)), matches!(tokenizer.encoder, Encoder::Characters(_)));
    }
    fs::write(&path, b"\xff").unwrap();
    let error = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(error.ends_with("tokenizer.json`: is not UTF-8"), "{error}");
    assert!(matches!(Tokenizer::from_file(&folder.path().join("none")), Err(Error::Io { .. })));
}

#[test]
fn difficult_texts_survive_bpe() {
    let tokenizer = &*BPE_300;
    let spaces = " ".repeat(100_000) + "x";
    for text in [
        "你好，世界",
        "مرحبا بالعالم",
        "👩‍👩‍👧‍👦 e\u{301}",
        "1234567",
        "if (x) {\n\t\treturn;\n}",
        "a    b\r\n\r\n",
        "\u{0}\u{7f}\u{feff}\u{fffd}",
        "",
        &spaces,
    ] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(tokenizer.inner.decode(&ids, true).unwrap(), text);
    }
}

#[test]
fn llamas_bytes_and_spaces_come_out_as_text() {
    let tokenizer = Tokenizer::from_json(&llama().to_string()).unwrap();
    for (ids, text) in [(&[0, 5, 5, 3][..], "a a "), (&[3, 5], " a"), (&[6, 5], "b a"), (&[1, 2, 6], "éb"), (&[], "")]
    {
        assert_eq!(tokenizer.decode(ids), text);
        assert_eq!(tokenizer.inner.decode(ids, true).unwrap(), text);
    }
    assert_eq!(tokenizer.decode(&[1, 6]), "\u{fffd}b");
}

#[test]
fn ids_that_no_token_has_add_nothing() {
    let ids = BPE_300.encode("a fox").unwrap();
    assert_eq!(BPE_300.decode(&[&[300], &ids[..], &[u32::MAX]].concat()), "a fox");
    let mut file = llama();
    file["model"]["vocab"]["b"] = 9.into();
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    assert_eq!(tokenizer.decode(&[7, 9, 8, 5]), "b a");
    assert_eq!([7, 9, 10].map(|id| tokenizer.has_token(id)), [false, true, false]);
}

#[test]
fn a_text_that_needs_a_token_without_a_row_is_an_error() {
    let tokenizer = Tokenizer::from_json(&llama().to_string()).unwrap().for_rows(6);
    assert_eq!(tokenizer.vocab_size(), 6);
    assert_eq!(tokenizer.encode("a").unwrap(), [4]);
    let error = tokenizer.encode("ab").unwrap_err().to_string();
    assert!(error.contains("needs the token `b`, whose id 6 is past the model's vocabulary of 6"), "{error}");
    assert_eq!(characters("ab", true).for_rows(2).end_of_text(), None);
    assert_eq!(characters("ab", true).for_rows(2).encode("ab").unwrap(), [0, 1]);
    assert!(characters("ab", true).for_rows(2).encode_prompt("ab").unwrap_err().to_string().contains("<|endoftext|>"));
}

#[test]
fn post_processors_put_their_first_token_before_a_prompt() {
    let with = |processor: Value| {
        let mut file = llama();
        file["model"]["vocab"]["</s>"] = 7.into();
        file["post_processor"] = processor;
        Tokenizer::from_json(&file.to_string()).unwrap().encode_prompt("a").unwrap()
    };
    let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 7], "cls": ["<s>", 0], "trim_offsets": true,
        "add_prefix_space": true});
    let bert = json!({"type": "BertProcessing", "sep": ["</s>", 7], "cls": ["<s>", 0]});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    let template = |names: &[&str]| {
        let special = names.iter().map(|name| json!({"SpecialToken": {"id": name, "type_id": 0}}));
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
        json!({"type": "TemplateProcessing", "single": special.chain([text, end]).collect::<Vec<_>>(),
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [7], "tokens": ["</s>"]}}})
    };
    let sequence = |all: &[&Value]| json!({"type": "Sequence", "processors": all});
    assert_eq!(with(roberta.clone()), [0, 4]);
    assert_eq!(with(bert), [0, 4]);
    assert_eq!(with(template(&["</s>", "<s>"])), [7, 0, 4]);
    assert_eq!(with(sequence(&[&bytes, &template(&["<s>"])])), [0, 4]);
    assert_eq!(with(sequence(&[&roberta, &bytes])), [0, 4]);
    // The second stands around what the first has made.
    assert_eq!(with(sequence(&[&template(&["<s>"]), &template(&["</s>"])])), [7, 0, 4]);
    assert_eq!(with(sequence(&[&bytes])), [4]);
}

/// A model directory's files: `tokenizer.json` with `added` tokens more, and others.
fn directory(added: &[Value], others: &[(&str, Value)]) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let mut file = llama();
    file["model"]["vocab"][" "] = 7.into();
    file["added_tokens"].as_array_mut().unwrap().extend(added.iter().cloned());
    fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    for (name, value) in others {
        fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    Tokenizer::from_directory(folder.path()).unwrap().unwrap()
}

/// The ids are those of transformers 5.24.
#[test]
fn tokens_of_the_files_beside_are_added() {
    const CONFIG: &str = "tokenizer_config.json";
    let x = |strips: bool| {
        json!({"content": "<x>", "single_word": false, "lstrip": strips, "rstrip": strips, "normalized": false,
            "special": true})
    };
    let with_id = |strips: bool| {
        let mut token = x(strips);
        token["id"] = 8.into();
        token
    };
    let text = "a <x> b";
    // What has no token is left out, as the library does without an unknown token.
    assert_eq!(directory(&[], &[]).encode(text).unwrap(), [4, 7, 7, 6]);
    let (plain, strips) = (&[4, 7, 8, 7, 6][..], &[4, 8, 6][..]);
    for (added, others, ids) in [
        (vec![], (CONFIG, json!({"added_tokens_decoder": {"8": x(false)}})), plain),
        (vec![], (CONFIG, json!({"added_tokens_decoder": {"8": x(true)}})), strips),
        (vec![], (CONFIG, json!({"additional_special_tokens": ["<x>"]})), plain),
        (vec![], (CONFIG, json!({"extra_special_tokens": {"mine": "<x>"}})), plain),
        (vec![], (CONFIG, json!({"image_token": "<x>", "add_bos_token": false})), plain),
        (vec![], (CONFIG, json!({"pad_token": {"content": "<x>", "rstrip": true, "lstrip": true}})), strips),
        (vec![], ("special_tokens_map.json", json!({"pad_token": "<x>"})), plain),
        (vec![], ("added_tokens.json", json!({"<x>": 8})), plain),
        // What the configuration says of a known token counts more.
        (vec![with_id(true)], (CONFIG, json!({"added_tokens_decoder": {"8": x(false)}})), plain),
        (vec![with_id(false)], (CONFIG, json!({"added_tokens_decoder": {"8": x(true)}})), strips),
    ] {
        let tokenizer = directory(&added, std::slice::from_ref(&others));
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{others:?}");
        assert_eq!(tokenizer.warnings(), [""; 0], "{others:?}");
        // The file that is written from it has the token.
        assert_eq!(Tokenizer::from_json(&tokenizer.to_json()).unwrap().encode(text).unwrap(), ids);
    }
    // Where there is a decoder, the older files are not read; ids are given by the library.
    let both = [(CONFIG, json!({"added_tokens_decoder": {"90": x(false)}})), ("added_tokens.json", json!({"<y>": 9}))];
    let tokenizer = directory(&[], &both);
    assert_eq!(tokenizer.encode("<x><y>").unwrap(), [8]);
    assert!(tokenizer.warnings()[0].contains("gives `<x>` the id 90; it is 8"), "{:?}", tokenizer.warnings());
}

#[test]
fn what_the_files_beside_say_in_vain_is_a_warning() {
    const CONFIG: &str = "tokenizer_config.json";
    for (name, value, part) in [
        (CONFIG, json!({"split_special_tokens": true}), "split_special_tokens"),
        (CONFIG, json!({"add_bos_token": true}), "`add_bos_token` in tokenizer_config.json is true"),
    ] {
        let warnings = directory(&[], &[(name, value)]).warnings().join("; ");
        assert!(warnings.contains(part), "{warnings}");
    }
    assert_eq!(directory(&[], &[(CONFIG, json!({"add_bos_token": false, "model_max_length": 9}))]).warnings(), [""; 0]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), llama().to_string()).unwrap();
    fs::write(folder.path().join("added_tokens.json"), "{").unwrap();
    let tokenizer = Tokenizer::from_directory(folder.path()).unwrap().unwrap();
    assert!(tokenizer.warnings()[0].starts_with("added_tokens.json is not JSON: EOF"), "{:?}", tokenizer.warnings());
    assert_eq!(tokenizer.to_json(), llama().to_string(), "unchanged, byte for byte");
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(Tokenizer::from_directory(folder.path()).unwrap().is_none());
}

#[test]
fn what_would_change_texts_is_kept_but_not_obeyed() {
    let mut file: Value = serde_json::from_str(&BPE_300.to_json()).unwrap();
    file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5});
    file["padding"] = json!({"strategy": {"Fixed": 90}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "x"});
    let piece = json!([{"SpecialToken": {"id": "missing", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]);
    file["post_processor"] =
        json!({"type": "TemplateProcessing", "single": piece, "pair": piece, "special_tokens": {}});
    file["model"]["dropout"] = 0.9.into();
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    let text = "Once upon a time there was a fox";
    assert_eq!(tokenizer.encode(text).unwrap(), BPE_300.encode(text).unwrap());
    assert!(tokenizer.to_json().contains("missing"));
}

#[test]
fn files_that_are_no_tokenizers_say_why() {
    let with = |path: &str, value: Value| {
        let mut file = llama();
        *file.pointer_mut(path).unwrap() = value;
        file.to_string()
    };
    let strip = json!({"type": "Strip", "content": "a", "start": 0, "stop": 9});
    for (json, part) in [
        (String::new(), "is not JSON"),
        ("[]".to_owned(), "is not a tokenizer"),
        ("{}".to_owned(), "is not a tokenizer"),
        (json!({"model": 3}).to_string(), "is not a tokenizer"),
        (json!({"model": {"type": "BPE", "vocab": {}, "merges": []}}).to_string(), "no tokens"),
        (with("/model/merges/0", "▁a ▁a".into()), r#"the merge 0, "▁a ▁a", that makes no token"#),
        (with("/model/merges/0", json!(["▁", "<0xC3><0xC3>"])), "makes no token"),
        (with("/model/merges/0", 1.into()), "makes no token"),
        (with("/model/vocab/b", 4.into()), "two tokens have the id 4"),
        (with("/model/vocab/b", u32::MAX.into()), "no vocabulary is that large"),
        (with("/added_tokens/0/id", 9.into()), "added token `<s>` the id 9, where 0 is its turn"),
        (with("/added_tokens/0/content", "new".into()), "`new` the id 0, where 7"),
        (with("/decoder/decoders/3", strip), "strips the end of tokens, `stop`"),
    ] {
        let error = Tokenizer::from_json(&json).unwrap_err().to_string();
        assert!(error.contains(part), "{error}, not {part}");
    }
    let mut prefixed = llama();
    prefixed["model"]["continuing_subword_prefix"] = "é".into();
    assert!(Tokenizer::from_json(&prefixed.to_string()).unwrap_err().to_string().contains("merge 0"));
}

proptest! {
    #[test]
    fn any_text_survives_bpe(text in any::<String>()) {
        let tokenizer = &*BPE_300;
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
    }

    #[test]
    fn any_ids_decode_as_in_the_library(ids in prop::collection::vec(0_u32..300, 0..30)) {
        let tokenizer = &*BPE_300;
        prop_assert_eq!(tokenizer.decode(&ids), tokenizer.inner.decode(&ids, true).unwrap());
    }
}

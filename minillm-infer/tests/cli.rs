//! The program as its user sees it: data on stdout, messages on stderr, the documented exit codes.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use minillm_infer::device;
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};
use minillm_model::config::ModelOptions;
use minillm_model::decoder::LanguageModel;
use minillm_model::tokenizer::Tokenizer;
use minillm_model::{checkpoint, init};
use tempfile::TempDir;

/// A directory with an untrained model over the characters of "abc é\n".
fn model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::char_level(&"abc é\n".chars().collect::<BTreeSet<_>>(), false).unwrap();
    let options = ModelOptions { hidden_size: Some(16), num_hidden_layers: Some(1), ..ModelOptions::default() };
    let config = options.resolve(tokenizer.vocab_size(), 16);
    let device = device::open("flex").unwrap().device;
    let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 1);
    checkpoint::save(&System, folder.path(), &model, &tokenizer).unwrap();
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minillm-infer"));
    command.arg(arguments[0]).arg(folder).args(&arguments[1..]).env("RUST_BACKTRACE", "1");
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(folder: &Path, arguments: &[&str], code: i32, part: &str) {
    let output = run(folder, arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.contains(part) && !message.contains("panicked"), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

#[test]
fn generate_writes_text_and_json() {
    let folder = model();
    let text = stdout(&run(folder.path(), &["generate", "--prompt", "ab", "--max-new-tokens", "40", "--seed", "3"]));
    assert!(text.starts_with("ab"));
    assert_eq!(text.trim_end_matches('\n').chars().count().max(42), 42, "40 characters past a context of 16: {text:?}");
    let again = stdout(&run(folder.path(), &["generate", "--prompt", "ab", "--max-new-tokens", "40", "--seed", "3"]));
    assert_eq!(text, again);

    let json = stdout(&run(folder.path(), &["generate", "--prompt", "ab", "--max-new-tokens", "5", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["prompt_ids"], serde_json::json!([2, 3]));
    assert_eq!(json["ids"].as_array().unwrap().len(), 5);
    assert_eq!(json["finish_reason"], "length");
    assert!(json["prefill_tokens_per_second"].is_number() && json["decode_tokens_per_second"].is_number());
}

#[test]
fn generation_stops_before_a_stop_text() {
    let folder = model();
    let free = stdout(&run(folder.path(), &["generate", "--prompt-ids", "2", "--max-new-tokens", "30", "--json"]));
    let free: serde_json::Value = serde_json::from_str(&free).unwrap();
    let text = free["text"].as_str().unwrap();
    let stop: String = text.chars().skip(4).take(2).collect();
    let stopped = stdout(&run(
        folder.path(),
        &["generate", "--prompt-ids", "2", "--max-new-tokens", "30", "--json", "--stop", &stop],
    ));
    let stopped: serde_json::Value = serde_json::from_str(&stopped).unwrap();
    assert_eq!(stopped["finish_reason"], "stop_text");
    assert_eq!(stopped["text"].as_str().unwrap(), &text[..text.find(&stop).unwrap()]);
}

#[test]
fn score_of_an_untrained_model_is_that_of_guessing() {
    let folder = model();
    let text = folder.path().join("text.txt");
    fs_err::write(&text, "abc é\n".repeat(20)).unwrap();
    let json = stdout(&run(folder.path(), &["score", "--file", text.to_str().unwrap(), "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    // Six characters, seven bytes; the first character is given.
    assert_eq!((json["tokens"].as_u64(), json["bytes"].as_u64()), (Some(119), Some(139)));
    let nats = json["nats_per_token"].as_f64().unwrap();
    assert!((nats - 6_f64.ln()).abs() < 0.1, "{nats}");
    let bits = json["bits_per_byte"].as_f64().unwrap();
    assert!((bits - nats * 119.0 / 139.0 / std::f64::consts::LN_2).abs() < 1e-9);
    assert!((json["perplexity"].as_f64().unwrap() - nats.exp()).abs() < 1e-9);
}

#[test]
fn score_reads_a_text_as_training_does() {
    let folder = model();
    let score = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs_err::write(&path, content).unwrap();
        let json = stdout(&run(folder.path(), &["score", "--file", path.to_str().unwrap(), "--json"]));
        serde_json::from_str::<serde_json::Value>(&json).unwrap()
    };
    let text = "abc é\n".repeat(20);
    let plain = score("text.txt", text.as_bytes());
    assert_eq!((&plain["context"], &plain["stride"]), (&16.into(), &16.into()));
    let marked = format!("\u{feff}{text}");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, marked.as_bytes()).unwrap();
    let padded = [gzip.finish().unwrap(), vec![0; 512]].concat();
    let line = serde_json::json!({ "text": text }).to_string().replacen('{', "{\"score\": NaN, ", 1);
    for (name, content) in [
        ("marked.txt", marked.as_bytes()),
        ("NOTES", marked.as_bytes()),
        ("text.txt.gz", &padded[..]),
        ("text.jsonl", line.as_bytes()),
        ("two.txt", [&text[..66], "\n<|endoftext|>\n", &text[66..]].concat().as_bytes()),
    ] {
        assert_eq!(score(name, content), plain, "{name}");
    }
}

#[test]
fn score_takes_windows_that_overlap() {
    let folder = model();
    let text = folder.path().join("text.txt");
    fs_err::write(&text, "abc é\n".repeat(20)).unwrap();
    let text = text.to_str().unwrap();
    let json = stdout(&run(folder.path(), &["score", "--file", text, "--context", "8", "--stride", "2", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["context"], &json["stride"], &json["tokens"]), (&8.into(), &2.into(), &119.into()));
    refused(folder.path(), &["score", "--file", text, "--context", "17"], 2, "the model sees 16 tokens at once");
    refused(folder.path(), &["score", "--file", text, "--stride", "-1"], 2, "invalid value '-1'");
}

/// A list, a dialogue, a negative number.
#[test]
fn a_value_may_begin_with_a_dash() {
    let folder = model();
    let here = folder.path();
    refused(here, &["generate", "--prompt", "- a"], 1, "'-' is not in the vocabulary");
    refused(here, &["generate", "--prompt", "--"], 1, "'-' is not in the vocabulary");
    refused(here, &["inspect", "--prompt", "-5"], 1, "'-' is not in the vocabulary");
    refused(here, &["generate", "--prompt", "a", "--seed", "-1"], 2, "invalid value '-1'");
    refused(here, &["generate", "--prompt-ids", "-1,2"], 2, "invalid value '-1'");
    for stop in ["--", "- a", "-1"] {
        stdout(&run(here, &["generate", "--prompt", "a", "--stop", stop, "--max-new-tokens", "3"]));
    }
}

#[test]
fn logits_are_written_for_other_programs() {
    let folder = model();
    let out = folder.path().join("logits.safetensors");
    stdout(&run(folder.path(), &["logits", "--ids", "1,2,3", "--out", out.to_str().unwrap()]));
    let tensors = checkpoint::weights::read(&out).unwrap();
    assert_eq!(tensors["logits"].shape, [3, 6]);
}

#[test]
fn inspect_prints_the_parts() {
    let folder = model();
    let table = stdout(&run(folder.path(), &["inspect"]));
    let json: serde_json::Value = serde_json::from_str(&stdout(&run(folder.path(), &["inspect", "--json"]))).unwrap();
    for part in json["parts"].as_array().unwrap() {
        let name = part["name"].as_str().unwrap();
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        let plain = line.replace(',', "");
        assert!(["parameters", "flops_per_token", "bytes"].iter().all(|key| plain.contains(&part[key].to_string())));
    }
    // By hand: 2 x 6 x 16 for embedding and output, 4 x 16 x 16, 3 x 16 x 32, norms 3 x 16.
    assert_eq!(json["parameters"], 192 + 1024 + 1536 + 48);
    assert_eq!(json["bytes"], 4 * (192 + 1024 + 1536 + 48));
    // 2 x (1024 + 1536 + 96) for the matrices, 4 x 16 x 16 for scores and mix over 16 tokens.
    assert_eq!(json["flops_per_token"], 2 * (1024 + 1536 + 96) + 1024);
    assert_eq!((&json["context"], &json["config"]["hidden_size"]), (&16.into(), &16.into()));
    let cache = json["kv_cache"].as_array().unwrap();
    assert_eq!(cache.len(), 3, "K = 4, 2, 1");
    assert_eq!(cache[0], serde_json::json!({"num_key_value_heads": 4, "bytes_per_token": 128, "is_this_model": true}));
    assert!(json.get("attention").is_none() && table.ends_with("2,048 for 16 tokens.\n"), "{table}");
}

#[test]
fn inspect_writes_a_page_and_numbers() {
    let folder = model();
    let page = folder.path().join("new/page.html");
    let output = run(folder.path(), &["inspect", "--prompt", "abé", "--out", page.to_str().unwrap()]);
    assert_eq!(stdout(&output), "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("page.html"));
    let html = fs_err::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("text of 3 tokens"));

    fs_err::remove_file(&page).unwrap();
    let json = stdout(&run(folder.path(), &["inspect", "--prompt", "abé", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ids"], serde_json::json!([2, 3, 5]));
    assert_eq!(json["labels"]["5"], "é");
    assert_eq!(json["labels"]["1"], "␣", "among the alternatives");
    let lengths = |value: &serde_json::Value| value.as_array().unwrap().len();
    assert_eq!(
        (lengths(&json["attention"]), lengths(&json["attention"][0]), lengths(&json["attention"][0][0])),
        (1, 4, 3)
    );
    assert_eq!(json["attention"][0][0][0], serde_json::json!([1.0]));
    assert_eq!((lengths(&json["logit_lens"]), lengths(&json["logit_lens"][0])), (2, 3));
    assert_eq!((lengths(&json["norms"]), lengths(&json["norms"][0])), (2, 3));
    let first = &json["logit_lens"][1][0];
    assert_eq!(lengths(&first["top"]), 6, "the whole vocabulary");
    assert!(first["top"][0]["id"].is_u64() && first["next"]["rank"].is_u64());
    assert_eq!(json["probabilities"][1], first["next"]["probability"]);
    assert!(json["probabilities"][0].is_null() && json["logit_lens"][1][2]["next"].is_null());
    assert_eq!(json["parameters"], 2800, "the parts are there, too");
    assert!(!page.exists() && !Path::new("inspect.html").exists(), "no page was asked for");

    let arguments = ["inspect", "--prompt-ids", "2,3", "--json", "--out", page.to_str().unwrap()];
    stdout(&run(folder.path(), &arguments));
    assert!(page.exists());
}

#[test]
fn inspect_shows_the_beginning_of_a_long_prompt() {
    let folder = model();
    let output = run(folder.path(), &["inspect", "--prompt", &"ab".repeat(20), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["ids"].as_array().unwrap().len(), 16, "the context");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("the prompt has 40 tokens; shown are the first 16"), "{message}");
}

#[test]
fn requests_that_cannot_be_met_say_why() {
    let folder = model();
    let here = folder.path();
    refused(here, &["generate", "--prompt", ""], 2, "the prompt is empty");
    refused(here, &["generate", "--prompt-ids", "99"], 2, "token id 99 is past the vocabulary of 6");
    refused(here, &["generate", "--prompt", &"a".repeat(17)], 2, "the prompt has 17 tokens");
    refused(here, &["generate", "--prompt", "xyz"], 1, "'x' is not in the vocabulary");
    refused(here, &["generate", "--prompt", "a", "--temperature", "-1"], 2, "--temperature");
    refused(here, &["generate", "--prompt", "a", "--top-p", "0"], 2, "--top-p");
    refused(here, &["generate", "--prompt", "a", "--device", "tpu"], 2, "`tpu`");
    refused(here, &["generate"], 2, "--prompt");
    refused(here, &["inspect", "--prompt", ""], 2, "the prompt is empty");
    refused(here, &["inspect", "--prompt-ids", "99"], 2, "token id 99 is past the vocabulary of 6");
    refused(here, &["inspect", "--out", "page.html"], 2, "`--out`");
    refused(here, &["inspect", "--prompt", "a", "--out", here.to_str().unwrap()], 1, "cannot write the page");
    refused(here, &["score", "--file", "nowhere.txt"], 1, "nowhere.txt");
    let empty = here.join("empty.txt");
    fs_err::write(&empty, "").unwrap();
    refused(here, &["score", "--file", empty.to_str().unwrap()], 2, "empty.txt` is empty");
    refused(here, &["generate", "--prompt", "a", "--stop", ""], 2, "--stop");
    let out = here.join("no/such/place.safetensors");
    refused(here, &["logits", "--ids", "1", "--out", out.to_str().unwrap()], 1, "place.safetensors");
    refused(&here.join("nowhere"), &["generate", "--prompt", "a"], 1, "nowhere");
}

#[test]
fn weights_that_are_no_numbers_are_an_error() {
    let folder = model();
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs_err::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs_err::write(&path, bytes).unwrap();
    let text = folder.path().join("text.txt");
    fs_err::write(&text, "abc abc").unwrap();
    let out = folder.path().join("logits.safetensors");
    refused(folder.path(), &["generate", "--prompt", "a", "--json"], 1, "not finite");
    refused(folder.path(), &["inspect", "--prompt", "a", "--json"], 1, "not finite");
    refused(folder.path(), &["score", "--file", text.to_str().unwrap()], 1, "not finite");
    refused(folder.path(), &["logits", "--ids", "1,2", "--out", out.to_str().unwrap()], 1, "not finite");
    assert!(!out.exists());
}

/// Llama's tokenizers put `<s>` before a prompt and drop the first space of a text, not of what follows a prompt.
#[test]
fn words_of_a_llama_tokenizer_stay_apart() {
    let folder = model();
    let tokenizer = serde_json::json!({
        "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "post_processor": {"type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "merges": [], "vocab": {"<s>": 0, "▁": 1, "a": 2, "▁b": 3, "▁c": 4, "▁d": 5}},
    });
    fs_err::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let spelling = ["", " ", "a", " b", " c", " d"];
    let mut with_space = 0;
    for seed in 0..8 {
        let seed = seed.to_string();
        let json = stdout(&run(folder.path(), &["generate", "--prompt", "a", "--seed", &seed, "--json"]));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["prompt_ids"], serde_json::json!([0, 2]));
        let ids = json["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as usize);
        let text: String = ids.map(|id| spelling[id]).collect();
        assert_eq!(json["text"].as_str().unwrap(), text);
        with_space += usize::from(text.starts_with(' '));
    }
    assert!(with_space > 0, "no text began with a space: nothing was tested");
}

/// A reader that has gone away is no failure.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = model();
    let text = folder.path().join("text.txt");
    fs_err::write(&text, "abc abc").unwrap();
    let (model, text) = (folder.path().to_str().unwrap(), text.to_str().unwrap());
    for arguments in [vec!["score", model, "--file", text], vec!["generate", model, "--prompt", "ab"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minillm-infer"));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.args(&arguments).stdout(writer).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn without_a_tokenizer_ids_still_work() {
    let folder = model();
    fs_err::remove_file(folder.path().join("tokenizer.json")).unwrap();
    refused(folder.path(), &["generate", "--prompt-ids", "2", "--stop", "a"], 2, "--prompt-ids");
    refused(folder.path(), &["generate", "--prompt", "a"], 2, "--prompt-ids");
    refused(folder.path(), &["inspect", "--prompt", "a"], 2, "--prompt-ids");
    let ids = stdout(&run(folder.path(), &["generate", "--prompt-ids", "2", "--max-new-tokens", "3"]));
    assert_eq!(ids.split_whitespace().count(), 3);
    let json = stdout(&run(folder.path(), &["inspect", "--prompt-ids", "2,3", "--json"]));
    assert!(json.contains(r##""2":"#2""##), "{json}");
}

#[test]
fn tokenize_shows_what_the_model_is_given() {
    let folder = model();
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&stdout(&run(folder.path(), arguments))).unwrap()
    };
    let text = json(&["tokenize", "--text", "aé", "--json"]);
    assert_eq!(text, serde_json::json!({ "text": "aé", "ids": [2, 5], "tokens": ["a", "é"], "mask": [1, 1] }));

    let write = |name: &str, text: &str| {
        fs_err::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).to_str().unwrap().to_owned()
    };
    let messages =
        write("messages.json", r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#);
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}\n{% endgeneration %}\
        {% else %}{{ m.content + ' ' + c }}{% endif %}{% endfor %}{% if add_generation_prompt %}c{% endif %}";
    let template = write("chat.jinja", template);
    let chat = ["tokenize", "--messages", &messages, "--template", &template, "--variable", "c=\"é\""];
    let given = json(&[&chat[..], &["--json"]].concat());
    let expected = serde_json::json!({
        "text": "a éb\n", "ids": [2, 1, 5, 3, 0], "tokens": ["a", " ", "é", "b", "\n"], "mask": [0, 0, 0, 1, 1],
    });
    assert_eq!(given, expected);
    assert_eq!(json(&[&chat[..], &["--json", "--generation-prompt"]].concat())["text"], "a éb\nc");
    let table = stdout(&run(folder.path(), &chat));
    assert!(table.contains("5 tokens, 2 of them (*) trained on") && table.contains("*       3  \"b\""), "{table}");

    refused(folder.path(), &["tokenize", "--messages", &messages], 2, "has no chat template");
    refused(folder.path(), &["tokenize", "--text", "x"], 1, "'x' is not in the vocabulary");
    refused(folder.path(), &["tokenize"], 2, "--messages");
    let refuses = write("refuses.jinja", "{{ raise_exception('No, thank you.') }}");
    let output = run(folder.path(), &["tokenize", "--messages", &messages, "--template", &refuses, "--json"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"{\"error\":\"No, thank you.\"}\n"[..]));
}

/// One adapter for every verb that reads a model: what they print is that of the merged model, and not of the base.
#[test]
fn an_adapter_is_merged_wherever_a_model_is_read() {
    let folder = model();
    let adapter = folder.path().join("adapter");
    fs_err::create_dir(&adapter).unwrap();
    let tensor = |shape: [usize; 2]| HostTensor { shape: shape.to_vec(), values: vec![0.4; shape[0] * shape[1]] };
    let name = |part: &str| format!("base_model.model.model.layers.0.mlp.down_proj.lora_{part}.weight");
    let config = checkpoint::read_config(folder.path()).unwrap();
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let tensors = HostTensors::from([(name("A"), tensor([2, inner])), (name("B"), tensor([width, 2]))]);
    weights::write(&System, &adapter.join("adapter_model.safetensors"), &tensors).unwrap();
    let base = folder.path().to_str().unwrap();
    let json = serde_json::json!({ "peft_type": "LORA", "lora_alpha": 4, "base_model_name_or_path": base });
    fs_err::write(adapter.join("adapter_config.json"), json.to_string()).unwrap();
    let (merged, adapter) = (folder.path().join("merged"), adapter.to_str().unwrap());
    let flags = ["--adapter", adapter];
    stdout(&run(folder.path(), &[&["export", "--to", "hf", "--out", merged.to_str().unwrap()][..], &flags].concat()));
    let text = folder.path().join("text.txt");
    fs_err::write(&text, "abc cab").unwrap();
    for verb in [
        &["score", "--file", text.to_str().unwrap()][..],
        &["generate", "--prompt", "ab", "--temperature", "0", "--max-new-tokens", "8"],
        &["inspect", "--prompt", "abc", "--json"],
    ] {
        let expected = stdout(&run(&merged, verb));
        assert_eq!(stdout(&run(folder.path(), &[verb, &flags[..]].concat())), expected, "{verb:?}");
        assert_eq!(stdout(&run(Path::new(adapter), verb)), expected, "{verb:?}, by itself");
        assert!(verb[0] == "generate" || stdout(&run(folder.path(), verb)) != expected, "{verb:?}");
    }
    stdout(&run(folder.path(), &["verify", merged.to_str().unwrap(), "--adapter", adapter]));
    assert_eq!(run(folder.path(), &["verify", merged.to_str().unwrap()]).status.code(), Some(1));
}

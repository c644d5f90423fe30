//! Models written for other programs and read back: every family, encoding and kind of tokenizer, and what is refused.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use minillm_infer::export::{Options, Target, export};
use minillm_infer::generate::Tokens;
use minillm_infer::sampling::Sampling;
use minillm_infer::verify::compare;
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::{self, Checkpoint, weights};
use minillm_model::config::{ModelOptions, Preset};
use minillm_model::decoder::LanguageModel;
use minillm_model::encoding::Encoding;
use minillm_model::init;
use minillm_model::tokenizer::Tokenizer;

/// What llama.cpp does not compute, and the switch that says so.
const NOT_IN_GGUF: [(&str, &str); 7] = [
    ("gpt2_f16", "mlp"),
    ("llama_rope_dynamic", "rope_scaling"),
    ("llama_rope_yarn_all", "rope_scaling"),
    ("llama_rope_yarn_mscale", "rope_scaling"),
    ("mistral_window", "sliding_window"),
    ("qwen2_window", "sliding_window"),
    ("qwen3_window", "attention_bias"),
];

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let mut models: Vec<_> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.sort();
    models
}

fn load(path: &Path) -> Checkpoint {
    checkpoint::load(path, &Device::flex()).unwrap()
}

fn options(target: Target, out: PathBuf, encoding: Encoding) -> Options {
    Options { target, out, encoding, name: "tiny".to_owned(), largest_shard: None }
}

fn written(source: &Checkpoint, options: &Options) -> Checkpoint {
    load(&export(source, options).unwrap().model)
}

#[test]
fn gguf_and_back_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for path in models() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let source = load(&path);
        let gguf = options(Target::Gguf, folder.path().join(format!("{name}.gguf")), Encoding::F32);
        if let Some((_, switch)) = NOT_IN_GGUF.iter().find(|(model, _)| *model == name) {
            let error = export(&source, &gguf).unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{switch}` = ")), "{name}: {error}");
            assert!(error.hint().unwrap().contains("--to hf"), "{name}");
            assert!(!gguf.out.exists());
            refused += 1;
            continue;
        }
        let middle = written(&source, &gguf);
        let again = written(&middle, &options(Target::Hf, folder.path().join(&name), Encoding::F32));
        assert_eq!(weights::collect(&again.model).unwrap(), weights::collect(&source.model).unwrap(), "{name}");
        // What GGUF has no key for is what does not change the computation.
        let expected = minillm_model::config::ModelConfig {
            initializer_range: 0.02,
            dropout: 0.0,
            ..source.model.config().clone()
        };
        assert_eq!(again.model.config(), &expected, "{name}");
        assert_eq!((again.begin_id, &again.end_ids), (source.begin_id, &source.end_ids), "{name}");
    }
    assert_eq!(refused, NOT_IN_GGUF.len());
}

#[test]
fn every_encoding_rounds_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    // How far a logit may move, as a share of their spread: the weights' relative error, through two layers.
    for (encoding, bound) in
        [(Encoding::F32, 0.0), (Encoding::F16, 0.002), (Encoding::Bf16, 0.02), (Encoding::Q8_0, 0.05)]
    {
        for name in ["llama_biases", "qwen3_theta", "gpt2_inner"] {
            let source = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name));
            for target in [Target::Gguf, Target::Hf] {
                if (target, encoding) == (Target::Hf, Encoding::Q8_0) {
                    continue;
                }
                let out = folder.path().join(format!("{name}-{}-{target:?}", encoding.name()));
                let exported = export(&source, &options(target, out, encoding)).unwrap();
                let relative = exported.comparison.relative;
                assert!(relative <= bound, "{name} {encoding:?} {target:?}: {relative}");
                // Rounded once, it is exact.
                let once = load(&exported.model);
                let out = folder.path().join(format!("{name}-{}-{target:?}-again", encoding.name()));
                let twice = written(&once, &options(target, out, encoding));
                assert_eq!(weights::collect(&once.model).unwrap(), weights::collect(&twice.model).unwrap());
            }
        }
    }
}

#[test]
fn weights_are_cut_into_files() {
    let folder = tempfile::tempdir().unwrap();
    let source = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/gpt2_inner"));
    let mut options = options(Target::Hf, folder.path().join("cut"), Encoding::Bf16);
    options.largest_shard = Some(4000);
    let cut = export(&source, &options).unwrap();
    let names: Vec<_> =
        fs_err::read_dir(&cut.model).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let shards = names.iter().filter(|name| name.starts_with("model-0000")).count();
    assert!(shards > 2 && !names.contains(&"model.safetensors".to_owned()), "{names:?}");
    for name in names.iter().filter(|name| name.starts_with("model-")) {
        let length = fs_err::metadata(cut.model.join(name)).unwrap().len();
        assert!(length < 4000 + 2000, "{name} has {length} bytes, 2000 of them for a header");
    }
}

/// A trained-looking model with this tokenizer.
fn model_with(tokenizer: &Tokenizer, preset: Preset, folder: &Path) -> Checkpoint {
    let options = ModelOptions { preset, hidden_size: Some(32), num_hidden_layers: Some(1), ..ModelOptions::default() };
    let config = options.resolve(tokenizer.vocab_size(), 64);
    let device = Device::flex();
    let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 3);
    checkpoint::save(&System, folder, &model, tokenizer).unwrap();
    load(folder)
}

#[test]
fn tokenizers_go_along() {
    let texts = ["Hello, wörld! 12345\n\n\tit's \u{1f600}", "a\\b \\n \0 end", "日本語 and more"];
    let characters = texts.iter().flat_map(|text| text.chars()).collect();
    let tokenizers = [
        Tokenizer::train_bpe(400, texts.iter().map(|text| text.repeat(20))).unwrap(),
        Tokenizer::char_level(&characters, false).unwrap(),
        Tokenizer::char_level(&characters, true).unwrap(),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (index, tokenizer) in tokenizers.iter().enumerate() {
        let directory = folder.path().join(format!("model-{index}"));
        fs_err::create_dir(&directory).unwrap();
        let source = model_with(tokenizer, Preset::Qwen3, &directory);
        let gguf = options(Target::Gguf, folder.path().join(format!("gguf-{index}")), Encoding::F32);
        let middle = written(&source, &gguf);
        let again = written(&middle, &options(Target::Hf, folder.path().join(format!("hf-{index}")), Encoding::F32));
        for read in [&middle, &again] {
            let found = read.tokenizer.as_ref().unwrap();
            assert_eq!(found.to_json(), tokenizer.to_json());
            assert_eq!((read.begin_id, &read.end_ids), (source.begin_id, &source.end_ids));
            for text in texts {
                assert_eq!(found.encode_prompt(text).unwrap(), tokenizer.encode_prompt(text).unwrap());
            }
        }
        let modelfile = fs_err::read_to_string(gguf.out.join("Modelfile")).unwrap();
        assert!(modelfile.starts_with("FROM ./tiny-") && modelfile.contains("num_ctx 64"), "{modelfile}");
        let card = fs_err::read_to_string(gguf.out.join("README.md")).unwrap();
        assert!(card.contains("| context | 64 tokens |") && card.contains("# tiny"), "{card}");
    }
}

/// nanoGPT's models have no biases, and GPT-2's class has no switch for that: zeros are the same model.
#[test]
fn a_gpt2_without_biases_gets_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::char_level(&"abc \n".chars().collect(), false).unwrap();
    let source = model_with(&tokenizer, Preset::Gpt2, folder.path());
    let bare = {
        let mut config = source.model.config().clone();
        (config.attention_bias, config.mlp_bias) = (minillm_model::config::AttentionBias::None, false);
        let device = Device::flex();
        let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 4);
        Checkpoint { model, ..source }
    };
    for (target, out) in [(Target::Hf, "hf"), (Target::Gguf, "model.gguf")] {
        let read = written(&bare, &options(target, folder.path().join(out), Encoding::F32));
        assert!(read.model.config().mlp_bias);
        assert!(compare(&bare, &read).unwrap().is_equal(0.0));
    }
}

#[test]
fn a_trained_model_tells_its_story_from_every_form() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/stories260K"));
    if !folder.exists() {
        return;
    }
    let text = fs_err::read_to_string(folder.join("golden_greedy_ids.json")).unwrap();
    let published: serde_json::Value = serde_json::from_str(&text).unwrap();
    let published: Vec<u32> = serde_json::from_value(published.get("ids").unwrap_or(&published).clone()).unwrap();
    let published = published.strip_prefix(&[1]).unwrap_or(&published);
    let source = load(&folder.join("hf"));
    let temporary = tempfile::tempdir().unwrap();
    let gguf = written(&source, &options(Target::Gguf, temporary.path().join("a.gguf"), Encoding::F32));
    let again = written(&gguf, &options(Target::Hf, temporary.path().join("b"), Encoding::F32));
    for form in [&source, &gguf, &again] {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let tokens = Tokens::new(&form.model, &[1], published.len(), &greedy).unwrap();
        assert_eq!(tokens.map(Result::unwrap).collect::<Vec<_>>(), published, "{}", form.path.display());
    }
    let file = |directory: &Path| fs_err::read(directory.join("model.safetensors")).unwrap();
    assert_eq!(file(&folder.join("hf")), file(&temporary.path().join("b")), "byte for byte");
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minillm-infer"));
    command.args(arguments).env("RUST_BACKTRACE", "1").output().unwrap()
}

fn refused(arguments: &[&str], code: i32, part: &str) {
    let output = run(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.contains(part) && !message.contains("panicked"), "{arguments:?}: {message}");
}

#[test]
fn the_command_exports_verifies_and_refuses() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let source = models.join("llama_biases");
    let source = source.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();

    let output = run(&["export", source, "--to", "gguf", "--out", &out("gguf"), "--dtype", "Q8_0", "--name", "Mini"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(file.ends_with("-Q8_0.gguf") && file.contains("Mini-"), "{file}");
    let output = run(&["verify", source, &file, "--tolerance", "10"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("largest difference of a logit "));
    refused(&["verify", source, &file, "--tolerance", "0"], 1, "part at a tolerance");
    let other = models.join("qwen3_theta");
    refused(&["verify", source, other.to_str().unwrap()], 1, "");

    refused(&["export", source, "--to", "gguf", "--out", &out("gguf")], 2, "is not empty");
    refused(&["export", source, "--to", "gguf", "--out", &file], 2, "exists");
    refused(&["export", source, "--to", "hf", "--out", source], 2, "is not empty");
    refused(&["export", source, "--to", "hf", "--out", &out("a"), "--dtype", "q8_0"], 2, "--dtype q8_0");
    refused(&["export", source, "--to", "hf", "--out", &out("a.gguf")], 2, "--to gguf");
    refused(&["export", source, "--to", "onnx", "--out", &out("a")], 2, "onnx");
    refused(&["export", source, "--to", "hf", "--out", &out("a"), "--dtype", "int4"], 2, "f32, f16, bf16 or q8_0");
    refused(&["export", source, "--to", "hf", "--out", &out("a"), "--name", "../up"], 2, "--name");
    refused(&["export", source, "--to", "hf", "--out", &out("a"), "--max-shard-size", "many"], 2, "500MB");
    refused(&["export", source, "--to", "gguf", "--out", &out("a"), "--max-shard-size", "1MB"], 2, "--max-shard-size");
    refused(&["export", &out("nowhere"), "--to", "gguf", "--out", &out("a")], 1, "nowhere");
    let left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["gguf"], "nothing half-made stays");
}

/// What no foreign class can be goes to a directory all the same, and who will not read it is said.
#[test]
fn a_mixture_is_for_us_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/llama_biases")).model.config().clone();
    config.mlp = minillm_model::config::MlpKind::Relu2;
    let device = Device::flex();
    let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 5);
    let tokenizer = Tokenizer::char_level(&"abc".chars().collect(), false).unwrap();
    let source = folder.path().join("source");
    fs_err::create_dir(&source).unwrap();
    checkpoint::save(&System, &source, &model, &tokenizer).unwrap();
    let (source, out) = (source.to_str().unwrap(), folder.path().join("out"));
    let output = run(&["export", source, "--to", "hf", "--out", out.to_str().unwrap()]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains("`mlp`: only MiniLLM"), "{message}");
    refused(&["export", source, "--to", "gguf", "--out", "no.gguf"], 2, "`mlp` = \"relu2\" has no place in GGUF");
}

/// A number that the encoding has no place for is refused before anything is written.
#[test]
fn what_an_encoding_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/llama_biases"));
    let embedding = source.model.model.embed_tokens.weight.val();
    source.model.model.embed_tokens.weight = burn::module::Param::from_tensor(embedding * 1e6);
    let options = options(Target::Hf, folder.path().join("out"), Encoding::F16);
    let error = export(&source, &options).unwrap_err();
    assert!(error.to_string().contains("`model.embed_tokens.weight` holds"), "{error}");
    assert!(!options.out.exists());
}

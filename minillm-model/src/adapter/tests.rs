use std::path::PathBuf;

use ::safetensors::{Dtype, SafeTensors};
use burn::module::Param;
use burn::tensor::{Int, Tensor, TensorData};

use super::*;
use crate::checkpoint::durable::System;
use crate::checkpoint::weights::{self, HostTensor};
use crate::config::{ModelOptions, Preset};
use crate::decoder::LanguageModel;
use crate::init;
use crate::parameters;
use crate::tokenizer::Tokenizer;

/// Values by peft, where they are present.
fn golden(path: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden-post/lora")).join(path);
    folder.exists().then_some(folder)
}

fn flex() -> Device {
    Device::flex()
}

/// Tensors as f64.
fn numbers(file: &SafeTensors, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap();
    let bytes = tensor.data();
    match tensor.dtype() {
        Dtype::I64 => bytes.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        Dtype::F64 => bytes.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        _ => bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
    }
}

#[test]
fn adapted_logits_are_those_of_peft() {
    let Some(folder) = golden("") else { return };
    let mut seen = 0;
    for model in fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let bytes = fs_err::read(model.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let ids: Vec<i32> = numbers(&expected, "ids").into_iter().map(|id| id as i32).collect();
        let base = model.join("base");
        let difference = |checkpoint: Checkpoint, name: &str| {
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids.clone(), [2, 12]), &flex());
            let logits = checkpoint.model.forward(ids, None).try_into_vec_as::<f32>().unwrap();
            let expected = numbers(&expected, name);
            assert_eq!(logits.len(), expected.len());
            let differences = logits.iter().zip(expected).map(|(got, expected)| (f64::from(*got) - expected).abs());
            differences.fold(0.0, f64::max)
        };
        assert!(difference(checkpoint::load(&base, &flex()).unwrap(), "base_f64") < 1e-4);
        for adapter in fs_err::read_dir(&model).unwrap().map(|entry| entry.unwrap().path()) {
            let name = adapter.file_name().unwrap().to_str().unwrap().to_owned();
            if !adapter.join("adapter_config.json").exists() || name.ends_with("-refuse") {
                continue;
            }
            let loaded = load(&base, &adapter, &flex()).unwrap();
            let difference = difference(loaded, &format!("{name}.adapted_f64"));
            assert!(difference < 1e-4, "{}: off by {difference}", adapter.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} adapters");
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let Some(folder) = golden("llama") else { return };
    let error = load(&folder.join("base"), &folder.join("dora-refuse"), &flex()).unwrap_err().to_string();
    assert!(error.contains("`use_dora`"), "{error}");
    // The adapter of another model.
    let error = load(&golden("gpt2/base").unwrap(), &folder.join("qv-r8"), &flex()).unwrap_err().to_string();
    assert!(error.contains("q_proj") && error.contains("another model"), "{error}");
}

/// A model of one block, and a folder for its adapters.
fn model() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    fs_err::create_dir(&path).unwrap();
    let options = ModelOptions { hidden_size: Some(16), num_hidden_layers: Some(1), ..ModelOptions::default() };
    let config = ModelConfig { tie_word_embeddings: true, ..options.resolve(11, 8) };
    let model = init::initialize(LanguageModel::new(&config, &flex()).unwrap(), 1);
    let characters = "abcdefghij\n".chars().collect();
    checkpoint::save(&System, &path, &model, &Tokenizer::char_level(&characters, false).unwrap()).unwrap();
    (folder, path)
}

/// Writes an adapter of these keys and tensors, each filled with 0.5.
fn write(folder: &Path, config: &serde_json::Value, tensors: &[(&str, &[usize])]) -> PathBuf {
    let path = folder.join("adapter");
    fs_err::create_dir_all(&path).unwrap();
    fs_err::write(path.join("adapter_config.json"), config.to_string()).unwrap();
    let tensor = |shape: &[usize]| HostTensor { shape: shape.to_vec(), values: vec![0.5; shape.iter().product()] };
    let tensors = tensors.iter().map(|(name, shape)| (format!("base_model.model.{name}"), tensor(shape))).collect();
    weights::write(&System, &path.join("adapter_model.safetensors"), &tensors).unwrap();
    path
}

const Q: &str = "model.layers.0.self_attn.q_proj";

fn lora() -> serde_json::Value {
    serde_json::json!({ "peft_type": "LORA", "lora_alpha": 8, "r": 2 })
}

#[test]
fn a_change_is_scaled_by_alpha_and_rank() {
    let (folder, base) = model();
    let (a, b) = (format!("{Q}.lora_A.weight"), format!("{Q}.lora_B.weight"));
    let change = |key: &str, value: serde_json::Value| {
        let mut config = lora();
        config[key] = value;
        let adapter = write(folder.path(), &config, &[(&a, &[2, 16]), (&b, &[16, 2])]);
        let weights =
            |checkpoint: Checkpoint| weights::collect(&checkpoint.model).unwrap()[&format!("{Q}.weight")].clone();
        let (before, after) =
            (weights(checkpoint::load(&base, &flex()).unwrap()), weights(load(&base, &adapter, &flex()).unwrap()));
        after.values[5] - before.values[5]
    };
    // B A = 2 * 0.5 * 0.5; within an f32's rounding of a weight below 1.
    for (key, value, expected) in [
        ("use_rslora", false.into(), 0.5 * 8.0 / 2.0),
        ("use_rslora", true.into(), 0.5 * 8.0 / 2.0_f32.sqrt()),
        ("alpha_pattern", serde_json::json!({ "q_proj": 2 }), 0.5),
        ("alpha_pattern", serde_json::json!({ "layers.[0-3].self_attn.(q|v)_proj": 4 }), 1.0),
        ("alpha_pattern", serde_json::json!({ "_proj": 2, "k_proj": 2 }), 2.0),
        ("alpha_pattern", serde_json::json!({ "model.layers.0.self_attn.q_proj": 2 }), 0.5),
    ] {
        let got = change(key, value.clone());
        assert!((got - expected).abs() < 1e-6, "{key} {value}: {got}, not {expected}");
    }
}

/// Both mean the module; a map that is sorted by its keys would find the other.
#[test]
fn of_several_patterns_the_first_counts() {
    let (folder, _) = model();
    let text = r#"{"peft_type": "LORA", "lora_alpha": 8, "alpha_pattern": {"q_proj": 2, "[a-z]_proj": 4}}"#;
    fs_err::write(folder.path().join("adapter_config.json"), text).unwrap();
    let config = AdapterConfig::read(folder.path()).unwrap();
    let scales = [Q, "x.k_proj", "lm_head"].map(|module| config.scale(module, 2).to_string());
    assert_eq!(scales, ["1", "2", "4"]);
}

/// GPT-2's modules have a longer name for PEFT than in the model's files, and its matrices lie the other way.
#[test]
fn patterns_mean_the_names_that_peft_has() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("gpt2");
    fs_err::create_dir(&base).unwrap();
    let preset = ModelOptions { preset: Preset::Gpt2, ..ModelOptions::default() };
    let options = ModelOptions { hidden_size: Some(16), num_hidden_layers: Some(1), ..preset };
    let model = init::initialize(LanguageModel::new(&options.resolve(11, 8), &flex()).unwrap(), 1);
    let characters = "abcdefghij\n".chars().collect();
    checkpoint::save(&System, &base, &model, &Tokenizer::char_level(&characters, false).unwrap()).unwrap();
    let module = "transformer.h.0.mlp.c_fc";
    let names = [format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight")];
    let inner = model.config().intermediate_size;
    let mut config = lora();
    config["alpha_pattern"] = serde_json::json!({ "transformer.h.0.mlp.c_fc": 2 });
    let adapter = write(folder.path(), &config, &[(&names[0], &[2, 16]), (&names[1], &[inner, 2])]);
    let name = "model.layers.0.mlp.up_proj.weight";
    let weights = |checkpoint: Checkpoint| weights::collect(&checkpoint.model).unwrap()[name].values.clone();
    let (before, after) =
        (weights(checkpoint::load(&base, &flex()).unwrap()), weights(load(&base, &adapter, &flex()).unwrap()));
    assert!(before.iter().zip(&after).all(|(before, after)| (after - before - 0.5).abs() < 1e-6));
}

#[test]
fn a_tied_matrix_is_changed_where_it_is_said() {
    let (folder, base) = model();
    let embedding = "model.embed_tokens";
    let names = [format!("{embedding}.lora_embedding_A"), format!("{embedding}.lora_embedding_B")];
    let adapter = write(folder.path(), &lora(), &[(&names[0], &[2, 11]), (&names[1], &[16, 2])]);
    let before = weights::collect(&checkpoint::load(&base, &flex()).unwrap().model).unwrap();
    let loaded = load(&base, &adapter, &flex()).unwrap();
    assert!(!loaded.model.config().tie_word_embeddings);
    let after = weights::collect(&loaded.model).unwrap();
    let embedding = format!("{embedding}.weight");
    assert_eq!(after["lm_head.weight"].values, before[&embedding].values);
    assert!((after[&embedding].values[3] - before[&embedding].values[3] - 2.0).abs() < 1e-6);

    let adapter = write(folder.path(), &lora(), &[("lm_head.weight", &[11, 16])]);
    let after = weights::collect(&load(&base, &adapter, &flex()).unwrap().model).unwrap();
    assert_eq!(after["lm_head.weight"].values, [0.5; 176]);
    assert_eq!(after[&embedding].values, before[&embedding].values);
}

#[test]
fn a_wrong_adapter_is_an_error_that_says_what_is_wrong() {
    let (folder, base) = model();
    let (a, b) = (format!("{Q}.lora_A.weight"), format!("{Q}.lora_B.weight"));
    let whole: [(&str, &[usize]); 2] = [(&a, &[2, 16]), (&b, &[16, 2])];
    let refused = |config: &serde_json::Value, tensors: &[(&str, &[usize])], part: &str| {
        let adapter = write(folder.path(), config, tensors);
        let error = load(&base, &adapter, &flex()).unwrap_err();
        assert!(error.to_string().contains(part) && error.hint().is_some(), "{error}, not {part}");
    };
    let with = |key: &str, value: serde_json::Value| {
        let mut config = lora();
        config[key] = value;
        config
    };
    refused(&with("peft_type", "IA3".into()), &whole, "`peft_type` \"IA3\"");
    refused(&with("lora_alpha", "much".into()), &whole, "`lora_alpha`");
    refused(&with("lora_bias", true.into()), &whole, "`lora_bias`");
    refused(&with("trainable_token_indices", serde_json::json!([1])), &whole, "`trainable_token_indices`");
    refused(&with("init_lora_weights", "pissa_niter_4".into()), &whole, "pissa_niter_4");
    refused(&with("alpha_pattern", serde_json::json!({ "(": 1 })), &whole, "regular expression");
    refused(&lora(), &[], "holds no tensors");
    refused(&lora(), &whole[..1], "no B");
    refused(&lora(), &whole[1..], "no A");
    refused(&lora(), &[(&a, &[3, 16]), (&b, &[16, 2])], "rank 3");
    refused(&lora(), &[(&a, &[2, 8]), (&b, &[16, 2])], "[16, 8]; the model's is [16, 16]");
    refused(&lora(), &[("model.layers.7.mlp.up_proj.lora_A.weight", &[2, 16])], "another model");
    let magnitude = format!("{Q}.lora_magnitude_vector");
    refused(&lora(), &[(&magnitude, &[16])], "DoRA");
    let unknown = format!("{Q}.lora_C.weight");
    refused(&lora(), &[(&unknown, &[16])], "not known");
    refused(&lora(), &[("model.norm.bias", &[16])], "no `model.norm.bias`");
    let again = format!("{Q}.lora_A.default.weight");
    refused(&lora(), &[(&a, &[2, 16]), (&again, &[2, 16]), (&b, &[16, 2])], "only one");
    refused(&with("alpha_pattern", serde_json::json!({ "q_proj": "2" })), &whole, "`alpha_pattern`");
    fs_err::write(folder.path().join("adapter/adapter_config.json"), "{").unwrap();
    assert!(load(&base, &folder.path().join("adapter"), &flex()).unwrap_err().to_string().contains("is not JSON"));

    // A key that nobody knows has no effect, and is told.
    let adapter = write(folder.path(), &with("use_something", true.into()), &whole);
    assert!(load(&base, &adapter, &flex()).unwrap().warnings[0].contains("`use_something`"));
}

#[test]
fn an_adapter_may_name_its_model() {
    let (folder, base) = model();
    let mut config = lora();
    config["base_model_name_or_path"] = base.to_str().unwrap().into();
    let adapter = write(folder.path(), &config, &[]);
    assert_eq!(base_of(&adapter), Some(base.clone()));
    assert_eq!(base_of(&base), None);
    config["base_model_name_or_path"] = "../model".into();
    write(folder.path(), &config, &[]);
    assert_eq!(base_of(&adapter), Some(adapter.join("../model")));
    config["base_model_name_or_path"] = "somebody/elses".into();
    write(folder.path(), &config, &[]);
    assert_eq!(base_of(&adapter), None);
}

#[test]
fn what_is_trained_is_saved_as_peft_does_and_read_back() {
    let prompt = Tensor::<2, Int>::from_data(TensorData::new(vec![1i32, 5, 2, 9, 4, 7], [1, 6]), &flex());
    for (preset, tied) in [(Preset::Llama, false), (Preset::Qwen3, true), (Preset::Gpt2, true)] {
        let options = ModelOptions {
            preset,
            hidden_size: Some(16),
            num_hidden_layers: Some(2),
            num_attention_heads: Some(4),
            tie_word_embeddings: Some(tied),
            ..ModelOptions::default()
        };
        let base = init::initialize(LanguageModel::new(&options.resolve(23, 12), &flex()).unwrap(), 3);
        let folder = tempfile::tempdir().unwrap();
        let [path, adapter] = ["base", "adapter"].map(|name| folder.path().join(name));
        fs_err::create_dir_all(&path).unwrap();
        fs_err::create_dir_all(&adapter).unwrap();
        let tokenizer = Tokenizer::char_level(&('a'..='w').collect(), false).unwrap();
        checkpoint::save(&System, &path, &base, &tokenizer).unwrap();
        for (targets, saved, is_rank_stabilized) in [
            (vec!["q_proj", "v_proj"], vec![], false),
            (vec!["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"], vec!["norm"], true),
            (vec!["o_proj"], if tied { vec!["embed_tokens"] } else { vec!["embed_tokens", "lm_head"] }, false),
        ] {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let (targets, modules_to_save) = (names(&targets), names(&saved));
            let lora = LoraOptions { rank: 3, alpha: 5.0, is_rank_stabilized, targets, modules_to_save };
            let model = base.clone().with_lora(&lora, 1).unwrap();
            let logits = |model: &LanguageModel| model.forward(prompt.clone(), None);
            let difference = |a: Tensor<3>, b: Tensor<3>| (a - b).abs().max().into_scalar::<f32>();
            assert_eq!(logits(&model).into_data(), logits(&base).into_data(), "an adapter begins without effect");

            // As after some steps: whatever is trained has other values.
            let model = parameters::map(model, &mut Shifted(&lora));
            save(&System, &adapter, &model, &lora, "base").unwrap();
            let merged = load(&path, &adapter, &flex()).unwrap().model;
            assert!(difference(logits(&model), logits(&base)) > 1e-2);
            // f32 sums in another order
            assert!(difference(logits(&model), logits(&merged)) < 1e-5, "{preset:?} {lora:?}");
            assert!(difference(logits(&model.clone().merged()), logits(&merged)) < 1e-5);
            let again = restore(base.clone().with_lora(&lora, 2).unwrap(), &lora, &adapter).unwrap();
            assert_eq!(logits(&again).into_data(), logits(&model).into_data());
        }
        let unknown = LoraOptions {
            rank: 1,
            alpha: 1.0,
            is_rank_stabilized: false,
            targets: vec!["c_attn".to_owned()],
            modules_to_save: vec![],
        };
        assert!(base.with_lora(&unknown, 1).unwrap_err().to_string().contains("`c_attn`"));
    }
}

/// Adds small numbers to what an adapter trains.
struct Shifted<'a>(&'a LoraOptions);

impl parameters::ParameterMapper for Shifted<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.0.trains(name) {
            return param;
        }
        param.map(|weight| {
            let shape = weight.shape();
            let values: Vec<f32> =
                (0..shape.num_elements()).map(|i| ((i * 7 + name.len()) % 11) as f32 / 40.0 - 0.1).collect();
            weight + Tensor::from_data(TensorData::new(values, shape), &flex())
        })
    }
}

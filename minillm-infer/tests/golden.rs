//! Equality with transformers and with a trained model's published text, on every device of this build.
//!
//! The models in `tests/models` are tiny and random, made by `tools/make_models.py`; between them they have every feature
//! that is imported. More of them, and a trained one, lie beside the checkout where the project is developed.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::safetensors::SafeTensors;
use burn::tensor::{Device, Int, Tensor, TensorData};
use minillm_infer::device;
use minillm_infer::generate::Tokens;
use minillm_infer::sampling::Sampling;
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::naming::Naming;
use minillm_model::checkpoint::weights::{self, HostTensors};
use minillm_model::checkpoint::{self, Checkpoint, safetensors};
use minillm_model::config::{AttentionBias, ModelConfig};
use minillm_model::decoder::LanguageModel;
use minillm_model::kv_cache::KvCache;

/// f32 noise is below 6e-5 here; a wrong formula is off by more than 1e-3.
const TOLERANCE: f64 = 1e-4;
/// What a feature changes at least, if it is computed at all.
const NOTICED: f64 = 1e-3;

fn shared(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")).join(path);
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

/// The directories of all models with transformers' logits.
fn models() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let folders = [Some(own), shared("golden")];
    let entries = folders.into_iter().flatten().flat_map(|folder| fs_err::read_dir(folder).unwrap());
    let mut models: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    models.sort();
    assert!(models.len() >= 12, "{models:?}");
    models
}

/// One device of each backend of this build.
fn devices() -> Vec<(String, Device)> {
    let found = device::list().into_iter().map(|found| (found.name, found.device));
    found.filter(|(name, _)| !name.contains(':') || name.ends_with(":0")).collect()
}

struct Golden {
    ids: Vec<i32>,
    /// Of one pass over everything.
    logits: Vec<f64>,
    /// Of one token at a time, where that is not the same: with dynamic scaling.
    stepwise: Option<Vec<f64>>,
    shape: [usize; 2],
}

impl Golden {
    fn read(model: &Path) -> Self {
        let bytes = fs_err::read(model.join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let ids = file.tensor("input_ids").unwrap();
        let numbers = |name| {
            let data = file.tensor(name).ok()?.data().to_vec();
            Some(data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>())
        };
        Self {
            ids: ids.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect(),
            logits: numbers("logits_f64").unwrap(),
            stepwise: numbers("stepwise_f64"),
            shape: ids.shape().try_into().unwrap(),
        }
    }

    fn input(&self, device: &Device) -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(self.ids.clone(), self.shape), device)
    }

    /// The largest difference of one pass of `model` from transformers.
    fn whole(&self, model: &LanguageModel) -> f64 {
        largest_difference(model.forward(self.input(&model.device()), None), &self.logits)
    }

    /// The same, one token at a time.
    fn stepwise(&self, model: &LanguageModel) -> f64 {
        let ([b, t], device) = (self.shape, model.device());
        let mut cache = KvCache::new(model.config(), b, t, &device);
        let step = |at| model.forward(self.input(&device).narrow(1, at, 1), Some(&mut cache));
        let logits = Tensor::cat((0..t).map(step).collect(), 1);
        largest_difference(logits, self.stepwise.as_ref().unwrap_or(&self.logits))
    }
}

fn largest_difference(logits: Tensor<3>, expected: &[f64]) -> f64 {
    let logits = logits.try_into_vec_as::<f32>().unwrap();
    assert_eq!(logits.len(), expected.len());
    logits.iter().zip(expected).map(|(got, expected)| (f64::from(*got) - expected).abs()).fold(0.0, f64::max)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn every_family_and_feature_gives_transformers_logits() {
    for (device_name, device) in devices() {
        for path in models() {
            let loaded = checkpoint::load(&path, &device).unwrap();
            let golden = Golden::read(&path);
            let model = name(&path);
            let whole = golden.whole(&loaded.model);
            assert!(whole < TOLERANCE, "{device_name}, {model}: {whole:e}");
            let stepwise = golden.stepwise(&loaded.model);
            assert!(stepwise < TOLERANCE, "{device_name}, {model}, token by token: {stepwise:e}");
            println!("{device_name:<10} {model:<24} {whole:.1e}, token by token {stepwise:.1e}");
        }
    }
}

/// The model with one feature less: another config, and the weights that it still has a place for.
fn without(loaded: &Checkpoint, config: &ModelConfig, keep: impl Fn(&str) -> bool) -> LanguageModel {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors: HostTensors =
        weights::collect(&loaded.model).unwrap().into_iter().filter(|(name, _)| keep(name)).collect();
    weights::write(&System, &path, &tensors).unwrap();
    weights::load_from(&safetensors::open(&path).unwrap(), Naming::Llama, config, &loaded.model.device()).unwrap()
}

/// The names of a model's features, each with the config that lacks it.
fn features(config: &ModelConfig) -> BTreeMap<&'static str, ModelConfig> {
    let mut features = BTreeMap::new();
    let mut add = |has: bool, name, change: &dyn Fn(&mut ModelConfig)| {
        if has {
            let mut config = config.clone();
            change(&mut config);
            features.insert(name, config);
        }
    };
    add(config.rope_scaling.is_some(), "scaling", &|config| config.rope_scaling = None);
    add(config.sliding_window.is_some(), "window", &|config| config.sliding_window = None);
    add(config.max_window_layers > 0, "full layers", &|config| config.max_window_layers = 0);
    add(config.attention_bias != AttentionBias::None, "attention bias", &|config| {
        config.attention_bias = AttentionBias::None;
    });
    add(config.mlp_bias, "mlp bias", &|config| config.mlp_bias = false);
    add(config.qk_norm, "q/k norm", &|config| config.qk_norm = false);
    add(true, "epsilon", &|config| config.norm_eps *= 100.0);
    features
}

/// Transformers' logits are a proof only if they depend on what is tested: every feature of every model, left out, must
/// show.
#[test]
fn a_feature_left_out_is_noticed() {
    let device = Device::flex();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for path in models() {
        let loaded = checkpoint::load(&path, &device).unwrap();
        let golden = Golden::read(&path);
        for (feature, config) in features(loaded.model.config()) {
            let is_bias = |tensor: &str| tensor.rsplit('.').next() == Some("bias");
            let keep = |tensor: &str| match feature {
                "attention bias" => !(tensor.contains("self_attn") && is_bias(tensor)),
                "mlp bias" => tensor.contains("self_attn") || !is_bias(tensor),
                "q/k norm" => !tensor.contains("q_norm") && !tensor.contains("k_norm"),
                _ => true,
            };
            let difference = golden.whole(&without(&loaded, &config, keep));
            let model = name(&path);
            assert!(difference > NOTICED, "{model} without {feature}: {difference:e}");
            *seen.entry(feature).or_default() += 1;
            println!("{model:<24} without {feature:<16} {difference:.1e}");
        }
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
}

#[test]
fn a_trained_model_tells_its_published_story() {
    let Some(folder) = shared("data/stories260K") else { return };
    let text = fs_err::read_to_string(folder.join("golden_greedy_ids.json")).unwrap();
    let published: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids = published.get("ids").unwrap_or(&published);
    let published: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
    // With or without the prompt, id 1, in front.
    let published = published.strip_prefix(&[1]).unwrap_or(&published);
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    for (name, device) in devices() {
        let loaded = checkpoint::load(&folder.join("hf"), &device).unwrap();
        let tokens = Tokens::new(&loaded.model, &[1], published.len(), &greedy).unwrap();
        let generated: Vec<u32> = tokens.map(Result::unwrap).collect();
        assert_eq!(generated, published, "{name}, with the cache");

        // Without the cache: one pass over the whole text, in which every next token must be the likeliest.
        let input: Vec<i32> = [1].into_iter().chain(published.iter().map(|&id| id as i32)).collect();
        let length = input.len();
        let input = Tensor::<2, Int>::from_data(TensorData::new(input, [1, length]), &device);
        let logits = loaded.model.forward(input, None).try_into_vec_as::<f32>().unwrap();
        let likeliest = logits.chunks(loaded.model.config().vocab_size).map(minillm_infer::sampling::argmax);
        let generated: Vec<u32> = likeliest.take(published.len()).collect();
        assert_eq!(generated, published, "{name}, without the cache");
    }
}

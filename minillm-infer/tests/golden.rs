//! Equality with transformers and with a trained model's published text, on every device of this build.
//!
//! The models lie beside the checkout where the project is developed; where they do not, these tests have nothing to
//! compare with and say so. What they prove without files is in `minillm-model/tests`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use minillm_infer::device;
use minillm_infer::generate::Tokens;
use minillm_infer::sampling::Sampling;
use minillm_model::checkpoint;
use minillm_model::kv_cache::KvCache;
use safetensors::SafeTensors;

const MODELS: [&str; 7] =
    ["gpt2", "llama_gqa_tied", "llama_mha", "llama_rope_llama3", "mistral", "qwen2", "qwen3_tied"];

/// f32 noise is below 2e-5 here; a wrong formula is off by more than 1e-3.
const TOLERANCE: f64 = 1e-4;

fn shared(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")).join(path);
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

/// One device of each backend of this build.
fn devices() -> Vec<(String, Device)> {
    let found = device::list().into_iter().map(|found| (found.name, found.device));
    found.filter(|(name, _)| !name.contains(':') || name.ends_with(":0")).collect()
}

struct Golden {
    ids: Vec<i32>,
    logits: Vec<f64>,
    shape: [usize; 2],
}

fn golden(path: &std::path::Path) -> Golden {
    let bytes = fs_err::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("input_ids").unwrap();
    let logits = file.tensor("logits_f64").unwrap();
    Golden {
        ids: ids.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect(),
        logits: logits.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        shape: ids.shape().try_into().unwrap(),
    }
}

fn largest_difference(logits: Tensor<3>, expected: &[f64]) -> f64 {
    let logits = logits.try_into_vec_as::<f32>().unwrap();
    assert_eq!(logits.len(), expected.len());
    logits.iter().zip(expected).map(|(got, expected)| (f64::from(*got) - expected).abs()).fold(0.0, f64::max)
}

#[test]
fn seven_families_give_transformers_logits() {
    let Some(folder) = shared("golden") else { return };
    for (name, device) in devices() {
        for model in MODELS {
            let loaded = checkpoint::load(&folder.join(model), &device).unwrap();
            let golden = golden(&folder.join(model).join("golden.safetensors"));
            let ids = Tensor::<2, Int>::from_data(TensorData::new(golden.ids, golden.shape), &device);
            let [b, t] = golden.shape;

            let whole = largest_difference(loaded.model.forward(ids.clone(), None), &golden.logits);
            assert!(whole < TOLERANCE, "{name}, {model}: {whole:e}");

            let mut cache = KvCache::new(&loaded.config, b, t, &device);
            let step = |at| loaded.model.forward(ids.clone().narrow(1, at, 1), Some(&mut cache));
            let stepwise = largest_difference(Tensor::cat((0..t).map(step).collect(), 1), &golden.logits);
            assert!(stepwise < TOLERANCE, "{name}, {model}, token by token: {stepwise:e}");
            println!("{name:<10} {model:<20} {whole:.1e}, token by token {stepwise:.1e}");
        }
    }
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
        let tokens = Tokens::new(&loaded.model, &loaded.config, &device, &[1], published.len(), &greedy).unwrap();
        let generated: Vec<u32> = tokens.map(Result::unwrap).collect();
        assert_eq!(generated, published, "{name}, with the cache");

        // Without the cache: one pass over the whole text, in which every next token must be the likeliest.
        let input: Vec<i32> = [1].into_iter().chain(published.iter().map(|&id| id as i32)).collect();
        let length = input.len();
        let input = Tensor::<2, Int>::from_data(TensorData::new(input, [1, length]), &device);
        let logits = loaded.model.forward(input, None).try_into_vec_as::<f32>().unwrap();
        let likeliest = logits.chunks(loaded.config.vocab_size).map(minillm_infer::sampling::argmax);
        let generated: Vec<u32> = likeliest.take(published.len()).collect();
        assert_eq!(generated, published, "{name}, without the cache");
    }
}

//! `run-in-candle DIRECTORY COUNT ID...`: COUNT greedy tokens after a prompt of ids, printed on one line.

use std::error::Error;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2, qwen3};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = Path::new(&arguments[0]);
    let count: usize = arguments[1].parse()?;
    let mut ids = arguments[2..].iter().map(|id| id.parse()).collect::<Result<Vec<u32>, _>>()?;

    let device = Device::Cpu;
    let config = std::fs::read_to_string(directory.join("config.json"))?;
    let weights = directory.join("model.safetensors");
    // SAFETY: nobody changes the file meanwhile.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[weights], DType::F32, &device)? };
    let model_type = serde_json::from_str::<serde_json::Value>(&config)?["model_type"].clone();
    let mut forward: Box<dyn FnMut(&Tensor) -> candle_core::Result<Tensor>> = match model_type.as_str() {
        Some("llama") => {
            let config = serde_json::from_str::<llama::LlamaConfig>(&config)?.into_config(false);
            let model = llama::Llama::load(weights, &config)?;
            let device = device.clone();
            Box::new(move |input| model.forward(input, 0, &mut llama::Cache::new(false, DType::F32, &config, &device)?))
        }
        Some("qwen2") => {
            let mut model = qwen2::ModelForCausalLM::new(&serde_json::from_str(&config)?, weights)?;
            Box::new(move |input| {
                model.clear_kv_cache();
                model.forward(input, 0)
            })
        }
        Some("qwen3") => {
            let mut model = qwen3::ModelForCausalLM::new(&serde_json::from_str(&config)?, weights)?;
            Box::new(move |input| {
                model.clear_kv_cache();
                model.forward(input, 0)
            })
        }
        other => return Err(format!("{other:?} is not tried here").into()),
    };
    for _ in 0..count {
        let input = Tensor::new(ids.as_slice(), &device)?.unsqueeze(0)?;
        let logits = forward(&input)?.flatten_all()?.to_vec1::<f32>()?;
        let likeliest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let id = likeliest.ok_or("no logits")? as u32;
        ids.push(id);
        print!("{id} ");
    }
    println!();
    Ok(())
}

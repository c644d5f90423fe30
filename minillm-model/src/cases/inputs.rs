//! What the cases compute on: the same numbers on every device, from the project's own random streams.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;

use crate::config::{ModelConfig, ModelOptions, Preset};
use crate::random::stream;

/// Of all random streams here. Another seed needs another file of stored values.
pub const SEED: u64 = 11;

/// `count` numbers between -2 and 2, the same for the same `name`.
pub fn values(count: usize, name: &str) -> Vec<f32> {
    let mut rng = stream(SEED, name);
    (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
}

/// A tensor of such numbers.
pub fn random<const D: usize>(shape: [usize; D], name: &str, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values(shape.iter().product(), name), shape), device)
}

/// One to differentiate by; `device` has autodiff.
pub fn leaf<const D: usize>(shape: [usize; D], name: &str, device: &Device) -> Tensor<D> {
    random(shape, name, device).require_grad()
}

/// Token ids, or targets, row by row.
pub fn ids(values: &[i32], rows: usize, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [rows, values.len() / rows]), device)
}

/// An architecture with layers of D = `hidden_size` and F = `intermediate_size`, for the layers' constructors.
pub fn sized(preset: Preset, hidden_size: usize, intermediate_size: usize, vocab_size: usize) -> ModelConfig {
    let options = ModelOptions {
        preset,
        hidden_size: Some(hidden_size),
        intermediate_size: Some(intermediate_size),
        num_hidden_layers: Some(1),
        num_attention_heads: Some(2),
        ..ModelOptions::default()
    };
    options.resolve(vocab_size, 16)
}

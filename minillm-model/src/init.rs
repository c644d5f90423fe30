//! Every initial value in one table.
//!
//! | parameter | distribution | reason |
//! |---|---|---|
//! | embeddings, learned positions | N(0, r) | r = `initializer_range`, 0.02 in GPT-2 |
//! | matrices | N(0, r) | GPT-2 |
//! | matrices that write into the residual stream (`o_proj`, `down_proj`) | N(0, r / sqrt(2 L)) | 2 L of them add up; the sum keeps its size (GPT-2, section 2.3) |
//! | biases | 0 | |
//! | norm weights | 1 | |
//!
//! Values are drawn on the host, from a ChaCha stream of their own for each parameter name. So every backend starts from
//! the same numbers, and adding a parameter leaves the others as they were.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::decoder::LanguageModel;
use crate::parameters::{self, ParameterMapper};
use crate::random::stream;

/// Gives every parameter its initial value, a pure function of `seed`, the parameter's name and the model's config.
pub fn initialize(model: LanguageModel, seed: u64) -> LanguageModel {
    let config = model.config();
    let residual_writes = 2.0 * config.num_hidden_layers as f64;
    let mut initializer = Initializer {
        seed,
        range: config.initializer_range,
        residual: config.initializer_range / residual_writes.sqrt(),
    };
    parameters::map(model, &mut initializer)
}

struct Initializer {
    seed: u64,
    range: f64,
    residual: f64,
}

impl ParameterMapper for Initializer {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape: [usize; D] = param.lazy_shape().dims();
        let count = shape.iter().product();
        let values = if name.ends_with("bias") {
            vec![0.0; count]
        } else if name.ends_with("norm.weight") {
            vec![1.0; count]
        } else if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            normal(&mut stream(self.seed, name), self.residual, count)
        } else {
            normal(&mut stream(self.seed, name), self.range, count)
        };
        Param::from_data(TensorData::new(values, shape), &param.lazy_device())
    }
}

/// Normally distributed values (Box & Muller 1958: two uniform ones give two normal ones).
fn normal(rng: &mut ChaCha8Rng, deviation: f64, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt(); // 1 - u: the logarithm never sees 0
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        values.push((deviation * radius * angle.cos()) as f32);
        values.push((deviation * radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}

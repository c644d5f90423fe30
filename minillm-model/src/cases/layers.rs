//! The layers between the matrices: norms, rotary embedding, MLPs, embedding, dropout.

use burn::module::Param;
use burn::nn::EmbeddingConfig;

use super::Place;
use super::inputs::{ids, leaf, random, sized};
use super::prepared::{Prepared, to};
use crate::config::{self, ModelConfig, Preset};
use crate::layers;
use crate::layers::context::ForwardContext;
use crate::layers::dropout::{Dropout, dropout};
use crate::layers::gelu_mlp::GeluMlp;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::rope_table::RotaryEmbedding;
use crate::layers::swiglu::Swiglu;

/// In norms: large enough to show in the result.
const EPS: f64 = 1e-3;

/// `x`: `[rows, D]`
pub fn rms_norm([rows, d]: [usize; 2], place: &Place) -> Prepared {
    let (device, context) = (place.device.clone(), ForwardContext::new(place.compute));
    let x = leaf([rows, d], "x", &device);
    let mut norm = RmsNorm::new(d, EPS, &device);
    norm.weight = Param::from_tensor(random([d], "weight", &device));
    let leaves = vec![to("x", &x), to("weight", &norm.weight.val())];
    Prepared::new(leaves, move || layers::rms_norm_forward(&norm, x.clone(), &context))
}

/// `x`: `[rows, D]`, with or without a bias
pub fn layer_norm((rows, d, has_bias): (usize, usize, bool), place: &Place) -> Prepared {
    let (device, context) = (place.device.clone(), ForwardContext::new(place.compute));
    let x = leaf([rows, d], "x", &device);
    let mut norm = LayerNorm::new(d, EPS, has_bias, &device);
    norm.weight = Param::from_tensor(random([d], "weight", &device));
    norm.bias = has_bias.then(|| Param::from_tensor(random([d], "bias", &device)));
    let mut leaves = vec![to("x", &x), to("weight", &norm.weight.val())];
    leaves.extend(norm.bias.as_ref().map(|bias| to("bias", &bias.val())));
    Prepared::new(leaves, move || layers::layer_norm_forward(&norm, x.clone(), &context))
}

/// `x`: `[B 2, T, H, E]` from position `start` on, with the heads brought forward as attention does it: the vectors of a head
/// do not follow one another in memory.
pub fn rotary((heads, t, e, start): (usize, usize, usize, usize), place: &Place) -> Prepared {
    let (device, context) = (place.device.clone(), ForwardContext::new(place.compute));
    let config = ModelConfig { head_dim: e, ..sized(Preset::Llama, 16, 8, 7) };
    let rotation = RotaryEmbedding::new(&config, &device).at(start, t);
    let x = leaf([2, t, heads, e], "x", &device);
    Prepared::new(vec![to("x", &x)], move || layers::rotate(&rotation, x.clone().swap_dims(1, 2), &context))
}

/// `x`: `[B 1, T, D 8]`, F as given
pub fn swiglu((t, f): (usize, usize), place: &Place) -> Prepared {
    let (device, context) = (place.device.clone(), ForwardContext::new(place.compute));
    let mut mlp = Swiglu::new(&sized(Preset::Llama, 8, f, 7), &device);
    mlp.gate_proj.weight = Param::from_tensor(random([8, f], "gate", &device));
    mlp.up_proj.weight = Param::from_tensor(random([8, f], "up", &device));
    mlp.down_proj.weight = Param::from_tensor(random([f, 8], "down", &device));
    let x = leaf([1, t, 8], "x", &device);
    let (gate, up) = (mlp.gate_proj.weight.val(), mlp.up_proj.weight.val());
    let leaves = vec![to("x", &x), to("gate_proj", &gate), to("up_proj", &up)];
    Prepared::new(leaves, move || layers::swiglu_forward(&mlp, x.clone(), &context))
}

/// `x`: `[B 1, T, D 8]`, F as given, with this activation between the matrices
pub fn mlp(activation: config::MlpKind, (t, f): (usize, usize), place: &Place) -> Prepared {
    let (device, context) = (place.device.clone(), ForwardContext::new(place.compute));
    let config = ModelConfig { mlp: activation, mlp_bias: false, ..sized(Preset::Gpt2, 8, f, 7) };
    let mut mlp = GeluMlp::new(&config, &device);
    mlp.up_proj.weight = Param::from_tensor(random([8, f], "up", &device));
    mlp.down_proj.weight = Param::from_tensor(random([f, 8], "down", &device));
    let x = leaf([1, t, 8], "x", &device);
    let leaves = vec![to("x", &x), to("up_proj", &mlp.up_proj.weight.val())];
    Prepared::new(leaves, move || layers::gelu_mlp_forward(&mlp, x.clone(), &context))
}

/// 12 tokens of 11, so that some come twice and their gradients have to be added; D 8
pub fn embedding((): (), Place { device, .. }: &Place) -> Prepared {
    let mut embedding = EmbeddingConfig::new(11, 8).init(device);
    embedding.weight = Param::from_tensor(random([11, 8], "weight", device));
    let tokens = ids(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], 2, device);
    let leaves = vec![to("weight", &embedding.weight.val())];
    Prepared::new(leaves, move || embedding.forward(tokens.clone()))
}

/// `x`: `[B 2, T 5, D 8]`. The masks are hashes of integers, which a device must multiply and shift as all others do.
pub fn dropped((): (), Place { device, .. }: &Place) -> Prepared {
    let x = leaf([2, 5, 8], "x", device);
    Prepared::new(vec![to("x", &x)], move || dropout(x.clone(), &Dropout::new(0.3, vec![5, 17])))
}

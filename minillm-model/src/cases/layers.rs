//! The layers between the matrices: norms, rotary embedding, MLPs, embedding, dropout.

use burn::module::Param;
use burn::nn::EmbeddingConfig;

use super::Place;
use super::inputs::{ids, leaf, random, sized};
use super::prepared::{Prepared, to};
use crate::config::{self, ModelConfig, Preset};
use crate::layers;
use crate::layers::attention::Attention;
use crate::layers::context::ForwardContext;
use crate::layers::dropout::Dropout;
use crate::layers::gelu_mlp::GeluMlp;
use crate::layers::gpu::{attention_forward, dropout_forward, embedding_forward};
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

/// 12 tokens of 11, so that some come twice and their gradients have to be added; or `times` as many; D as given
pub fn embedding((times, d): (usize, usize), place: &Place) -> Prepared {
    let (device, context) = (place.device.clone(), ForwardContext::new(place.compute));
    let mut embedding = EmbeddingConfig::new(11, d).init(&device);
    embedding.weight = Param::from_tensor(random([11, d], "weight", &device));
    let tokens = ids(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8].repeat(times), 2, &device);
    let leaves = vec![to("weight", &embedding.weight.val())];
    Prepared::new(leaves, move || embedding_forward(&embedding, tokens.clone(), &context))
}

/// `x`: `[B 2, T, D]`. The masks are hashes of integers, which a device must multiply and shift as all others do.
pub fn dropped((t, d): (usize, usize), Place { device, compute, .. }: &Place) -> Prepared {
    let x = leaf([2, t, d], "x", device);
    let drop = Dropout::new(0.3, vec![5, 17]);
    let drop = if compute.dropout { drop.on_device(0, device) } else { drop };
    Prepared::new(vec![to("x", &x)], move || dropout_forward(x.clone(), &drop))
}

/// `x`: `[B 2, T, D 2 H E]`: the whole sub-layer, from its input to its output, rotated or with biases and not, with `rate` of the weights dropped.
pub fn attention_layer(
    (heads, key_heads, t, e, window, rotated, rate): (usize, usize, usize, usize, Option<usize>, bool, f64),
    place: &Place,
) -> Prepared {
    let (device, d) = (place.device.clone(), heads * e);
    let preset = if rotated { Preset::Llama } else { Preset::Gpt2 };
    let config = ModelConfig {
        num_attention_heads: heads,
        num_key_value_heads: key_heads,
        head_dim: e,
        sliding_window: window,
        max_position_embeddings: t,
        ..sized(preset, d, 8, 7)
    };
    let mut attention = Attention::new(&config, 0, &device);
    let mut leaves = Vec::new();
    let x = leaf([2, t, d], "x", &device);
    leaves.push(to("x", &x));
    for (name, linear) in [
        ("q_proj", &mut attention.q_proj),
        ("k_proj", &mut attention.k_proj),
        ("v_proj", &mut attention.v_proj),
        ("o_proj", &mut attention.o_proj),
    ] {
        // Small enough that no softmax is all at one place.
        linear.weight = Param::from_tensor(random(linear.weight.val().dims(), name, &device) / d as f64);
        leaves.push(to(name, &linear.weight.val()));
        if let Some(bias) = &mut linear.bias {
            *bias = Param::from_tensor(random(bias.val().dims(), &format!("{name} bias"), &device));
        }
    }
    let rotation = rotated.then(|| RotaryEmbedding::new(&config, &device).at(0, t));
    let context = ForwardContext::at(place.compute, rotation, window, Dropout::off());
    let drop = Dropout::new(rate, vec![3, 11]);
    let drop = if place.compute.dropout { drop.on_device(2, &device) } else { drop }.in_block(1, 0);
    Prepared::new(leaves, move || attention_forward(&attention, x.clone(), None, &drop, &context))
}

//! The layers between the matrices: norms, rotary embedding, MLPs, embedding, dropout.

use burn::module::Param;
use burn::nn::EmbeddingConfig;
use minillm_model::config::{Mlp, ModelConfig, Preset};
use minillm_model::layers::dropout::{Dropout, dropout};
use minillm_model::layers::gelu_mlp::GeluMlp;
use minillm_model::layers::layer_norm::LayerNorm;
use minillm_model::layers::linear::Linear;
use minillm_model::layers::rms_norm::RmsNorm;
use minillm_model::layers::rope::RotaryEmbedding;
use minillm_model::layers::swiglu::Swiglu;

use crate::doctor::check::{Computed, Setting};
use crate::doctor::inputs::{both_ways, ids, leaf, random, sized, to};

/// In norms: large enough to show in the result.
const EPS: f64 = 1e-3;

/// `x`: `[5, 33]`
pub fn rms_norm(Setting { device, kernels, .. }: &Setting) -> Computed {
    let x = leaf([5, 33], "x", device);
    let mut norm = RmsNorm::new(33, EPS, device);
    (norm.kernels, norm.weight) = (*kernels, Param::from_tensor(random([33], "weight", device)));
    both_ways(norm.forward(x.clone()), &[to("x", &x), to("weight", &norm.weight.val())])
}

/// `x`: `[5, 33]`
pub fn layer_norm(Setting { device, kernels, .. }: &Setting) -> Computed {
    let x = leaf([5, 33], "x", device);
    let bias = Param::from_tensor(random([33], "bias", device));
    let mut norm = LayerNorm::new(33, EPS, true, device);
    (norm.kernels, norm.weight) = (*kernels, Param::from_tensor(random([33], "weight", device)));
    norm.bias = Some(bias.clone());
    let out = norm.forward(x.clone());
    both_ways(out, &[to("x", &x), to("weight", &norm.weight.val()), to("bias", &bias.val())])
}

/// `x`: `[B 2, T 5, H 3, E 8]` with the heads brought forward as attention does it: the vectors of a head do not lie
/// side by side.
pub fn rotary(Setting { device, kernels, .. }: &Setting) -> Computed {
    let config = ModelConfig { head_dim: 8, ..sized(Preset::Llama, 16, 8, 7) };
    let mut rope = RotaryEmbedding::new(&config, device);
    rope.kernels = *kernels;
    let x = leaf([2, 5, 3, 8], "x", device);
    both_ways(rope.at(2, 5).apply(x.clone().swap_dims(1, 2)), &[to("x", &x)])
}

/// `x`: `[B 1, T 5, D 8]`, F 17
pub fn swiglu(setting: &Setting) -> Computed {
    let Setting { device, kernels, .. } = setting;
    let mut mlp = Swiglu::new(&sized(Preset::Llama, 8, 17, 7), device);
    mlp.kernels = *kernels;
    fill(&mut mlp.gate_proj, [8, 17], "gate", setting);
    fill(&mut mlp.up_proj, [8, 17], "up", setting);
    fill(&mut mlp.down_proj, [17, 8], "down", setting);
    let x = leaf([1, 5, 8], "x", device);
    let (gate, up) = (mlp.gate_proj.weight.val(), mlp.up_proj.weight.val());
    both_ways(mlp.forward(x.clone()), &[to("x", &x), to("gate_proj", &gate), to("up_proj", &up)])
}

/// `x`: `[B 1, T 5, D 8]`, F 17, with `curve` between the matrices
pub fn mlp(curve: Mlp, setting: &Setting) -> Computed {
    let Setting { device, kernels, .. } = setting;
    let config = ModelConfig { mlp: curve, mlp_bias: false, ..sized(Preset::Gpt2, 8, 17, 7) };
    let mut mlp = GeluMlp::new(&config, device);
    mlp.kernels = *kernels;
    fill(&mut mlp.up_proj, [8, 17], "up", setting);
    fill(&mut mlp.down_proj, [17, 8], "down", setting);
    let x = leaf([1, 5, 8], "x", device);
    let up = mlp.up_proj.weight.val();
    both_ways(mlp.forward(x.clone()), &[to("x", &x), to("up_proj", &up)])
}

/// 12 tokens of 11, so that some come twice and their gradients have to be added; D 8
pub fn embedding(Setting { device, .. }: &Setting) -> Computed {
    let mut embedding = EmbeddingConfig::new(11, 8).init(device);
    embedding.weight = Param::from_tensor(random([11, 8], "weight", device));
    let tokens = ids(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], 2, device);
    both_ways(embedding.forward(tokens), &[to("weight", &embedding.weight.val())])
}

/// `x`: `[B 2, T 5, D 8]`. The masks are hashes of integers, which a device must multiply and shift as all others do.
pub fn dropped(Setting { device, .. }: &Setting) -> Computed {
    let x = leaf([2, 5, 8], "x", device);
    both_ways(dropout(x.clone(), &Dropout::new(0.3, vec![5, 17])), &[to("x", &x)])
}

/// Random weights of `[input, output]`, and the setting's kernels.
fn fill(linear: &mut Linear, shape: [usize; 2], name: &str, setting: &Setting) {
    linear.weight = Param::from_tensor(random(shape, name, &setting.device));
    linear.kernels = setting.kernels;
}

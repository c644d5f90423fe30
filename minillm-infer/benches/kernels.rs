//! Each fast form beside the layer's own lines, forward and backward, on the first CPU backend of the build:
//! `cargo bench -p minillm-infer`. The sizes are those of a model 384 wide with 6 heads and 4 sequences of 256 tokens.

#![allow(missing_docs)]

use burn::tensor::{Device, Int, Tensor, TensorData};
use divan::Bencher;
use minillm_infer::device;
use minillm_model::config::{ModelConfig, ModelOptions};
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::layers::attention::grouped_attention;
use minillm_model::layers::causal_mask::CausalMask;
use minillm_model::layers::dropout::Dropout;
use minillm_model::layers::linear::Linear;
use minillm_model::layers::rms_norm::RmsNorm;
use minillm_model::layers::rope::RotaryEmbedding;
use minillm_model::ops::{self, Kernels};
use minillm_model::random::stream;
use rand::RngExt;

const FORMS: [&str; 2] = ["readable", "fast"];
const B: usize = 4;
const T: usize = 256;
const D: usize = 384;
const H: usize = 6;
const E: usize = 64;

/// Burn allocates and frees a tensor for each operation, as in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn device() -> Device {
    device::open("auto").expect("a device").device
}

fn kernels(form: &str) -> Kernels {
    if form == "fast" { Kernels::fastest(&device()) } else { Kernels::READABLE }
}

fn random<const N: usize>(shape: [usize; N], device: &Device) -> Tensor<N> {
    let mut rng = stream(1, "bench");
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Forward and backward of `form` from `x`.
fn both_ways<const N: usize>(bencher: Bencher, x: Tensor<N>, form: impl Fn(Tensor<N>) -> Tensor<N>) {
    let leaf = Tensor::from_inner(x).require_grad();
    bencher.bench_local(|| {
        let gradients = form(leaf.clone()).sum().backward();
        leaf.grad(&gradients)
    });
}

#[divan::bench(args = FORMS)]
fn rms_norm(bencher: Bencher, form: &str) {
    let mut norm = RmsNorm::new(D, 1e-5, &device().autodiff());
    norm.kernels = kernels(form);
    both_ways(bencher, random([B, T, D], &device()), |x| norm.forward(x));
}

#[divan::bench(args = FORMS)]
fn rotary(bencher: Bencher, form: &str) {
    let mut rope = RotaryEmbedding::new(&config(), &device().autodiff());
    rope.kernels = kernels(form);
    let rotation = rope.at(0, T);
    both_ways(bencher, random([B, H, T, E], &device()), |x| rotation.apply(x));
}

#[divan::bench(args = FORMS)]
fn swiglu(bencher: Bencher, form: &str) {
    let fast = kernels(form).activation;
    both_ways(bencher, random([B, T, 1024], &device()), |x| {
        if fast { ops::swiglu::swiglu(x.clone(), x) } else { burn::tensor::activation::silu(x.clone()) * x }
    });
}

#[divan::bench(args = FORMS)]
fn attention(bencher: Bencher, form: &str) {
    let fast = kernels(form).attention;
    let mask = CausalMask::new(T, T, None, &device().autodiff());
    both_ways(bencher, random([B, H, T, E], &device()), |x| {
        if fast {
            ops::attention::causal_attention(x.clone(), x.clone(), x, None)
        } else {
            grouped_attention(x.clone(), x.clone(), x, mask.tensor(), &Dropout::off())
        }
    });
}

#[divan::bench(args = FORMS)]
fn cross_entropy(bencher: Bencher, form: &str) {
    let config = ModelConfig { vocab_size: 8192, num_hidden_layers: 1, ..config() };
    let device = device().autodiff();
    let Ok(model) = LanguageModel::new(&config, &device) else { return };
    let model = init::initialize(model, &config, 1).with_kernels(kernels(form));
    let targets = Tensor::<2, Int>::zeros([B, T], &device);
    let hidden = Tensor::from_inner(random([B, T, D], &self::device())).require_grad();
    bencher.bench_local(|| {
        let gradients = model.summed_loss(hidden.clone(), targets.clone()).backward();
        hidden.grad(&gradients)
    });
}

/// All rows through a layer's matrix, which lies as in training: three products.
#[divan::bench(args = FORMS)]
fn product(bencher: Bencher, form: &str) {
    let device = device().autodiff();
    let mut linear = Linear::new(D, 1024, false, &device);
    linear.weight = burn::module::Param::from_tensor(random([D, 1024], &device));
    linear.kernels = kernels(form);
    both_ways(bencher, random([B, T, D], &self::device()), |x| linear.forward(x));
}

/// One row through a matrix that lies as in generation; readable is Burn's product.
#[divan::bench(args = FORMS)]
fn one_row(bencher: Bencher, form: &str) {
    let mut linear = Linear::new(768, 2048, false, &device());
    linear.weight = burn::module::Param::from_tensor(random([2048, 768], &device()).transpose());
    linear.kernels = kernels(form);
    let x = random([1, 1, 768], &device());
    bencher.bench_local(|| linear.forward(x.clone()));
}

fn config() -> ModelConfig {
    let options = ModelOptions {
        hidden_size: Some(D),
        num_attention_heads: Some(H),
        num_key_value_heads: Some(H),
        ..ModelOptions::default()
    };
    options.resolve(65, T)
}

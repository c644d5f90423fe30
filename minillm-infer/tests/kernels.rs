//! Every fast form gives what the layer's own lines give: value and gradients, on every device of this build.

#![allow(missing_docs, clippy::unwrap_used)]

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use minillm_infer::device;
use minillm_model::checkpoint::encoding::Encoding;
use minillm_model::checkpoint::weights;
use minillm_model::config::{Mlp, ModelConfig, ModelOptions, Preset};
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::kv_cache::KvCache;
use minillm_model::layers::attention::grouped_attention;
use minillm_model::layers::causal_mask::CausalMask;
use minillm_model::layers::dropout::Dropout;
use minillm_model::layers::gelu_mlp::GeluMlp;
use minillm_model::layers::layer_norm::LayerNorm;
use minillm_model::layers::rms_norm::RmsNorm;
use minillm_model::layers::rope::RotaryEmbedding;
use minillm_model::layers::swiglu::Swiglu;
use minillm_model::loss::IGNORED;
use minillm_model::ops::{self, AdamWStep, Kernels, Precision};
use minillm_model::parameters::{self, ParameterMapper, ParameterVisitor};
use minillm_model::random::stream;
use rand::RngExt;

/// The largest difference, as a share of the largest value: f32 sums in another order are off by a few 1e-7 each, and
/// the longest here have about a thousand terms. Where all values cancel to zero (the gradient of the keys' bias), the
/// terms that did count as 0.01.
const TOLERANCE: f32 = 1e-5;
const CANCELLED: f32 = 0.01;

/// One device of each backend of this build that has fast forms, with autodiff.
fn devices() -> Vec<(String, Device, Kernels)> {
    let found = device::list().into_iter().map(|found| (found.name, found.device.autodiff()));
    let first = found.filter(|(name, _)| !name.contains(':') || name.ends_with(":0"));
    first.map(|(name, device)| (name, device.clone(), Kernels::fastest(&device))).collect()
}

/// Random numbers between -2 and 2, the same for the same `name`.
fn random<const D: usize>(shape: [usize; D], name: &str, device: &Device) -> Tensor<D> {
    let mut rng = stream(11, name);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-2.0..2.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A tensor to differentiate by.
fn leaf<const D: usize>(shape: [usize; D], name: &str, device: &Device) -> Tensor<D> {
    random(shape, name, device).require_grad()
}

fn close<const D: usize>(what: &str, got: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let largest: f32 = expected.clone().abs().max().into_scalar();
    let difference: f32 = (got - expected).abs().max().into_scalar();
    assert!(
        difference <= TOLERANCE * largest.max(CANCELLED),
        "{what}: off by {difference}, the largest value is {largest}"
    );
}

/// The gradients of the leaves, each flattened.
type ReadGradients = Box<dyn Fn(&Gradients) -> Vec<Tensor<1>>>;

fn gradients<const D: usize, const N: usize>(leaves: [&Tensor<D>; N]) -> ReadGradients {
    let leaves = leaves.map(Clone::clone);
    Box::new(move |gradients| leaves.iter().map(|leaf| leaf.grad(gradients).unwrap().reshape([-1])).collect())
}

/// Runs `form` both ways; compares outputs, and the leaves' gradients of a sum with unequal weights.
fn same<const D: usize>(what: &str, fast: Kernels, form: impl Fn(Kernels) -> (Tensor<D>, ReadGradients)) {
    let run = |kernels| {
        let (out, read) = form(kernels);
        let weights = random(out.dims(), "output weights", &out.device());
        (out.clone().inner(), read(&(out * weights).sum().backward()))
    };
    let ((expected, expected_gradients), (got, gradients)) = (run(Kernels::READABLE), run(fast));
    close(&format!("{what}, value"), got, expected);
    for (index, (got, expected)) in gradients.into_iter().zip(expected_gradients).enumerate() {
        close(&format!("{what}, gradient {index}"), got, expected);
    }
}

#[test]
fn the_cpu_backends_have_all_fast_forms() {
    for (name, _, kernels) in devices() {
        if ["flex", "ndarray"].contains(&name.as_str()) {
            assert_eq!(kernels.ladder().len(), 8, "{name}: {kernels:?}");
        }
        assert_eq!(kernels.ladder().last().unwrap().1, kernels, "{name}");
    }
}

#[test]
fn rms_norm() {
    for (name, device, kernels) in devices().into_iter().filter(|(_, _, kernels)| kernels.norm) {
        // Widths around that of vector registers, and more rows than one piece of shared work has.
        for (rows, d) in [(3, 1), (2, 15), (5, 16), (7, 33), (600, 64)] {
            same(&format!("{name}: {rows} x {d}"), kernels, |kernels| {
                let x = leaf([rows, d], "x", &device);
                let mut norm = RmsNorm::new(d, 1e-3, &device);
                (norm.kernels, norm.weight) = (kernels, Param::from_tensor(random([d], "weight", &device)));
                let out = norm.forward(x.clone());
                let weight = norm.weight.val();
                let read = move |gradients: &Gradients| {
                    vec![x.grad(gradients).unwrap().reshape([-1]), weight.grad(gradients).unwrap()]
                };
                (out, Box::new(read))
            });
        }
    }
}

#[test]
fn layer_norm() {
    for (name, device, kernels) in devices().into_iter().filter(|(_, _, kernels)| kernels.norm) {
        for (rows, d) in [(3, 2), (2, 15), (5, 16), (7, 33), (600, 64)] {
            for has_bias in [true, false] {
                same(&format!("{name}: {rows} x {d}, bias {has_bias}"), kernels, |kernels| {
                    let x = leaf([rows, d], "x", &device);
                    let mut norm = LayerNorm::new(d, 1e-3, has_bias, &device);
                    (norm.kernels, norm.weight) = (kernels, Param::from_tensor(random([d], "weight", &device)));
                    norm.bias = has_bias.then(|| Param::from_tensor(random([d], "bias", &device)));
                    let out = norm.forward(x.clone());
                    let leaves: Vec<_> =
                        [Some(norm.weight), norm.bias].into_iter().flatten().map(|p| p.val()).collect();
                    let read = move |gradients: &Gradients| {
                        let of_x = x.grad(gradients).unwrap().reshape([-1]);
                        leaves.iter().map(|leaf| leaf.grad(gradients).unwrap()).chain([of_x]).collect()
                    };
                    (out, Box::new(read))
                });
            }
        }
    }
}

#[test]
fn activations() {
    for (name, device, kernels) in devices().into_iter().filter(|(_, _, kernels)| kernels.activation) {
        for curve in [Mlp::Gelu, Mlp::Relu2, Mlp::GeluErf] {
            for (t, f) in [(1, 1), (3, 17), (70, 300)] {
                same(&format!("{name}: {curve:?}, {t} x {f}"), kernels, |kernels| {
                    let mut mlp = GeluMlp::new(&ModelConfig { mlp: curve, ..config(Preset::Gpt2, 8, f) }, &device);
                    mlp.kernels = kernels;
                    let weight = |shape, name| Param::from_tensor(random::<2>(shape, name, &device));
                    mlp.up_proj.weight = weight([8, f], "up");
                    mlp.down_proj.weight = weight([f, 8], "down");
                    let x = leaf([1, t, 8], "x", &device);
                    let (up, out) = (mlp.up_proj.weight.val(), mlp.forward(x.clone()));
                    let read = move |gradients: &Gradients| {
                        vec![up.grad(gradients).unwrap().reshape([-1]), x.grad(gradients).unwrap().reshape([-1])]
                    };
                    (out, Box::new(read))
                });
            }
        }
    }
}

#[test]
fn swiglu() {
    for (name, device, kernels) in devices().into_iter().filter(|(_, _, kernels)| kernels.activation) {
        for (t, f) in [(1, 1), (3, 17), (70, 300)] {
            same(&format!("{name}: {t} x {f}"), kernels, |kernels| {
                let mut mlp = Swiglu::new(&config(Preset::Llama, 8, f), &device);
                mlp.kernels = kernels;
                let weight = |shape, name| Param::from_tensor(random::<2>(shape, name, &device));
                mlp.gate_proj.weight = weight([8, f], "gate");
                mlp.up_proj.weight = weight([8, f], "up");
                mlp.down_proj.weight = weight([f, 8], "down");
                let x = leaf([1, t, 8], "x", &device);
                let (gate, up) = (mlp.gate_proj.weight.val(), mlp.up_proj.weight.val());
                let (out, input) = (mlp.forward(x.clone()), x);
                let read = move |gradients: &Gradients| {
                    let matrices = [&gate, &up].map(|weight| weight.grad(gradients).unwrap().reshape([-1]));
                    matrices.into_iter().chain([input.grad(gradients).unwrap().reshape([-1])]).collect()
                };
                (out, Box::new(read))
            });
        }
    }
}

#[test]
fn rotary() {
    for (name, device, kernels) in devices().into_iter().filter(|(_, _, kernels)| kernels.rotary) {
        for (heads, t, head_dim, start) in [(1, 1, 2, 0), (3, 5, 6, 2), (4, 130, 32, 0)] {
            let config = ModelConfig { head_dim, ..config(Preset::Llama, 8, 8) };
            same(&format!("{name}: {heads} x {t} x {head_dim}"), kernels, |kernels| {
                let mut rope = RotaryEmbedding::new(&config, &device);
                rope.kernels = kernels;
                // Heads brought forward, as attention does it: the vectors of a head do not lie side by side.
                let x = leaf([2, t, heads, head_dim], "x", &device);
                (rope.at(start, t).apply(x.clone().swap_dims(1, 2)), gradients([&x]))
            });
        }
    }
}

#[test]
fn attention() {
    for (name, device, kernels) in devices().into_iter().filter(|(_, _, kernels)| kernels.attention) {
        // Grouped, shared and full heads; fewer and more queries than a block of 64; queries after a cache; windows.
        for (h, k, t, s, e, window) in [
            (1, 1, 1, 1, 4, None),
            (4, 2, 7, 7, 8, None),
            (6, 2, 70, 70, 5, None),
            (3, 1, 150, 150, 16, Some(20)),
            (2, 2, 65, 65, 32, Some(2)),
            (4, 4, 9, 100, 8, None),
            (4, 2, 1, 90, 8, None),
            (4, 2, 1, 90, 8, Some(3)),
            (2, 1, 130, 200, 8, Some(64)),
        ] {
            let what = format!("{name}: H {h}, K {k}, T {t}, S {s}, E {e}, window {window:?}");
            let form = |fast: bool| {
                let query = leaf([2, t, h, e], "query", &device);
                let [key, value] = ["key", "value"].map(|name| leaf([2, s, k, e], name, &device));
                let [q, key_heads, value_heads] = [&query, &key, &value].map(|x| x.clone().swap_dims(1, 2));
                let out = if fast {
                    ops::attention::causal_attention(q, key_heads, value_heads, window)
                } else {
                    let mask = CausalMask::new(t, s, window, &device);
                    grouped_attention(q, key_heads, value_heads, mask.tensor(), &Dropout::off())
                };
                (out, gradients([&query, &key, &value]))
            };
            same(&what, kernels, |kernels| form(kernels.attention));
        }
    }
}

#[test]
fn adam_w() {
    for (name, device, _) in devices().into_iter().filter(|(_, _, kernels)| kernels.adam_w) {
        let device = device.inner();
        let n = 300_000; // more than one piece of shared work on each backend
        let step = AdamWStep {
            time: 3,
            learning_rate: 0.01,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            grad_factor: 0.5,
        };
        let [weight, grad, mean] = ["weight", "grad", "mean"].map(|name| random([n], name, &device));
        let square = random([n], "square", &device).square();

        let scaled = grad.clone() * step.grad_factor;
        let expected_mean = mean.clone() * step.beta1 + scaled.clone() * (1.0 - step.beta1);
        let expected_square = square.clone() * step.beta2 + scaled.square() * (1.0 - step.beta2);
        let corrected = expected_mean.clone() / (1.0 - step.beta1.powi(3));
        let root = (expected_square.clone() / (1.0 - step.beta2.powi(3))).sqrt() + step.epsilon;
        let kept = weight.clone() * (1.0 - step.learning_rate * step.weight_decay);
        let expected = kept - corrected / root * step.learning_rate;

        let before = weight.clone();
        let [moved, mean, square] = ops::adam_w::adam_w(weight.clone(), grad.clone(), mean, square, step);
        close(&format!("{name}: weight"), moved, expected);
        close(&format!("{name}: mean"), mean, expected_mean);
        close(&format!("{name}: square"), square, expected_square);
        close(&format!("{name}: a weight that someone else holds stays"), weight, before);
        close(&format!("{name}: squares"), ops::adam_w::sum_of_squares(grad.clone()), grad.square().sum());
    }
}

fn config(preset: Preset, hidden_size: usize, intermediate_size: usize) -> ModelConfig {
    let options = ModelOptions {
        preset,
        hidden_size: Some(hidden_size),
        intermediate_size: Some(intermediate_size),
        num_hidden_layers: Some(2),
        num_attention_heads: Some(4),
        num_key_value_heads: (preset != Preset::Gpt2).then_some(2),
        ..ModelOptions::default()
    };
    options.resolve(67, 80)
}

fn ids(values: Vec<i32>, device: &Device) -> Tensor<2, Int> {
    let t = values.len() / 2;
    Tensor::from_data(TensorData::new(values, [2, t]), device)
}

/// All gradients of a model by name.
struct Collect<'a>(&'a Gradients, Vec<(String, Tensor<1>)>);

impl ParameterVisitor for Collect<'_> {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        self.1.push((name.to_owned(), param.val().grad(self.0).unwrap().reshape([-1])));
    }
}

/// Loss and gradients of whole models, with one fast form after the other added.
#[test]
fn whole_models() {
    for (name, device, fastest) in devices() {
        for (what, config) in [
            ("llama", config(Preset::Llama, 32, 48)),
            ("qwen3", config(Preset::Qwen3, 32, 48)),
            ("gpt2", config(Preset::Gpt2, 32, 48)),
            ("windowed", ModelConfig { sliding_window: Some(5), ..config(Preset::Llama, 32, 48) }),
            ("tied", ModelConfig { tie_word_embeddings: true, ..config(Preset::Llama, 32, 48) }),
        ] {
            // Software GPUs compile each kernel for each shape, which takes minutes; two models have every operation.
            if !fastest.linear && !["llama", "tied"].contains(&what) {
                continue;
            }
            let inputs: Vec<i32> = (0..140).map(|i| i * 7 % 67).collect();
            let targets = inputs.iter().map(|id| if id % 9 == 0 { IGNORED } else { id * 5 % 67 }).collect();
            let (inputs, targets) = (ids(inputs, &device), ids(targets, &device));
            let run = |kernels| {
                let model = LanguageModel::new(&config, &device).unwrap().with_kernels(kernels);
                let model = init::initialize(model, &config, 3);
                let hidden = model.model.forward(inputs.clone(), None, &Dropout::off());
                let loss = model.summed_loss(hidden, targets.clone());
                let gradients = loss.backward();
                let mut all = Collect(&gradients, Vec::new());
                parameters::visit(&model, &mut all);
                (loss.inner(), all.1)
            };
            let (expected_loss, expected) = run(Kernels::READABLE);
            for (rung, kernels) in fastest.ladder() {
                let (loss, gradients) = run(kernels);
                close(&format!("{name}, {what}, {rung}: loss"), loss, expected_loss.clone());
                for ((parameter, got), (_, expected)) in gradients.into_iter().zip(expected.clone()) {
                    close(&format!("{name}, {what}, {rung}: gradient of {parameter}"), got, expected);
                }
            }
        }
    }
}

/// Products in 16 bits, where a device has them: close to f32, not equal, and f32 outside.
#[test]
fn lower_precision() {
    for (name, device, kernels) in devices() {
        if ["flex", "ndarray"].contains(&name.as_str()) {
            assert!(!Precision::Bf16.runs_on(&device) && !Precision::F16.runs_on(&device), "{name} computes in f32");
        }
        let config = config(Preset::Llama, 32, 48);
        let run = |precision| {
            let kernels = Kernels { precision, ..kernels };
            let model = LanguageModel::new(&config, &device).unwrap().with_kernels(kernels);
            let model = init::initialize(model, &config, 3);
            let values: Vec<i32> = (0..140).map(|i| i * 7 % 67).collect();
            let hidden = model.model.forward(ids(values.clone(), &device), None, &Dropout::off());
            let loss = model.summed_loss(hidden, ids(values, &device));
            let gradients = loss.backward();
            let mut all = Collect(&gradients, Vec::new());
            parameters::visit(&model, &mut all);
            (loss.into_scalar::<f32>(), all.1)
        };
        for precision in [Precision::Bf16, Precision::F16].into_iter().filter(|precision| precision.runs_on(&device)) {
            let ((loss, gradients), (expected_loss, expected)) = (run(precision), run(Precision::F32));
            let what = format!("{name}, {}", precision.name());
            assert!((loss / expected_loss - 1.0).abs() < 1e-3, "{what}: loss {loss}, {expected_loss} in f32");
            for ((parameter, got), (_, expected)) in gradients.into_iter().zip(expected) {
                let largest: f32 = expected.clone().abs().max().into_scalar();
                let difference: f32 = (got - expected).abs().max().into_scalar();
                // bf16 rounds each factor to 2^-9 of itself, and a gradient passes some ten products.
                assert!(difference < 0.05 * largest, "{what}: {parameter} off by {difference} of {largest}");
                assert!(parameter.contains("norm") || difference > 0.0, "{what}: {parameter} was not rounded");
            }
        }
    }
}

/// The fast forms with a cache: token by token as in one pass.
#[test]
fn decoding() {
    for (name, device, kernels) in devices() {
        let device = device.inner();
        let config = ModelConfig { sliding_window: Some(30), max_window_layers: 1, ..config(Preset::Qwen3, 32, 48) };
        let model = LanguageModel::new(&config, &device).unwrap().with_kernels(kernels);
        let model = init::initialize(model, &config, 3);
        let all: Vec<i32> = (0..80).map(|i| i * 7 % 67).collect();
        let tensor = |ids: &[i32]| Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), [1, ids.len()]), &device);
        let whole = model.clone().with_kernels(Kernels::READABLE).forward(tensor(&all), None);
        let mut cache = KvCache::new(&config, 1, 80, &device);
        let mut steps = vec![model.forward(tensor(&all[..70]), Some(&mut cache))];
        steps.extend(all[70..].iter().map(|&id| model.forward(tensor(&[id]), Some(&mut cache))));
        close(&name, Tensor::cat(steps, 1), whole);
    }
}

/// A number that is no number must reach the loss, where training notices it.
#[test]
fn not_a_number_stays_one() {
    for (name, device, kernels) in devices() {
        let config = config(Preset::Llama, 32, 48);
        let model = LanguageModel::new(&config, &device).unwrap().with_kernels(kernels);
        let mut model = init::initialize(model, &config, 3);
        let broken = model.model.layers[0].mlp.clone();
        if let minillm_model::layers::Mlp::Swiglu(mut mlp) = broken {
            mlp.up_proj.weight = Param::from_tensor(mlp.up_proj.weight.val().inner() * f32::NAN);
            model.model.layers[0].mlp = minillm_model::layers::Mlp::Swiglu(mlp);
        }
        let model = model.valid();
        let device = device.inner();
        let hidden = model.model.forward(ids(vec![1, 2, 3, 4], &device), None, &Dropout::off());
        let loss: f32 = model.summed_loss(hidden, ids(vec![2, 3, 4, 5], &device)).into_scalar();
        assert!(loss.is_nan(), "{name}: {loss}");
    }
}

/// Products with the matrix as training has it and as files do, for all remainders of rows and outputs.
#[test]
fn products_in_both_layouts() {
    for (name, device, _) in devices().into_iter().filter(|(_, _, kernels)| kernels.linear) {
        let device = device.inner();
        let sizes = [(1, 1, 1), (3, 7, 5), (8, 33, 65), (1, 256, 700), (2, 260, 130), (13, 40, 200), (70, 96, 301)];
        for (rows, input, output) in sizes {
            let x = random([1, rows, input], "x", &device);
            let weight = random([input, output], "weight", &device);
            let expected = x.clone().matmul(weight.clone().unsqueeze());
            let what = format!("{name}: {rows} x {input} x {output}");
            close(&what, ops::linear::product(x.clone(), weight.clone()), expected.clone());
            let by_output = Tensor::<2>::from_data(weight.transpose().into_data(), &device).transpose();
            close(&what, ops::linear::product(x, by_output), expected);
        }
    }
}

/// Rounds every matrix that an 8-bit model keeps in 8 bits.
struct Round;

impl ParameterMapper for Round {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !parameters::is_linear_weight(name) {
            return param;
        }
        param.map(|weight| {
            let in_blocks = weights::to_host(name, &weight).unwrap(); // as in files: [output, input]
            let shape = [in_blocks.shape[0], in_blocks.shape[1]];
            let rounded = TensorData::new(Encoding::Q8_0.round(&in_blocks.values), shape);
            Tensor::<2>::from_data(rounded, &weight.device()).transpose().reshape(weight.dims())
        })
    }
}

#[test]
fn weights_in_8_bits_are_the_rounded_ones() {
    for (name, device, kernels) in devices() {
        let device = device.inner();
        let config = config(Preset::Qwen3, 32, 64);
        let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), &config, 3);
        if !kernels.linear {
            assert!(model.quantized().unwrap_err().to_string().contains("8 bits"), "{name}");
            continue;
        }
        let rounded = parameters::map(model.clone(), &mut Round).with_kernels(Kernels::READABLE);
        let before = model.weight_bytes();
        let in_8_bits = model.quantized().unwrap();
        assert!(in_8_bits.weight_bytes() < before / 2, "{name}: {} of {before}", in_8_bits.weight_bytes());
        for t in [1, 8, 9, 40] {
            let ids: Vec<i32> = (0..t).map(|i| i * 7 % 67).collect();
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t as usize]), &device);
            close(&format!("{name}: {t}"), in_8_bits.forward(ids.clone(), None), rounded.forward(ids, None));
        }
        let targets = ids(vec![2, 3, 4, 5], &device);
        let loss = |model: &LanguageModel| {
            let hidden = model.model.forward(ids(vec![1, 2, 3, 4], &device), None, &Dropout::off());
            model.summed_loss(hidden, targets.clone())
        };
        close(&format!("{name}: loss"), loss(&in_8_bits), loss(&rounded));

        // A tied head comes from the embedding, whose rows are the blocks.
        let tied = ModelConfig { tie_word_embeddings: true, ..config.clone() };
        let model = init::initialize(LanguageModel::new(&tied, &device).unwrap(), &tied, 3);
        let hidden = random([1, 3, 32], "hidden", &device);
        let table = Encoding::Q8_0.round(&weights::to_host("", &model.model.embed_tokens.weight.val()).unwrap().values);
        let table = Tensor::<2>::from_data(TensorData::new(table, [67, 32]), &device);
        let expected = hidden.clone().matmul(table.transpose().unsqueeze());
        close(&format!("{name}: tied"), model.quantized().unwrap().logits(hidden), expected);

        let odd = odd_width(&device);
        assert!(odd.quantized().unwrap_err().to_string().contains("multiples of 32"), "{name}");
    }
}

/// A model whose MLP is not whole blocks of 32 wide.
fn odd_width(device: &Device) -> LanguageModel {
    let config = config(Preset::Llama, 32, 48);
    init::initialize(LanguageModel::new(&config, device).unwrap(), &config, 3)
}

//! Every fast form gives what the layer's own lines give: value and gradients, on every device of this build.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use minillm_infer::device;
use minillm_infer::generate::Tokens;
use minillm_infer::sampling::Sampling;
use minillm_model::cases::inputs::random;
use minillm_model::cases::{self, Place};
use minillm_model::checkpoint::weights;
use minillm_model::config::{ModelConfig, ModelOptions, Preset};
use minillm_model::decoder::LanguageModel;
use minillm_model::encoding::Encoding;
use minillm_model::init;
use minillm_model::kv_cache::KvCache;
use minillm_model::layers::attend;
use minillm_model::layers::context::ForwardContext;
use minillm_model::layers::dropout::Dropout;
use minillm_model::loss::IGNORED;
use minillm_model::ops::update::StepLimits;
use minillm_model::ops::{self, AdamWStep, ComputeOptions, Precision, multi_tensor};
use minillm_model::parameters::{self, ParameterMapper, ParameterVisitor};
use minillm_model::random::stream;
use rand::RngExt;

/// Where all values cancel to zero (the gradient of the keys' bias, that of a norm over one number), the terms that did count as this. On a
/// GPU the terms themselves are less exact: Vulkan lets a division be off by 2.5 units in the last place, a CPU's is off by half of one.
const CANCELLED: f32 = 0.01;
const CANCELLED_ON_A_GPU: f32 = 0.2;

/// One device of each backend of this build that has fast forms, with autodiff.
fn devices() -> Vec<(String, Device, ComputeOptions)> {
    let found = device::list().into_iter().map(|found| (found.name, found.device.autodiff()));
    let first = found.filter(|(name, _)| !name.contains(':') || name.ends_with(":0"));
    first.map(|(name, device)| (name, device.clone(), ComputeOptions::fastest(&device))).collect()
}

fn close<const D: usize>(what: &str, got: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let [got, expected] = [got, expected].map(|tensor| tensor.try_into_vec_as::<f32>().unwrap());
    close_values(what, &got, &expected);
}

fn close_values(what: &str, got: &[f32], expected: &[f32]) {
    close_within(cases::TOLERANCE as f32, what, got, expected);
}

fn close_within(tolerance: f32, what: &str, got: &[f32], expected: &[f32]) {
    let cancelled = if what.contains("wgpu") { CANCELLED_ON_A_GPU } else { CANCELLED };
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let difference = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
    // Not `f32::max`, which passes over a NaN.
    let difference = difference.fold(0.0_f32, |largest, value| if value <= largest { largest } else { value });
    assert!(
        difference <= tolerance * largest.max(cancelled),
        "{what}: off by {difference}, the largest value is {largest}"
    );
}

#[test]
fn the_cpu_backends_have_all_fast_forms() {
    for (name, _, compute) in devices() {
        if ["flex", "ndarray"].contains(&name.as_str()) {
            assert_eq!(compute.cumulative().len(), 8, "{name}: {compute:?}");
        }
        assert_eq!(compute.cumulative().last().unwrap().1, compute, "{name}");
    }
}

/// What a reader sees who has changed a layer and not its fast form.
const EDITED: &str = "the layer's own lines and its fast form differ. If you have just edited the layer: by default the fast form runs, so \
    train with `--set train.kernels=readable` to run your lines, or change the fast form in `minillm-model/src/ops/`, too";

/// Every row of the table of cases, at every size: the layers' own choice gives with the fast form what it gives without.
#[test]
fn edited_layers_match_their_fast_forms() {
    for (name, device, fastest) in devices() {
        for case in cases::all().iter().filter(|case| (case.has_fast)(&fastest)) {
            for (size, prepare) in &case.sizes {
                let compute = |options| prepare(&Place::new(&device.clone().inner(), options)).compute().unwrap();
                let (expected, got) = (compute(ComputeOptions::READABLE), compute(fastest));
                assert_eq!(got.len(), expected.len(), "{name}: {}, {size}", case.name);
                for (got, expected) in got.iter().zip(&expected) {
                    let what = format!("{} on {name}, size {size}, {}: {EDITED}", case.name, got.what);
                    assert_eq!(got.what, expected.what);
                    close_values(&what, &got.values, &expected.values);
                }
            }
        }
    }
}

/// Attention at sizes that nobody chose, and over long texts, in value and gradient, on every device as on flex.
#[test]
fn attention_at_random_sizes() {
    let mut rng = stream(1, "sizes");
    for t in [None, None, None, None, None, None, None, None, Some(1000), Some(2048)] {
        let (k, group, e) = match t {
            None => (rng.random_range(1..4), rng.random_range(1..9), rng.random_range(1..129)),
            Some(_) => (1, 2, 16),
        };
        let t = t.unwrap_or_else(|| rng.random_range(1..90));
        let s = t + if rng.random_bool(0.5) { rng.random_range(0..70) } else { 0 };
        let window = rng.random_bool(0.5).then(|| rng.random_range(1..s + 1));
        let compute = |device: &Device| {
            let leaf = |heads, tokens, name| random([2, tokens, heads, e], name, device).require_grad();
            let (query, key, value) = (leaf(k * group, t, "query"), leaf(k, s, "key"), leaf(k, s, "value"));
            let heads = |x: &Tensor<4>| x.clone().swap_dims(1, 2);
            let context = ForwardContext::new(ComputeOptions::fastest(device));
            let out = attend(heads(&query), heads(&key), heads(&value), window, &Dropout::off(), &context);
            let weights = random(out.dims(), "weights", device);
            let gradients = (out.clone() * weights).sum().backward();
            let gradients = [query, key, value].map(|x| x.grad(&gradients).unwrap());
            [vec![out.inner()], gradients.to_vec()].concat().into_iter().map(|x| x.try_into_vec_as().unwrap()).collect()
        };
        let size = format!("K {k}, G {group}, T {t}, S {s}, E {e}, window {window:?}");
        as_on_flex(cases::TOLERANCE as f32, &size, &["value", "query", "key", "value's gradient"], compute);
    }
}

/// The loss over as many tokens as GPT-2 knows, with targets at both ends, one of them not counted.
#[test]
fn cross_entropy_of_a_large_vocabulary() {
    let (rows, width, vocabulary) = (5, 8, 50_257);
    let compute = |device: &Device| {
        let leaf = |rows, name| random([rows, width], name, device).require_grad();
        let (hidden, output) = (leaf(rows, "hidden"), leaf(vocabulary, "output"));
        let ids = TensorData::new(vec![0, vocabulary as i32 - 1, 32_768, IGNORED, 65], [rows]);
        let targets = Tensor::<1, Int>::from_data(ids, device);
        let loss = ops::cross_entropy::cross_entropy(hidden.clone(), output.clone(), targets, true);
        let gradients = loss.clone().backward();
        let gradients = [hidden, output].map(|x| x.grad(&gradients).unwrap().try_into_vec_as().unwrap());
        [vec![loss.inner().try_into_vec_as().unwrap()], gradients.to_vec()].concat()
    };
    // The hidden states' gradient is a sum of V numbers, and not every device adds in pieces: sqrt(V) units in the last place.
    let tolerance = (vocabulary as f32).sqrt() * f32::EPSILON;
    as_on_flex(tolerance, "V 50,257", &["loss", "gradient of the hidden states", "gradient of the output"], compute);
}

/// That every device computes what flex does.
fn as_on_flex(tolerance: f32, size: &str, parts: &[&str], compute: impl Fn(&Device) -> Vec<Vec<f32>>) {
    let expected = compute(&device::open("flex").unwrap().device.autodiff());
    for (name, device, _) in devices().into_iter().filter(|(name, ..)| name != "flex") {
        for (what, (got, expected)) in parts.iter().zip(compute(&device).iter().zip(&expected)) {
            close_within(tolerance, &format!("{name}, {what}: {size}"), got, expected);
        }
    }
}

/// A step whose loss or gradient is no number, or infinite, is not to be taken: the device says so itself.
#[test]
fn a_step_on_no_number_is_not_taken() {
    for (name, device, compute) in devices() {
        let device = device.inner();
        let factor = |gradient: f32, loss: f32| {
            let numbers = |values: &[f32]| Tensor::<1>::from_floats(values, &device);
            let gradients = vec![numbers(&[0.25, 0.5]), numbers(&[gradient, 0.5, 0.1])];
            let limits = StepLimits::finite(1.0);
            let control = multi_tensor::step_control(gradients, numbers(&[loss]), limits, compute.multi_tensor);
            control.try_into_vec_as::<f32>().unwrap()[2]
        };
        assert!(factor(0.5, 2.0) > 0.0, "{name}");
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(factor(wrong, 2.0) < 0.0, "{name}: a gradient of {wrong}");
            assert!(factor(0.5, wrong) < 0.0, "{name}: a loss of {wrong}");
        }
    }
}

/// The optimiser's rule moves nothing that somebody else holds.
#[test]
fn adam_w_leaves_shared_tensors_alone() {
    for (name, device, _) in devices().into_iter().filter(|(_, _, compute)| compute.adam_w) {
        let step = AdamWStep {
            time: 3,
            learning_rate: 0.01,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            grad_factor: 0.5,
        };
        let [weight, grad, mean] = ["weight", "grad", "mean"].map(|name| random([300], name, &device.clone().inner()));
        let before = weight.clone().into_data();
        let [moved, ..] = ops::adam_w::adam_w(weight.clone(), grad, mean.clone(), mean.square(), step);
        assert_ne!(moved.into_data(), before, "{name}");
        assert_eq!(weight.into_data(), before, "{name}");
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
            if !fastest.thread_pool && !["llama", "tied"].contains(&what) {
                continue;
            }
            let inputs: Vec<i32> = (0..140).map(|i| i * 7 % 67).collect();
            let targets = inputs.iter().map(|id| if id % 9 == 0 { IGNORED } else { id * 5 % 67 }).collect();
            let (inputs, targets) = (ids(inputs, &device), ids(targets, &device));
            let run = |compute| {
                let model = LanguageModel::new(&config, &device).unwrap().with_compute(compute);
                let model = init::initialize(model, 3);
                let hidden = model.hidden_states(inputs.clone(), None, Dropout::default());
                let loss = model.summed_loss(hidden, targets.clone());
                let gradients = loss.backward();
                let mut all = Collect(&gradients, Vec::new());
                parameters::visit(&model, &mut all);
                (loss.inner(), all.1)
            };
            let (expected_loss, expected) = run(ComputeOptions::READABLE);
            for (step, compute) in fastest.cumulative() {
                let (loss, gradients) = run(compute);
                close(&format!("{name}, {what}, {step}: loss"), loss, expected_loss.clone());
                for ((parameter, got), (_, expected)) in gradients.into_iter().zip(expected.clone()) {
                    close(&format!("{name}, {what}, {step}: gradient of {parameter}"), got, expected);
                }
            }
        }
    }
}

/// Products in 16 bits, where a device has them: close to f32, not equal, and f32 outside.
#[test]
fn lower_precision() {
    for (name, device, compute) in devices() {
        if ["flex", "ndarray"].contains(&name.as_str()) {
            assert!(!Precision::Bf16.runs_on(&device) && !Precision::F16.runs_on(&device), "{name} computes in f32");
        }
        let config = config(Preset::Llama, 32, 48);
        let run = |precision| {
            let compute = ComputeOptions { precision, ..compute };
            let model = LanguageModel::new(&config, &device).unwrap().with_compute(compute);
            let model = init::initialize(model, 3);
            let values: Vec<i32> = (0..140).map(|i| i * 7 % 67).collect();
            let hidden = model.hidden_states(ids(values.clone(), &device), None, Dropout::default());
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
    for (name, device, compute) in devices() {
        let device = device.inner();
        let config = ModelConfig { sliding_window: Some(30), max_window_layers: 1, ..config(Preset::Qwen3, 32, 48) };
        let model = LanguageModel::new(&config, &device).unwrap().with_compute(compute);
        let model = init::initialize(model, 3);
        let all: Vec<i32> = (0..80).map(|i| i * 7 % 67).collect();
        let tensor = |ids: &[i32]| Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), [1, ids.len()]), &device);
        let whole = model.clone().with_compute(ComputeOptions::READABLE).forward(tensor(&all), None);
        let mut cache = KvCache::new(&config, 1, 80, &device);
        let mut steps = vec![model.forward(tensor(&all[..70]), Some(&mut cache))];
        steps.extend(all[70..].iter().map(|&id| model.forward(tensor(&[id]), Some(&mut cache))));
        close(&name, Tensor::cat(steps, 1), whole);
    }
}

/// A number that is no number must reach the loss, where training notices it.
#[test]
fn not_a_number_stays_one() {
    for (name, device, compute) in devices() {
        let config = config(Preset::Llama, 32, 48);
        let model = LanguageModel::new(&config, &device).unwrap().with_compute(compute);
        let mut model = init::initialize(model, 3);
        let broken = model.model.layers[0].mlp.clone();
        if let minillm_model::layers::Mlp::Swiglu(mut mlp) = broken {
            mlp.up_proj.weight = Param::from_tensor(mlp.up_proj.weight.val().inner() * f32::NAN);
            model.model.layers[0].mlp = minillm_model::layers::Mlp::Swiglu(mlp);
        }
        let model = model.valid();
        let device = device.inner();
        let hidden = model.hidden_states(ids(vec![1, 2, 3, 4], &device), None, Dropout::default());
        let loss: f32 = model.summed_loss(hidden, ids(vec![2, 3, 4, 5], &device)).into_scalar();
        assert!(loss.is_nan(), "{name}: {loss}");
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
    for (name, device, compute) in devices() {
        let device = device.inner();
        let config = config(Preset::Qwen3, 32, 64);
        let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 3);
        if !compute.quantized {
            assert!(model.quantized().unwrap_err().to_string().contains("8 bits"), "{name}");
            continue;
        }
        let rounded = parameters::map(model.clone(), &mut Round).with_compute(ComputeOptions::READABLE);
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
            let hidden = model.hidden_states(ids(vec![1, 2, 3, 4], &device), None, Dropout::default());
            model.summed_loss(hidden, targets.clone())
        };
        close(&format!("{name}: loss"), loss(&in_8_bits), loss(&rounded));

        // A tied head comes from the embedding, whose rows are the blocks.
        let tied = ModelConfig { tie_word_embeddings: true, ..config.clone() };
        let model = init::initialize(LanguageModel::new(&tied, &device).unwrap(), 3);
        let hidden = random([1, 3, 32], "hidden", &device);
        let table = Encoding::Q8_0.round(&weights::to_host("", &model.model.embed_tokens.weight.val()).unwrap().values);
        let table = Tensor::<2>::from_data(TensorData::new(table, [67, 32]), &device);
        let expected = hidden.clone().matmul(table.transpose().unsqueeze());
        close(&format!("{name}: tied"), model.quantized().unwrap().logits(hidden), expected);

        let odd = odd_width(&device);
        assert!(odd.quantized().unwrap_err().to_string().contains("multiples of 32"), "{name}");
    }
}

/// Makes the matrices of a new model so large that its greedy text does not repeat itself, and no two logits are close.
struct Enlarge;

impl ParameterMapper for Enlarge {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if parameters::is_linear_weight(name) { param.map(|weight| weight * 8.0) } else { param }
    }
}

/// A prompt and 50 tokens after it, with a cache: the same on every device as on flex.
#[test]
fn text_in_8_bits() {
    let prompt: Vec<u32> = (0..17).map(|i| i * 7 % 67).collect();
    let text = |device: &Device| {
        let model = init::initialize(LanguageModel::new(&config(Preset::Llama, 64, 96), device).unwrap(), 3);
        let model = parameters::map(model, &mut Enlarge).quantized().unwrap();
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        Tokens::new(&model, &prompt, 50, &greedy).unwrap().collect::<Result<Vec<u32>, _>>().unwrap()
    };
    let expected = text(&device::open("flex").unwrap().device);
    assert_eq!(expected.len(), 50);
    assert!(expected.iter().collect::<BTreeSet<_>>().len() > 20, "a text that tells models apart: {expected:?}");
    for (name, device, _) in devices().into_iter().filter(|(name, _, compute)| name != "flex" && compute.quantized) {
        assert_eq!(text(&device.inner()), expected, "{name}");
    }
}

/// A model whose MLP is not whole blocks of 32 wide.
fn odd_width(device: &Device) -> LanguageModel {
    let config = config(Preset::Llama, 32, 48);
    init::initialize(LanguageModel::new(&config, device).unwrap(), 3)
}

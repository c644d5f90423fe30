//! Properties of whole models: every combination of the switches, the cache, initial values, the loss.

#![allow(clippy::unwrap_used)]

use std::panic::AssertUnwindSafe;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::family::Family;
use minillm_model::checkpoint::hf_config;
use minillm_model::checkpoint::weights;
use minillm_model::config::{
    AttentionBias, MlpKind, ModelConfig, ModelOptions, NormKind, Position, Preset, RopeScaling,
};
use minillm_model::decoder::LanguageModel;
use minillm_model::encoding::Encoding;
use minillm_model::kv_cache::KvCache;
use minillm_model::layers::documents::Documents;
use minillm_model::layers::dropout::Dropout;
use minillm_model::loss::{IGNORED, summed_cross_entropy};
use minillm_model::ops::ComputeOptions;
use minillm_model::{init, parameters, stats};

fn device() -> Device {
    Device::flex()
}

fn base() -> ModelConfig {
    let options = ModelOptions {
        hidden_size: Some(16),
        num_hidden_layers: Some(2),
        num_attention_heads: Some(4),
        ..ModelOptions::default()
    };
    options.resolve(23, 12)
}

fn model(config: &ModelConfig) -> LanguageModel {
    init::initialize(LanguageModel::new(config, &device()).unwrap(), 5)
}

fn ids<const N: usize>(values: [i32; N]) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [1, N]), &device())
}

/// Every combination of norm, position, key/value heads, MLP, biases, q/k norm and tying: 2 x 3 x 3 x 4 x 3 x 2 x 2 x 2.
fn combinations() -> Vec<ModelConfig> {
    let mut all = vec![base()];
    let mut vary = |change: &dyn Fn(&ModelConfig) -> Vec<ModelConfig>| all = all.iter().flat_map(change).collect();
    vary(&|c| [NormKind::LayerNorm, NormKind::RmsNorm].map(|norm| ModelConfig { norm, ..c.clone() }).to_vec());
    vary(&|c| {
        [Position::Learned, Position::Rope, Position::None]
            .map(|position| ModelConfig { position, ..c.clone() })
            .to_vec()
    });
    vary(&|c| [1, 2, 4].map(|num_key_value_heads| ModelConfig { num_key_value_heads, ..c.clone() }).to_vec());
    vary(&|c| {
        [MlpKind::Gelu, MlpKind::GeluErf, MlpKind::Swiglu, MlpKind::Relu2]
            .map(|mlp| ModelConfig { mlp, ..c.clone() })
            .to_vec()
    });
    vary(&|c| {
        [AttentionBias::None, AttentionBias::Qkv, AttentionBias::All]
            .map(|attention_bias| ModelConfig { attention_bias, ..c.clone() })
            .to_vec()
    });
    vary(&|c| [false, true].map(|mlp_bias| ModelConfig { mlp_bias, ..c.clone() }).to_vec());
    vary(&|c| [false, true].map(|qk_norm| ModelConfig { qk_norm, ..c.clone() }).to_vec());
    vary(&|c| [false, true].map(|tie_word_embeddings| ModelConfig { tie_word_embeddings, ..c.clone() }).to_vec());
    // Windows and scaled angles work on any of them; each once.
    for (window, first) in [(1, 0), (3, 0), (4, 1), (50, 0)] {
        all.push(ModelConfig { sliding_window: Some(window), max_window_layers: first, ..base() });
    }
    for scaling in [
        RopeScaling::Linear { factor: 3.0 },
        RopeScaling::Dynamic { factor: 2.0 },
        RopeScaling::Llama3 {
            factor: 4.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 6,
        },
        RopeScaling::Yarn {
            factor: 4.0,
            original_max_position_embeddings: 8,
            attention_factor: None,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
        },
    ] {
        all.push(ModelConfig { rope_scaling: Some(scaling), ..base() });
    }
    all
}

#[test]
fn every_combination_has_the_parameters_that_the_formulas_say() {
    for config in combinations() {
        let built = LanguageModel::new(&config, &device()).unwrap();
        assert_eq!(built.num_params(), stats::parameters(&config).total(), "{config:?}");
        let mut listed = parameters::list(&built);
        for (name, shape) in &mut listed {
            if parameters::is_linear_weight(name) {
                shape.reverse(); // files have [out, in]
            }
        }
        assert_eq!(parameters::expected(&config), listed, "{config:?}");
    }
}

#[test]
fn flops_and_cache_bytes_are_what_the_parts_need() {
    for config in combinations() {
        // A multiply-and-add of each matrix: 2 FLOPs forward, 4 backward. Embedding rows are looked up, not multiplied.
        let model = model(&config);
        let in_blocks = |name: &String| name.contains(".layers.") && name.ends_with("_proj.weight");
        let shapes = parameters::list(&model).into_iter().filter(|(name, _)| in_blocks(name)).map(|(_, shape)| shape);
        let matrices: usize = shapes.map(|shape| shape.iter().product::<usize>()).sum();
        let output = config.hidden_size * config.vocab_size;
        // Two blocks, each H E products for every score and as many for every mix, over a context of 12 tokens.
        let attention = 2 * 2 * config.num_attention_heads * config.head_dim * 12;
        assert_eq!(stats::training_flops_per_token(&config, 12), 6 * (matrices + output + attention), "{config:?}");

        let mut cache = KvCache::new(&config, 1, 12, &device());
        assert_eq!((cache.capacity(), cache.bytes()), (12, 12 * stats::kv_cache_bytes_per_token(&config)));
        model.forward(ids([1, 2, 3]), Some(&mut cache));
        assert_eq!(cache.bytes(), 12 * stats::kv_cache_bytes_per_token(&config), "allocated once");
    }
    // GPT-2 small by hand: 12 (12 D^2 + 2 D C) + D V = 12 (7,077,888 + 1,572,864) + 38,597,376 products.
    let sizes = (Some(768), Some(12), Some(12));
    let (hidden_size, num_hidden_layers, num_attention_heads) = sizes;
    let options = ModelOptions {
        preset: Preset::Gpt2,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        ..ModelOptions::default()
    };
    let gpt2 = options.resolve(50_257, 1024);
    assert_eq!(stats::parameters(&gpt2).total(), 124_439_808); // as published
    assert_eq!(stats::training_flops_per_token(&gpt2, 1024), 6 * (12 * (7_077_888 + 1_572_864) + 38_597_376));
    let forward = stats::forward_flops_per_token(&gpt2, 1024);
    assert_eq!((forward.projections, forward.mlp), (2 * 4 * 768 * 768, 2 * 8 * 768 * 768));
    assert_eq!((forward.scores, forward.output), (2 * 1_572_864, 2 * 38_597_376));
    assert_eq!(3 * forward.total(), stats::training_flops_per_token(&gpt2, 1024));
    assert_eq!(stats::kv_cache_bytes_per_token(&gpt2), 2 * 12 * 768 * 4);
}

#[test]
fn every_combination_decodes_with_the_cache_as_without() {
    let tokens = [3, 1, 4, 1, 5, 9, 2, 6];
    for config in combinations() {
        let model = model(&config);
        let whole = model.forward(ids(tokens), None); // [1, 8, V]
        let mut cache = KvCache::new(&config, 1, tokens.len(), &device());
        // A prompt of three, then one token at a time.
        let mut parts = vec![model.forward(ids([tokens[0], tokens[1], tokens[2]]), Some(&mut cache))];
        parts.extend(tokens[3..].iter().map(|&id| model.forward(ids([id]), Some(&mut cache))));
        let difference: f32 = (Tensor::cat(parts, 1) - whole).abs().max().into_scalar();
        assert!(difference < 1e-5, "{difference} {config:?}"); // f32 sums in another order
    }
}

#[test]
fn every_combination_survives_its_files() {
    let directory = tempfile::tempdir().unwrap();
    for config in combinations() {
        let model = model(&config);
        let path = directory.path().join("model.safetensors");
        weights::save(&System, &path, &model).unwrap();
        let json = hf_config::to_json(&config, Some(1), &[2], Encoding::F32);
        let read = hf_config::from_json(&directory.path().join("config.json"), &json).unwrap();
        assert_eq!((&read.config, read.begin_id, &read.end_ids), (&config, Some(1), &vec![2]), "{json}");
        assert_eq!(read.unknown_keys, Vec::<String>::new(), "{json}");
        let loaded = weights::load(&path, &read.config, &device()).unwrap();
        let logits = |model: LanguageModel| model.forward(ids([1, 2, 3]), None).into_data();
        assert_eq!(logits(loaded), logits(model.for_generation()), "{config:?}");
    }
}

#[test]
fn presets_are_the_families_that_transformers_knows() {
    for (preset, family) in
        [(Preset::Gpt2, Family::Gpt2), (Preset::Llama, Family::Llama), (Preset::Qwen3, Family::Qwen3)]
    {
        let config = ModelOptions { preset, ..ModelOptions::default() }.resolve(23, 12);
        assert_eq!(Family::of(&config), family);
    }
    let qwen2 = ModelConfig { attention_bias: AttentionBias::Qkv, ..base() };
    assert_eq!(Family::of(&qwen2), Family::Qwen2);
    let of_its_own = ModelConfig { mlp: MlpKind::Relu2, ..base() };
    assert_eq!(Family::of(&of_its_own), Family::MiniLlm);
}

#[test]
fn a_later_token_changes_nothing_before_it() {
    for config in [base(), ModelConfig { position: Position::None, ..base() }] {
        let model = model(&config);
        let logits = |tokens| model.forward(ids(tokens), None).narrow(1, 0, 4).into_data();
        assert_eq!(logits([1, 2, 3, 4, 5]), logits([1, 2, 3, 4, 6]));
    }
}

#[test]
fn initial_values_follow_the_table() {
    let options = ModelOptions {
        preset: Preset::Gpt2,
        hidden_size: Some(128),
        num_hidden_layers: Some(8),
        ..ModelOptions::default()
    };
    let config = options.resolve(500, 32);
    let model = model(&config);
    let deviation = |values: Tensor<2>| -> f32 { values.square().mean().sqrt().into_scalar() };
    let block = &model.model.layers[3];
    // 16,384 and more draws: the deviation is known to within 0.6 %.
    let close = |got: f32, expected: f32| assert!((got / expected - 1.0).abs() < 0.03, "{got} {expected}");
    close(deviation(model.model.embed_tokens.weight.val()), 0.02);
    close(deviation(block.self_attn.q_proj.weight.val()), 0.02);
    close(deviation(block.self_attn.o_proj.weight.val()), 0.02 / 16_f32.sqrt());
    let bias: f32 = block.self_attn.q_proj.bias.as_ref().unwrap().val().abs().max().into_scalar();
    assert_eq!(bias.to_bits(), 0.0_f32.to_bits());
}

#[test]
fn initial_values_depend_on_seed_and_name_alone() {
    let weight = |config: &ModelConfig, seed| {
        let model = init::initialize(LanguageModel::new(config, &device()).unwrap(), seed);
        model.model.layers[1].self_attn.k_proj.weight.val().into_data()
    };
    let more_layers = ModelConfig { num_hidden_layers: 3, ..base() };
    assert_eq!(weight(&base(), 5), weight(&more_layers, 5));
    assert_ne!(weight(&base(), 5), weight(&base(), 6));
}

#[test]
fn a_fresh_model_knows_nothing() {
    // ln(23) nats: all tokens equally likely, within what small random weights change.
    let model = model(&base());
    let hidden = model.hidden_states(ids([1, 2, 3, 4]), None, Dropout::default());
    let loss: f32 = model.summed_loss(hidden, ids([2, 3, 4, 5])).into_scalar();
    assert!((loss / 4.0 - 23_f32.ln()).abs() < 0.15, "{loss}");
}

#[test]
fn loss_is_the_negative_log_likelihood_of_the_scored_targets() {
    let logits = Tensor::<2>::from_floats([[0.0, 0.0], [1.0, 0.0], [5.0, 1.0]], &device());
    let targets = Tensor::<1, Int>::from_ints([0, 1, IGNORED], &device());
    let loss: f32 = summed_cross_entropy(logits, targets).into_scalar();
    // ln 2 + ln(1 + e) = 0.693147 + 1.313262; the third row is not scored
    assert!((loss - 2.006_409).abs() < 1e-5, "{loss}");
}

#[test]
fn names_are_those_of_a_llama_file() {
    let names: Vec<_> = parameters::list(&model(&base())).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"model.layers.1.self_attn.q_proj.weight".to_owned()), "{names:?}");
    assert!(names.contains(&"model.layers.0.post_attention_layernorm.weight".to_owned()), "{names:?}");
    assert!(names.contains(&"model.layers.0.mlp.gate_proj.weight".to_owned()), "{names:?}");
    assert!(names.contains(&"lm_head.weight".to_owned()), "{names:?}");
}

#[test]
fn what_cannot_be_built_is_refused_by_field() {
    let refused = |change: &dyn Fn(&mut ModelConfig)| {
        let mut config = base();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    };
    let message = refused(&|config| config.num_key_value_heads = 3);
    assert_eq!(message, "`num_key_value_heads` is 3, which does not divide num_attention_heads = 4");
    assert!(refused(&|config| config.vocab_size = 0).contains("`vocab_size`"));
    assert!(refused(&|config| config.head_dim = 3).contains("`head_dim`"));
    assert!(refused(&|config| config.norm_eps = f64::NAN).contains("`norm_eps`"));
    assert!(refused(&|config| config.dropout = 1.0).contains("`dropout`"));
    // Sizes that no memory holds are refused before anything is built.
    assert!(refused(&|config| config.num_hidden_layers = 1_000_000).contains("`num_hidden_layers`"));
    assert!(refused(&|config| (config.vocab_size, config.hidden_size) = (1 << 24, 1 << 24)).contains("`vocab_size`"));
    let uneven = ModelOptions { hidden_size: Some(30), num_attention_heads: Some(4), ..ModelOptions::default() };
    let message = uneven.resolve(5, 8).validate().unwrap_err().to_string();
    assert!(message.contains("`num_attention_heads` is 4, which does not divide hidden_size = 30"), "{message}");
}

#[test]
fn what_is_not_finite_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let mut broken = model(&base());
    let norm = broken.model.embed_tokens.weight;
    broken.model.embed_tokens.weight = norm.map(|weight| weight / 0.0);
    let message = weights::save(&System, &path, &broken).unwrap_err().to_string();
    assert!(message.contains("model.safetensors") && message.contains("`model.embed_tokens.weight`"), "{message}");
    assert!(!path.exists());
}

/// Unsupported features change what a model computes: each is refused by the name of its field.
#[test]
fn what_cannot_be_honoured_is_refused_by_field() {
    let json = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = serde_json::from_str(&hf_config::to_json(&base(), None, &[], Encoding::F32)).unwrap();
        change(&mut json);
        hf_config::from_json(std::path::Path::new("config.json"), &json.to_string())
    };
    json(&|_| ()).unwrap();
    for (field, value) in [
        ("quantization_config", serde_json::json!({"bits": 4})),
        ("partial_rotary_factor", 0.5.into()),
        ("rope_parameters", "yarn".into()),
        ("rope_parameters", serde_json::json!({"rope_type": "longrope", "factor": 4.0})),
        ("rope_parameters", serde_json::json!({"rope_type": "default", "partial_rotary_factor": 0.5})),
        ("hidden_act", "gelu".into()),
        ("layer_types", serde_json::json!(["full_attention", "sliding_attention"])),
        ("model_type", serde_json::Value::Null),
        ("model_type", "bert".into()),
        ("num_hidden_layers", 1_000_000.into()),
        ("hidden_size", (-1).into()),
    ] {
        let message = json(&|json| json[field] = value.clone()).unwrap_err().to_string();
        assert!(message.contains(&format!("`{field}`")) && message.contains("config.json"), "{field}: {message}");
    }
    for (model_type, field, value) in [
        ("mistral", "attention_bias", serde_json::json!(true)),
        ("mistral", "sliding_window", serde_json::json!(0)),
        ("qwen2", "layer_types", serde_json::json!(["sliding_attention", "full_attention"])),
        ("qwen3", "layer_types", serde_json::json!(["full_attention", "linear_attention"])),
        ("qwen3", "layer_types", serde_json::json!(["full_attention"])),
    ] {
        let change = |json: &mut serde_json::Value| {
            (json["model_type"], json[field]) = (model_type.into(), value.clone());
        };
        let message = json(&change).unwrap_err().to_string();
        assert!(message.contains(&format!("`{field}`")), "{model_type}: {message}");
    }
}

#[test]
fn a_file_that_does_not_fit_lists_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    weights::save(&System, &path, &model(&base())).unwrap();
    let other = ModelConfig { tie_word_embeddings: true, qk_norm: true, intermediate_size: 48, ..base() };
    let message = weights::load(&path, &other, &device()).unwrap_err().to_string();
    assert!(message.contains("q_norm.weight"), "{message}");
    assert!(message.contains("mlp.down_proj.weight: file [16, 32], model [16, 48]"), "{message}");
    let deeper = ModelConfig { num_hidden_layers: 4_000, ..base() };
    let message = weights::load(&path, &deeper, &device()).unwrap_err().to_string();
    assert!(message.contains("`num_hidden_layers` is 4000"), "{message}");
    let fewer = ModelConfig { num_hidden_layers: 1, ..base() };
    let message = weights::load(&path, &fewer, &device()).unwrap_err().to_string();
    assert!(message.contains("not part of the model: `model.layers.1."), "{message}");
}

/// Trained with some angles, asked with others: the model with the other angles and the same weights.
#[test]
fn rotary_angles_can_be_changed_after_training() {
    let numbers = |logits: Tensor<3>| logits.try_into_vec_as::<f32>().unwrap();
    let long = ids(std::array::from_fn::<i32, 24, _>(|i| (i as i32 * 7 + 3) % 23));
    let trained = model(&base());
    let scalings =
        [RopeScaling::Linear { factor: 2.0 }, RopeScaling::yarn(2.0, 12), RopeScaling::Dynamic { factor: 2.0 }];
    let mut seen = vec![numbers(trained.forward(long.clone(), None))];
    for scaling in scalings {
        let context = if matches!(scaling, RopeScaling::Dynamic { .. }) { 12 } else { 24 };
        let config = ModelConfig { max_position_embeddings: context, rope_scaling: Some(scaling), ..base() };
        let changed = trained.clone().with_config(&config).unwrap();
        let logits = numbers(changed.forward(long.clone(), None));
        assert_eq!(logits, numbers(model(&config).forward(long.clone(), None)), "{scaling:?}");
        assert!(!seen.contains(&logits), "{scaling:?} changes nothing");
        seen.push(logits);
    }
}

/// What no weight depends on may change after training; anything else would be another model.
#[test]
fn a_model_knows_its_config_and_its_device() {
    let trained = model(&base());
    assert_eq!(trained.config(), &base());
    let config = ModelConfig { dropout: 0.1, ..base() };
    assert_eq!(trained.clone().with_config(&config).unwrap().config(), &config);
    let learned = ModelConfig { position: Position::Learned, ..base() };
    for (of, config) in [
        (&trained, ModelConfig { norm_eps: 0.1, ..base() }),
        (&trained, ModelConfig { hidden_size: 32, intermediate_size: 96, head_dim: 8, ..base() }),
        (&trained, learned.clone()),
        (&model(&learned), ModelConfig { max_position_embeddings: 24, ..learned.clone() }),
    ] {
        let error = of.clone().with_config(&config).unwrap_err().to_string();
        assert!(error.contains("another architecture"), "{error}");
    }

    let training = LanguageModel::new(&base(), &device().autodiff()).unwrap();
    assert!(training.device().is_autodiff());
    assert!(!training.valid().device().is_autodiff());
    assert!(training.valid().train().device().is_autodiff());
    assert!(!trained.for_generation().device().is_autodiff());
}

/// More tokens than there is room for end in a sentence about the cache, not in the backend's about a slice.
#[test]
fn a_full_cache_says_so() {
    let model = LanguageModel::new(&base(), &device()).unwrap();
    let mut cache = KvCache::new(&base(), 1, 3, &device());
    let _ = model.forward(ids([1, 2]), Some(&mut cache));
    let panic =
        std::panic::catch_unwind(AssertUnwindSafe(|| model.forward(ids([1, 2]), Some(&mut cache)))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert_eq!(message, "the cache has room for 3 positions, of which 2 are filled; 2 more do not fit");
}

#[test]
fn documents_in_a_row_do_not_see_each_other() {
    let window = ModelConfig { sliding_window: Some(2), ..base() };
    let learned = ModelConfig { position: Position::Learned, ..base() };
    for (config, compute) in [base(), window, learned]
        .into_iter()
        .flat_map(|config| [ComputeOptions::fastest(&device()), ComputeOptions::READABLE].map(|c| (config.clone(), c)))
    {
        let model = model(&config).with_compute(compute);
        let (first, second) = ([1, 2, 3], [4, 5, 6, 7]);
        let together = ids([1, 2, 3, 4, 5, 6, 7]);
        let documents = Documents::new(vec![0, 0, 0, 3, 3, 3, 3], 7);
        let off = Dropout::default;
        let row = model.hidden_states_of(together.clone(), Some(documents), off()); // [1, 7, D]
        let alone = Tensor::cat(
            vec![model.hidden_states(ids(first), None, off()), model.hidden_states(ids(second), None, off())],
            1,
        );
        let difference = |a: Tensor<3>, b: &Tensor<3>| (a - b.clone()).abs().max().into_scalar::<f32>();
        // Rotated by other angles, with the same differences: f32 rounds them apart by some 1e-7.
        assert!(difference(row.clone(), &alone) < 1e-5, "{config:?}");
        assert!(difference(model.hidden_states(together, None, off()), &alone) > 1e-3, "{config:?}");
    }
}

#[test]
fn more_tokens_are_more_rows_that_are_trained() {
    for tie_word_embeddings in [false, true] {
        let config = ModelConfig { tie_word_embeddings, ..base() };
        let on_tape = device().autodiff();
        let model = init::initialize(LanguageModel::new(&config, &on_tape).unwrap(), 5);
        let input = || Tensor::from_data(TensorData::new(vec![1, 2, 24], [1, 3]), &on_tape);
        let grown = model.clone().with_vocabulary(25);
        assert_eq!((grown.config().vocab_size, grown.clone().with_vocabulary(10).config().vocab_size), (25, 25));
        let logits = grown.forward(input(), None); // [1, 3, 25]
        assert_eq!(logits.dims(), [1, 3, 25]);
        // The mean of all rows gives the mean of all logits, up to the rounding of 23 terms.
        let mean = logits.clone().narrow(2, 0, 23).mean_dim(2);
        let difference = (logits.clone().narrow(2, 23, 2) - mean).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-6, "{difference}");
        let gradients = logits.powi_scalar(2).sum().backward();
        let rows = grown.model.embed_tokens.weight.val().grad(&gradients).unwrap();
        assert_eq!(rows.dims(), [25, 16]);
        assert!(rows.narrow(0, 24, 1).abs().max().into_scalar::<f32>() > 0.0);
    }
}

//! Models as other programs write them: names under wrappers, number formats, keys of configurations, files that are something
//! else. What means the same model must give the same logits, and what does not is refused by its name.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use fs_err as fs;
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::naming::Naming;
use minillm_model::checkpoint::weights::{self, HostTensors};
use minillm_model::checkpoint::{self, Checkpoint, Contents, gguf, hf_config, safetensors};
use minillm_model::config::{AttentionBias, ModelConfig, ModelOptions, Preset, RopeScaling};
use minillm_model::decoder::LanguageModel;
use minillm_model::encoding::Encoding;
use minillm_model::error::with_causes;
use minillm_model::init;
use minillm_model::tokenizer::Tokenizer;
use serde_json::{Value, json};

const WEIGHTS: &str = "model.safetensors";

fn config(preset: Preset, tied: bool) -> ModelConfig {
    let options = ModelOptions {
        preset,
        hidden_size: Some(16),
        num_hidden_layers: Some(2),
        num_attention_heads: Some(4),
        tie_word_embeddings: Some(tied),
        ..ModelOptions::default()
    };
    options.resolve(23, 12)
}

fn model(config: &ModelConfig) -> LanguageModel {
    init::initialize(LanguageModel::new(config, &Device::flex()).unwrap(), 5)
}

fn logits(model: &LanguageModel) -> Vec<f32> {
    let ids = Tensor::<2, Int>::from_data(TensorData::new(vec![3, 1, 4, 1, 5, 9, 2, 6], [1, 8]), &Device::flex());
    model.forward(ids, None).try_into_vec_as::<f32>().unwrap()
}

fn contents(config: &ModelConfig) -> Contents<'_> {
    Contents { config, tokenizer: None, begin_id: Some(1), end_ids: &[2], tokenizer_config: None, chat_template: None }
}

/// The family's own names.
fn tensors(config: &ModelConfig) -> HostTensors {
    Naming::written(config).to_foreign(weights::collect(&model(config)).unwrap())
}

/// A directory with this configuration and these tensors.
fn directory(config: &ModelConfig, tensors: &HostTensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    checkpoint::save_contents(&System, folder.path(), &contents(config), Encoding::F32).unwrap();
    weights::write(&System, &folder.path().join(WEIGHTS), tensors).unwrap();
    folder
}

fn load(path: &Path) -> Checkpoint {
    checkpoint::load(path, &Device::flex())
        .unwrap_or_else(|error| panic!("{}: {}", path.display(), with_causes(&error)))
}

/// The message and the hint.
fn refused(path: &Path) -> String {
    let error = checkpoint::load(path, &Device::flex()).unwrap_err();
    format!("{}\nhint: {}", with_causes(&error), error.hint().unwrap_or_default())
}

fn renamed(tensors: &HostTensors, rename: impl Fn(&str) -> String) -> HostTensors {
    tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

#[test]
fn names_under_wrappers_are_the_same_model() {
    for (preset, tied) in [(Preset::Llama, false), (Preset::Llama, true), (Preset::Qwen3, true), (Preset::Gpt2, true)] {
        let config = config(preset, tied);
        let tensors = tensors(&config);
        let expected = logits(&load(directory(&config, &tensors).path()).model);
        let base = if preset == Preset::Gpt2 { "transformer." } else { "model." };
        let whole = renamed(&tensors, |name| {
            if name.starts_with("model.") || name == "lm_head.weight" {
                name.to_owned()
            } else {
                format!("{base}{name}")
            }
        });
        let shortened = renamed(&tensors, |name| name.strip_prefix("model.").unwrap_or(name).to_owned());
        let mut spellings = vec![whole.clone(), shortened.clone()];
        for prefix in
            ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "_forward_module.", "net.", "a.b."]
        {
            spellings.push(renamed(&whole, |name| format!("{prefix}{name}")));
            spellings.push(renamed(&shortened, |name| format!("{prefix}{name}")));
        }
        spellings.push(renamed(&whole, |name| name.replace(".1.", ".1._checkpoint_wrapped_module.")));
        spellings.push(renamed(&shortened, |name| name.replace("mlp.", "mlp._orig_mod.")));
        for spelling in spellings {
            let name = spelling.keys().next().unwrap().clone();
            let folder = directory(&config, &spelling);
            let loaded = load(folder.path());
            assert_eq!(logits(&loaded.model), expected, "{preset:?} {tied} {name}");
            let is_wrapped = spelling.keys().any(|name| name.contains("_mod") || name.contains("module."));
            assert_eq!(loaded.warnings.len(), usize::from(is_wrapped), "{name}: {:?}", loaded.warnings);
            fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
            safetensors::write_shards(&System, folder.path(), &spelling, Encoding::F32, 3000).unwrap();
            assert_eq!(logits(&load(folder.path()).model), expected, "{preset:?} {tied} {name}, in shards");
        }
    }
}

#[test]
fn a_tied_matrix_may_have_either_name() {
    for (preset, embedding) in [(Preset::Llama, "model.embed_tokens.weight"), (Preset::Gpt2, "wte.weight")] {
        let config = config(preset, true);
        let tensors = tensors(&config);
        let expected = logits(&load(directory(&config, &tensors).path()).model);
        let under_head = renamed(&tensors, |name| name.replace(embedding, "lm_head.weight"));
        let mut under_both = tensors.clone();
        under_both.insert("lm_head.weight".to_owned(), tensors[embedding].clone());
        let mut spellings = vec![under_head.clone(), under_both.clone()];
        spellings.push(renamed(&under_head, |name| format!("module.{name}")));
        spellings.push(renamed(&under_both, |name| format!("_orig_mod.{name}")));
        for spelling in spellings {
            let loaded = load(directory(&config, &spelling).path());
            assert_eq!(logits(&loaded.model), expected, "{preset:?}");
            assert!(loaded.model.config().tie_word_embeddings);
        }
    }
}

/// As transformers 5 reads it.
#[test]
fn another_output_matrix_counts_although_the_config_says_tied() {
    for preset in [Preset::Llama, Preset::Gpt2] {
        let tied = config(preset, true);
        let mut tensors = tensors(&tied);
        let mut head = tensors.values().find(|tensor| tensor.shape == [23, 16]).unwrap().clone();
        head.values.reverse();
        tensors.insert("lm_head.weight".to_owned(), head.clone());
        let folder = directory(&tied, &tensors);
        let loaded = load(folder.path());
        assert!(!loaded.model.config().tie_word_embeddings);
        assert!(loaded.warnings[0].contains("`lm_head.weight` is another matrix"), "{:?}", loaded.warnings);

        let mut ours = weights::collect(&model(&tied)).unwrap();
        ours.insert("lm_head.weight".to_owned(), head);
        let untied = ModelConfig { tie_word_embeddings: false, ..tied.clone() };
        let other = directory(&untied, &ours);
        assert_eq!(logits(&loaded.model), logits(&load(other.path()).model), "{preset:?}");
        // Where the configuration is given and must stay, it is an error.
        let error = weights::load(folder.path(), &tied, &Device::flex()).unwrap_err();
        assert!(error.to_string().contains("not part of the model: `lm_head.weight`"), "{error}");
        assert!(error.hint().unwrap().contains("`tie_word_embeddings` is true, but"), "{:?}", error.hint());
    }
}

#[test]
fn names_that_do_not_fit_get_a_hint() {
    let config = config(Preset::Llama, false);
    let own = tensors(&config);
    let hint = |change: &dyn Fn(&mut HostTensors)| {
        let mut tensors = own.clone();
        change(&mut tensors);
        refused(directory(&config, &tensors).path())
    };
    let some = own["model.norm.weight"].clone();
    let add = |name: &str| hint(&|tensors| drop(tensors.insert(name.to_owned(), some.clone())));
    assert!(hint(&|tensors| drop(tensors.remove("lm_head.weight"))).contains("hint: the file has no output matrix"));
    assert!(
        add("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight")
            .contains("hint: these are the weights of a LoRA")
    );
    assert!(add("model.layers.0.mlp.up_proj.qweight").contains("quantized"));
    assert!(add("model.layers.0.mlp.up_proj.weight_scale").contains("quantized"));
    assert!(add("tok_embeddings.weight").contains("Meta's or Mistral's"));
    assert!(add("model.extra.weight").contains("hint: config.json and the weights must come from the same model"));
}

/// The file with some tensors in another format, each of the same numbers.
fn with_dtype(path: &Path, dtype: &str, encode: impl Fn(f32) -> Vec<u8>, is_changed: impl Fn(&str) -> bool) {
    let tensors = weights::read(path).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, tensor) in &tensors {
        let begin = data.len();
        let changed = is_changed(name);
        for value in &tensor.values {
            data.extend(if changed { encode(*value) } else { value.to_le_bytes().to_vec() });
        }
        let dtype = if changed { dtype } else { "F32" };
        header
            .insert(name.clone(), json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()).unwrap();
}

#[test]
fn other_float_formats_are_the_same_numbers() {
    let config = config(Preset::Llama, false);
    let tensors = tensors(&config);
    let expected = logits(&load(directory(&config, &tensors).path()).model);
    let norm = |name: &str| name.contains("norm"); // all ones in a fresh model
    let double = |value: f32| f64::from(value).to_le_bytes().to_vec();
    let folder = directory(&config, &tensors);
    let path = folder.path().join(WEIGHTS);
    for only_norms in [true, false] {
        weights::write(&System, &path, &tensors).unwrap();
        with_dtype(&path, "F64", double, |name| !only_norms || norm(name));
        assert_eq!(logits(&load(folder.path()).model), expected);
    }
    for (dtype, one) in
        [("F8_E4M3", vec![0x38]), ("F8_E5M2", vec![0x3c]), ("BF16", vec![0x80, 0x3f]), ("F16", vec![0, 0x3c])]
    {
        weights::write(&System, &path, &tensors).unwrap();
        with_dtype(&path, dtype, |_| one.clone(), norm);
        assert_eq!(logits(&load(folder.path()).model), expected, "{dtype}");
    }
    with_dtype(&path, "I32", |value| (value as i32).to_le_bytes().to_vec(), norm);
    let message = refused(folder.path());
    assert!(message.contains("is I32, which is not supported") && message.contains("F64, F32"), "{message}");
}

fn read_config(text: &str) -> Result<hf_config::HfConfig, String> {
    hf_config::from_json(Path::new("config.json"), text).map_err(|error| error.to_string())
}

fn edited(preset: Preset, changes: &Value) -> String {
    let mut json: Value = serde_json::from_str(&hf_config::to_json(
        &config(preset, preset == Preset::Gpt2),
        Some(1),
        &[2],
        Encoding::F32,
    ))
    .unwrap();
    json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json.to_string()
}

#[test]
fn keys_that_change_nothing_are_accepted() {
    for preset in [Preset::Llama, Preset::Qwen3, Preset::Gpt2] {
        let plain = read_config(&edited(preset, &json!({}))).unwrap();
        for changes in [
            json!({"partial_rotary_factor": 1.0}),
            json!({"partial_rotary_factor": 1, "rotary_pct": 1.0}),
            json!({"logits_scaling": 1.0, "embedding_multiplier": 1, "residual_multiplier": 1.0}),
            json!({"final_logit_softcapping": null, "attn_logit_softcapping": 0.0}),
            json!({"quantization_config": null, "pruned_heads": {}, "num_local_experts": 0, "is_encoder_decoder": false}),
            json!({"is_causal": true, "use_bidirectional_attention": false}),
            json!({"rope_scaling": {}}),
            json!({"transformers_version": "5.24.0", "auto_map": {"AutoModel": "x"}, "id2label": {"0": "a"}, "pad_token_id": -1}),
            json!({"_name_or_path": "a", "torch_dtype": "float16", "unsloth_version": "1"}),
            json!({"initializer_range": null, "use_cache": null}),
        ] {
            let read = read_config(&edited(preset, &changes));
            assert_eq!(read.as_ref(), Ok(&plain), "{preset:?} {changes}");
        }
        let read = read_config(&edited(preset, &json!({"eos_token_id": -1, "bos_token_id": -1}))).unwrap();
        assert_eq!((read.begin_id, read.end_ids), (None, vec![]));
        let read = read_config(&edited(preset, &json!({"eos_token_id": [2, -1, 5]}))).unwrap();
        assert_eq!(read.end_ids, [2, 5]);
        assert!(
            read_config(&edited(preset, &json!({"eos_token_id": -2}))).unwrap_err().contains("`eos_token_id` is -2")
        );
        let read =
            read_config(&edited(preset, &json!({"ff_mystery": 3, "no_mystery": false, "time_step_limit": [0, 1]})))
                .unwrap();
        assert_eq!((read.config, read.unknown_keys), (plain.config, vec!["ff_mystery".to_owned()]));
    }
    let nothing = hf_config::generation_end_ids(Path::new("generation_config.json"), r#"{"eos_token_id": -1}"#);
    assert_eq!(nothing.unwrap(), Some(vec![]));
    let windowed = read_config(&edited(Preset::Llama, &json!({"sliding_window": 4}))).unwrap();
    assert_eq!(windowed.unknown_keys, ["sliding_window"], "transformers' LLaMA has none");
}

#[test]
fn keys_that_change_the_numbers_are_refused() {
    for preset in [Preset::Llama, Preset::Qwen3, Preset::Gpt2] {
        for (key, value) in [
            ("partial_rotary_factor", json!(0.5)),
            ("rotary_pct", json!(0.25)),
            ("attn_logit_softcapping", json!(50.0)),
            ("final_logit_softcapping", json!(30.0)),
            ("logit_scale", json!(0.0625)),
            ("logits_scaling", json!(8)),
            ("embedding_multiplier", json!(12.0)),
            ("residual_multiplier", json!(0.22)),
            ("attention_multiplier", json!(0.1)),
            ("query_pre_attn_scalar", json!(144)),
            ("clip_qkv", json!(8.0)),
            ("num_local_experts", json!(8)),
            ("num_experts", json!(64)),
            ("use_parallel_residual", json!(true)),
            ("parallel_attn", json!(true)),
            ("alibi", json!(true)),
            ("no_rope_layers", json!([1, 0])),
            ("is_causal", json!(false)),
            ("use_bidirectional_attention", json!(true)),
            ("is_encoder_decoder", json!(true)),
            ("pruned_heads", json!({"0": [1]})),
            ("position_embedding_type", json!("relative_key")),
            ("quantization_config", json!({"bits": 4})),
            ("quantization", json!({"bits": 4, "group_size": 64})),
            ("attention_chunk_size", json!(8192)),
            ("rope_interleaved", json!(true)),
        ] {
            let message = read_config(&edited(preset, &json!({ key: value }))).unwrap_err();
            assert!(message.contains(&format!("`{key}`")), "{preset:?} {key}: {message}");
        }
    }
    for (changes, part) in [
        (json!({"scale_attn_weights": false}), "`scale_attn_weights`"),
        (json!({"add_cross_attention": true}), "`add_cross_attention`"),
        (json!({"activation_function": "relu"}), "`activation_function`"),
        (json!({"num_attention_heads": 2}), "`n_head` is 4, but `num_attention_heads` is 2"),
        (json!({"n_head": null}), "`n_head` is missing"),
    ] {
        let message = read_config(&edited(Preset::Gpt2, &changes)).unwrap_err();
        assert!(message.contains(part), "{changes}: {message}");
    }
    let renamed = json!({"n_head": null, "num_attention_heads": 4, "n_embd": null, "hidden_size": 16});
    assert_eq!(read_config(&edited(Preset::Gpt2, &renamed)).unwrap().config, config(Preset::Gpt2, true));
    let mixed =
        json!({"model_type": "mistral", "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]});
    let message = read_config(&edited(Preset::Llama, &mixed)).unwrap_err();
    assert!(message.contains("`layer_types`") && message.contains("MistralForCausalLM"), "{message}");
}

/// `Ok` with base and scaling, or part of the message.
type Positions = Result<(f64, Option<RopeScaling>), &'static str>;

#[test]
fn two_accounts_of_rotary_positions_agree_or_are_refused() {
    let linear = |factor| Some(RopeScaling::Linear { factor });
    let cases: Vec<(Value, Positions)> = vec![
        // transformers 4's keys beside transformers 5's: both versions take the scaling.
        (
            json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "rope_scaling": {"type": "linear", "factor": 4.0}}),
            Ok((1e4, linear(4.0))),
        ),
        (
            json!({"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e4, "rope_scaling": {"rope_type": "linear", "factor": 2}}),
            Ok((5e4, linear(2.0))),
        ),
        (
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, "rope_scaling": {"type": "linear", "factor": 2.0}}),
            Ok((1e4, linear(2.0))),
        ),
        (
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_scaling": {}}),
            Ok((1e4, linear(2.0))),
        ),
        (json!({"rope_parameters": {}, "rope_scaling": null, "rope_theta": 7e4}), Ok((7e4, None))),
        (
            json!({"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 1.0}, "rope_parameters": null}),
            Ok((1e4, None)),
        ),
        (
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_scaling": {"type": "linear", "factor": 4.0}}),
            Err("`rope_scaling` and `rope_parameters` describe different positions"),
        ),
        (
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_scaling": {"rope_type": "default"}}),
            Err("`rope_scaling` and `rope_parameters`"),
        ),
        // The base that transformers 5 would lose.
        (
            json!({"rope_parameters": {"rope_theta": 5e5}, "rope_theta": null, "rope_scaling": {"type": "linear", "factor": 4.0}}),
            Err("`rope_scaling` and `rope_parameters`"),
        ),
        (
            json!({"rope_parameters": {"rope_theta": 5e5}}),
            Err("`rope_theta` is 10000, but `rope_parameters` says 500000"),
        ),
        (json!({"rope_parameters": {"factor": 4.0}}), Err("has a `factor`, but no `rope_type`")),
        (
            json!({"rope_parameters": {"rope_type": "linear", "type": "dynamic", "factor": 4.0}}),
            Err("the type `dynamic`"),
        ),
        (json!({"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "alpha": 1000.0}}), Err("has `alpha`")),
        (json!({"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1]}}), Err("has `mrope_section`")),
        (
            json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
            Err("has `partial_rotary_factor`"),
        ),
        (json!({"rope_parameters": 8}), Err("`rope_parameters` is not an object")),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 6},
                "original_max_position_embeddings": 8}),
            Err("`original_max_position_embeddings` is 8, but `rope_parameters` says 6"),
        ),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}, "original_max_position_embeddings": 6}),
            Ok((1e4, Some(RopeScaling::yarn(2.0, 6)))),
        ),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": null, "beta_slow": 0, "finetuned": true}}),
            Ok((1e4, Some(RopeScaling::yarn(2.0, 12)))),
        ),
    ];
    for (changes, expected) in cases {
        let read = read_config(&edited(Preset::Llama, &changes))
            .map(|read| (read.config.rope_theta, read.config.rope_scaling));
        match expected {
            Ok(expected) => assert_eq!(read, Ok(expected), "{changes}"),
            Err(part) => {
                let message = read.unwrap_err();
                assert!(message.contains(part), "{changes}: {message}");
            }
        }
    }
}

#[test]
fn pythons_infinity_is_read_where_it_means_nothing() {
    let text = edited(Preset::Llama, &json!({}));
    let with = |extra: &str| read_config(&format!("{{{extra}, {}", &text[1..]));
    let plain = read_config(&text).unwrap();
    assert_eq!(with(r#""time_step_limit": [0.0, Infinity]"#).unwrap(), plain);
    assert_eq!(with(r#""label2id": {"Infinity": -Infinity, "a": NaN}"#).unwrap(), plain);
    assert_eq!(read_config(&format!("\u{feff}{text}")).unwrap(), plain);
    let message = with(r#""attn_logit_softcapping": Infinity"#).unwrap_err();
    assert!(message.contains("`attn_logit_softcapping` is set to \"Infinity\""), "{message}");
    let message = read_config(&text.replace("\"initializer_range\":0.02", "\"initializer_range\":NaN")).unwrap_err();
    assert!(message.contains("`initializer_range` is \"NaN\", not a number"), "{message}");

    let ends = hf_config::generation_end_ids(Path::new("g.json"), r#"{"temperature": Infinity, "eos_token_id": [3]}"#);
    assert_eq!(ends.unwrap(), Some(vec![3]));
    let template = hf_config::chat_template(r#"{"model_max_length": Infinity, "chat_template": "{{ Infinity }}"}"#);
    assert_eq!(template.as_deref(), Some("{{ Infinity }}"));
}

/// The names of the weight files, sorted.
fn shards(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("model-")).collect();
    names.sort();
    names
}

#[test]
fn pointers_of_git_lfs_are_named_wherever_they_are() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:2d8999b9\nsize 510401385\n";
    let config = config(Preset::Llama, false);
    let own = tensors(&config);
    let all = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        WEIGHTS,
    ];
    for name in all {
        let folder = directory(&config, &own);
        fs::write(folder.path().join(name), pointer).unwrap();
        let message = refused(folder.path());
        assert!(message.contains(name) && message.contains("Git LFS") && message.contains("git lfs pull"), "{message}");
    }
    let folder = directory(&config, &own);
    fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
    safetensors::write_shards(&System, folder.path(), &own, Encoding::F32, 3000).unwrap();
    for name in [&*shards(folder.path())[1], "model.safetensors.index.json"] {
        let path = folder.path().join(name);
        let sound = fs::read(&path).unwrap();
        fs::write(&path, pointer).unwrap();
        let message = refused(folder.path());
        assert!(message.contains(name) && message.contains("Git LFS"), "{message}");
        fs::write(&path, sound).unwrap();
    }
    load(folder.path());
    let gguf = folder.path().join("model.gguf");
    fs::write(&gguf, pointer).unwrap();
    assert!(refused(&gguf).contains("model.gguf`: is a Git LFS pointer"));
}

#[test]
fn weights_that_are_not_what_their_name_says_are_named() {
    let config = config(Preset::Llama, false);
    let folder = directory(&config, &tensors(&config));
    for (content, part) in [
        (&b"PK\x03\x04\0\0\x08\x08\0\0"[..], "is a pickle"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is a pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\x08\x01\x02\x03\x04", "is compressed"),
        (b"<!DOCTYPE html><html>", "is a web page"),
    ] {
        fs::write(folder.path().join(WEIGHTS), content).unwrap();
        let message = refused(folder.path());
        assert!(message.contains(part) && message.contains(WEIGHTS), "{message}");
    }
    fs::remove_file(folder.path().join(WEIGHTS)).unwrap();
    let message = refused(folder.path());
    assert!(message.contains("holds no weights"), "{message}");
    safetensors::write_shards(&System, folder.path(), &tensors(&config), Encoding::F32, 3000).unwrap();
    let shards = shards(folder.path());
    fs::remove_file(folder.path().join(&shards[2])).unwrap();
    let message = refused(folder.path());
    let part = format!("names {} files, of which `{}` are not here", shards.len(), shards[2]);
    assert!(message.contains(&part), "{message}");
}

/// A GGUF file of a small LLaMA, with other keys.
struct GgufFile {
    folder: tempfile::TempDir,
    config: ModelConfig,
}

impl GgufFile {
    fn new() -> Self {
        let config = config(Preset::Llama, false);
        let folder = tempfile::tempdir().unwrap();
        let tensors = weights::collect(&model(&config)).unwrap();
        gguf::save(&folder.path().join("sound"), "tiny", &contents(&config), tensors, Encoding::F32).unwrap();
        Self { folder, config }
    }

    /// The file with these keys instead of its own, or beside them.
    fn with(&self, changes: &[(&str, gguf::Value)]) -> std::path::PathBuf {
        let (keys, tensors) = gguf::read::open(&self.folder.path().join("sound")).unwrap();
        let mut keys: Vec<_> = keys.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        for (key, value) in changes {
            keys.retain(|(other, _)| other != key);
            keys.push(((*key).to_owned(), value.clone()));
        }
        let path = self.folder.path().join("changed");
        gguf::write::write(&path, &keys, &tensors.read_all().unwrap(), Encoding::F32).unwrap();
        path
    }

    fn scaling(&self, changes: &[(&str, gguf::Value)]) -> Option<RopeScaling> {
        load(&self.with(changes)).model.config().rope_scaling
    }
}

fn text(text: &str) -> gguf::Value {
    gguf::Value::Text(text.to_owned())
}

#[test]
fn ggufs_scaling_is_read_as_llama_cpp_reads_it() {
    use gguf::Value::{Float, Int};
    let file = GgufFile::new();
    let linear = Some(RopeScaling::Linear { factor: 4.0 });
    let (kind, factor, old) = ("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear");
    assert_eq!(file.scaling(&[(factor, Float(4.0))]), linear, "without a type");
    assert_eq!(file.scaling(&[(old, Float(4.0))]), linear, "the key of 2023");
    assert_eq!(file.scaling(&[(old, Float(2.0)), (factor, Float(4.0))]), linear, "the new key first");
    assert_eq!(file.scaling(&[(kind, text("linear")), (old, Float(4.0))]), linear);
    for nothing in [
        &[][..],
        &[(factor, Float(0.0))],
        &[(factor, Float(1.0))],
        &[(old, Int(1))],
        &[(kind, text("none")), (factor, Float(4.0))],
        &[(kind, text("linear"))],
        &[(kind, text("yarn")), ("llama.rope.scaling.original_context_length", Int(6))],
    ] {
        assert_eq!(file.scaling(nothing), None, "{nothing:?}");
    }
    let yarn = [(kind, text("yarn")), (factor, Float(2.0))];
    assert_eq!(file.scaling(&yarn), Some(RopeScaling::yarn(2.0, 12)), "the context is the original");
    let with = |more: &[(&'static str, gguf::Value)]| [&yarn[..], more].concat();
    let original = with(&[("llama.rope.scaling.original_context_length", Int(6))]);
    assert_eq!(file.scaling(&original), Some(RopeScaling::yarn(2.0, 6)));
    let betas =
        with(&[("llama.rope.scaling.yarn_beta_fast", Float(16.0)), ("llama.rope.scaling.yarn_beta_slow", Float(2.0))]);
    let expected = RopeScaling::Yarn {
        factor: 2.0,
        original_max_position_embeddings: 12,
        attention_factor: None,
        beta_fast: 16.0,
        beta_slow: 2.0,
        truncate: true,
    };
    assert_eq!(file.scaling(&betas), Some(expected));
    let usual = with(&[
        ("llama.rope.scaling.attn_factor", Float(1.0)),
        ("llama.rope.scaling.yarn_ext_factor", Float(1.0)),
        ("llama.rope.scaling.yarn_log_multiplier", Float(0.0)),
        ("llama.rope.scaling.finetuned", gguf::Value::Bool(true)),
    ]);
    assert_eq!(file.scaling(&usual), Some(RopeScaling::yarn(2.0, 12)));

    // What a scaling means, the logits show.
    let scaled = ModelConfig { rope_scaling: linear, ..file.config.clone() };
    let expected = logits(&model(&scaled).for_generation());
    assert_eq!(logits(&load(&file.with(&[(old, Float(4.0))])).model), expected);
}

#[test]
fn every_key_of_a_ggufs_architecture_counts() {
    use gguf::Value::{Bool, Float, Int, Ints};
    let file = GgufFile::new();
    let expected = logits(&load(&file.with(&[])).model);
    // The heads are 4 wide.
    for harmless in [
        ("llama.attention.causal", Bool(true)),
        ("llama.attention.scale", Float(0.5)),
        ("llama.attention.scale", Float(0.0)),
        ("llama.attention.clamp_kqv", Float(0.0)),
        ("llama.attention.max_alibi_bias", Float(0.0)),
        ("llama.logit_scale", Float(1.0)),
        ("llama.residual_scale", Float(1.0)),
        ("llama.embedding_scale", Float(0.0)),
        ("llama.final_logit_softcapping", Float(0.0)),
        ("llama.expert_count", Int(0)),
        ("llama.expert_used_count", Int(0)),
        ("llama.use_parallel_residual", Bool(false)),
        ("llama.vocab_size", Int(99)),
        ("llama.tensor_data_layout", text("Meta AI original pth")),
        ("llama.attention.sliding_window", Int(4096)),
        ("llama.attention.head_count", Ints(vec![4, 4])),
        ("llama.attention.head_count_kv", Ints(vec![4, 4])),
        ("llama.rope.scaling.yarn_ext_factor", Float(-1.0)),
        ("llama.pooling_type", Int(3)),
        ("general.type", text("model")),
        ("split.count", Int(1)),
        ("other.attention.causal", Bool(false)),
    ] {
        let loaded = load(&file.with(std::slice::from_ref(&harmless)));
        assert_eq!(logits(&loaded.model), expected, "{harmless:?}");
    }
    for (key, value) in [
        ("llama.attention.causal", Bool(false)),
        ("llama.attention.scale", Float(0.1)),
        ("llama.attention.clamp_kqv", Float(8.0)),
        ("llama.attention.max_alibi_bias", Float(8.0)),
        ("llama.attention.sliding_window", Int(4)),
        ("llama.attention.temperature_scale", Float(0.1)),
        ("llama.attention.value_length", Int(8)),
        ("llama.attention.head_count", Ints(vec![4, 2])),
        ("llama.attention.key_length_mla", Int(4)),
        ("llama.logit_scale", Float(0.0625)),
        ("llama.residual_scale", Float(0.22)),
        ("llama.embedding_scale", Float(12.0)),
        ("llama.attn_logit_softcapping", Float(50.0)),
        ("llama.final_logit_softcapping", Float(30.0)),
        ("llama.expert_count", Int(8)),
        ("llama.use_parallel_residual", Bool(true)),
        ("llama.nextn_predict_layers", Int(1)),
        ("llama.leading_dense_block_count", Int(1)),
        ("llama.rope.dimension_count", Int(2)),
        ("llama.rope.dimension_sections", Ints(vec![1, 1, 0, 0])),
        ("llama.rope.scaling.attn_factor", Float(1.5)),
        ("llama.rope.scaling.yarn_attn_factor", Float(0.5)),
        ("llama.rope.scaling.yarn_ext_factor", Float(0.5)),
        ("llama.rope.scaling.yarn_log_multiplier", Float(0.1)),
        ("llama.rope.scaling.alpha", Float(1000.0)),
        ("llama.rope.scaling.type", text("longrope")),
        ("llama.a_key_of_tomorrow", Float(3.0)),
        ("llama.ssm.state_size", Int(16)),
        ("general.type", text("adapter")),
        ("general.type", text("mmproj")),
        ("split.count", Int(2)),
    ] {
        let message = refused(&file.with(&[(key, value)]));
        assert!(message.contains(&format!("`{key}`")), "{key}: {message}");
    }
    let message = refused(&file.with(&[("split.count", Int(2)), ("split.no", Int(0))]));
    assert!(message.contains("split: this is part 1") && message.contains("llama-gguf-split --merge"), "{message}");
}

/// Biases as in Qwen2's files, which have no key of their own.
#[test]
fn biases_are_told_by_the_tensors() {
    let config = ModelConfig { attention_bias: AttentionBias::Qkv, ..config(Preset::Llama, false) };
    let folder = directory(&config, &tensors(&config));
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    for extra in [r#""attention_bias": false"#, r#""attention_bias": true"#, r#""mlp_bias": false"#] {
        fs::write(&path, format!("{{{extra},{}", &text[1..])).unwrap();
        assert_eq!(load(folder.path()).model.config(), &config, "{extra}");
    }
}

#[test]
fn the_architecture_alone_is_read_from_a_gguf_file_too() {
    let file = GgufFile::new();
    let path = file.with(&[]);
    assert_eq!(&checkpoint::read_config(&path).unwrap(), load(&path).model.config());
}

#[test]
fn a_tokenizer_that_is_something_else_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, "<!doctype html>").unwrap();
    assert!(checkpoint::read_tokenizer(&path).unwrap_err().to_string().contains("is a web page"));
    let tokenizer = Tokenizer::char_level(&"ab".chars().collect(), false).unwrap();
    fs::write(&path, tokenizer.to_json()).unwrap();
    assert_eq!(checkpoint::read_tokenizer(&path).unwrap().vocab_size(), 2);
}

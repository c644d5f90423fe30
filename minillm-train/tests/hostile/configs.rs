//! `config.json`: what is no configuration, and sizes that its weights do not have.

use serde_json::{Value, json};

use super::Loader::ConfigJson;
use super::{Case, SOUND, case, cut, edit, fixed, nested, replace, set};

pub(super) fn fields() -> Vec<Case> {
    let rope = |value: Value| set("/rope_parameters", value);
    let text = |text: &'static str| fixed(text);
    vec![
        case(ConfigJson, "empty", "is not JSON: EOF", text("")),
        case(ConfigJson, "not-utf8", "is not UTF-8", fixed(b"{\"model_type\": \"\xff\"}")),
        case(ConfigJson, "an-array", "is not a JSON object", text("[]")),
        case(ConfigJson, "nested", "recursion limit", fixed(format!("{{\"a\":{}}}", nested(10_000)))),
        case(ConfigJson, "over-1-mb", "is larger than", fixed(vec![b' '; 1 << 20])).of_length(1 << 30),
        case(
            ConfigJson,
            "not-a-number",
            "`rope_theta` is \"NaN\", not a number",
            replace("\"rope_theta\": 10000.0", "\"rope_theta\": NaN"),
        ),
        case(ConfigJson, "too-large-a-number", "number out of range", {
            replace("\"rope_theta\": 10000.0", "\"rope_theta\": 1e999")
        }),
        case(ConfigJson, "cut", "is not JSON: EOF", cut(1, 2)),
        case(ConfigJson, "no-model-type", "`model_type` is missing", text("{}")),
        case(ConfigJson, "unknown-model-type", "`model_type` is `mamba`", set("/model_type", json!("mamba"))),
        case(ConfigJson, "model-type-as-list", "`model_type` is [\"llama\"]", set("/model_type", json!(["llama"]))),
        case(ConfigJson, "quantized", "`quantization_config` is set", set("/quantization_config", json!({}))),
        case(ConfigJson, "activation", "`hidden_act` is `mish`", set("/hidden_act", json!("mish"))),
        case(ConfigJson, "flag-as-number", "`mlp_bias` is 1, not true or false", set("/mlp_bias", json!(1))),
        case(
            ConfigJson,
            "begin-past-32-bits",
            "`bos_token_id` is 4294967296",
            set("/bos_token_id", json!(1_u64 << 32)),
        ),
        case(ConfigJson, "begin-past-the-vocabulary", SOUND, set("/bos_token_id", json!(4_000_000_000_u32))),
        case(ConfigJson, "end-minus-1", SOUND, set("/eos_token_id", json!([2, -1]))),
        case(ConfigJson, "end-minus-2", "`eos_token_id` is [2,-2]", set("/eos_token_id", json!([2, -2]))),
        case(ConfigJson, "infinite-unknown", SOUND, replace("{", "{\"limits\": [0.0, Infinity, -Infinity, NaN],")),
        case(ConfigJson, "infinite-deviation", "`initializer_range` is \"Infinity\", not a number", {
            replace("\"initializer_range\": 0.02", "\"initializer_range\": Infinity")
        }),
        case(ConfigJson, "many-words", "is not JSON", fixed("NaN".repeat(300_000))),
        case(ConfigJson, "pointer", "config.json`: is a Git LFS pointer", {
            fixed("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
        }),
        case(ConfigJson, "softcapped", "`attn_logit_softcapping` is set to 50.0", {
            set("/attn_logit_softcapping", json!(50.0))
        }),
        case(ConfigJson, "rope-twice", "`rope_scaling` and `rope_parameters`", {
            edit(|config| {
                config["rope_scaling"] = json!({"type": "linear", "factor": 2});
                config["rope_parameters"] = json!({"rope_type": "dynamic", "factor": 2});
            })
        }),
        case(ConfigJson, "rope-unknown-key", "`rope_parameters` has `alpha`", {
            rope(json!({"rope_type": "dynamic", "factor": 2, "alpha": 1000}))
        }),
        case(ConfigJson, "own-type-with-strange-field", "unknown field", set("/model_type", json!("minillm"))),
        case(ConfigJson, "layer-types-of-others", "`layer_types`", {
            edit(|config| {
                config["model_type"] = json!("qwen2");
                config["layer_types"] = json!(["mamba", 3]);
            })
        }),
        case(ConfigJson, "rope-as-number", "`rope_parameters` is not an object", rope(json!(8))),
        case(ConfigJson, "rope-type", "`rope_parameters` has the rope_type `longrope`", {
            rope(json!({"rope_type": "longrope"}))
        }),
        case(ConfigJson, "rope-without-factor", "`factor` is missing", rope(json!({"rope_type": "linear"}))),
        case(ConfigJson, "rope-factor-0", "`rope_scaling` has a", rope(json!({"rope_type": "linear", "factor": 0}))),
        case(ConfigJson, "rope-factor-absurd", "`rope_scaling` has a", {
            rope(json!({"rope_type": "dynamic", "factor": 1e300}))
        }),
        case(ConfigJson, "rope-original-0", "`rope_scaling` has a", {
            rope(json!({"rope_type": "yarn", "original_max_position_embeddings": 0}))
        }),
        case(ConfigJson, "rope-bounds-swapped", "`rope_scaling` has a", {
            rope(json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
                "original_max_position_embeddings": 8192}))
        }),
    ]
}

pub(super) fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, field, value, verdict) in [
        ("vocabulary-0", "/vocab_size", json!(0), "`vocab_size` is 0"),
        ("vocabulary-negative", "/vocab_size", json!(-12), "`vocab_size` is -12, not a whole number"),
        ("vocabulary-absurd", "/vocab_size", json!(1_u64 << 60), "`vocab_size` is 1152921504606846976"),
        ("vocabulary-over-2-to-64", "/vocab_size", json!(1e20), "`vocab_size` is 1e+20, not a whole number"),
        ("vocabulary-below-the-tokens", "/vocab_size", json!(9), "model.safetensors` does not hold"),
        ("vocabulary-above-the-rows", "/vocab_size", json!(13), "model.safetensors` does not hold"),
        ("width-0", "/hidden_size", json!(0), "`hidden_size` is 0"),
        ("width-fraction", "/hidden_size", json!(4.5), "`hidden_size` is 4.5"),
        ("width-in-words", "/hidden_size", json!("4"), "`hidden_size` is \"4\""),
        ("width-missing", "/hidden_size", Value::Null, "`hidden_size` is missing"),
        ("width-absurd", "/hidden_size", json!(u64::MAX), "`hidden_size` is 18446744073709551615"),
        (
            "width-16-million",
            "/hidden_size",
            json!(1 << 24),
            "model.embed_tokens.weight: file [12, 4], model [12, 16777216]",
        ),
        ("width-of-another", "/hidden_size", json!(8), "model.safetensors` does not hold"),
        ("mlp-0", "/intermediate_size", json!(0), "`intermediate_size` is 0"),
        ("mlp-of-another", "/intermediate_size", json!(9), "mlp.down_proj.weight: file [4, 8], model [4, 9]`"),
        ("layers-0", "/num_hidden_layers", json!(0), "`num_hidden_layers` is 0"),
        ("layers-16-million", "/num_hidden_layers", json!(1 << 24), "`num_hidden_layers` is 16777216"),
        ("layers-without-tensors", "/num_hidden_layers", json!(4096), "has 21 tensors; `num_hidden_layers` is 4096"),
        ("layer-too-many", "/num_hidden_layers", json!(3), "missing: `model.layers.2.input_layernorm.weight`"),
        (
            "layer-too-few",
            "/num_hidden_layers",
            json!(1),
            "not part of the model: `model.layers.1.input_layernorm.weight`",
        ),
        ("heads-0", "/num_attention_heads", json!(0), "`num_attention_heads` is 0"),
        ("heads-16-million", "/num_attention_heads", json!(1 << 24), "q_proj.weight: file [4, 4], model [33554432, 4]"),
        ("heads-do-not-divide", "/num_attention_heads", json!(3), "q_proj.weight: file [4, 4], model [6, 4]"),
        ("key-heads-0", "/num_key_value_heads", json!(0), "`num_key_value_heads` is 0"),
        ("key-heads-do-not-divide", "/num_key_value_heads", json!(4), "`num_key_value_heads` is 4"),
        ("head-width-0", "/head_dim", json!(0), "`head_dim` is 0"),
        ("head-width-odd", "/head_dim", json!(3), "`head_dim` is 3"),
        ("head-width-absurd", "/head_dim", json!(1_u64 << 40), "`head_dim` is 1099511627776"),
        ("head-width-16-million", "/head_dim", json!(1 << 24), "model.safetensors` does not hold"),
        ("context-0", "/max_position_embeddings", json!(0), "`max_position_embeddings` is 0"),
        ("context-absurd", "/max_position_embeddings", json!(1_u64 << 40), "`max_position_embeddings` is"),
        ("context-16-million", "/max_position_embeddings", json!(1 << 24), SOUND),
        ("epsilon-0", "/rms_norm_eps", json!(0), "`norm_eps` is 0"),
        ("epsilon-negative", "/rms_norm_eps", json!(-1e-6), "`norm_eps` is -0.000001"),
        (
            "base-negative",
            "/rope_parameters/rope_theta",
            json!(-1),
            "`rope_theta` is 10000, but `rope_parameters` says -1",
        ),
        ("base-0", "/rope_parameters/rope_theta", json!(0), "`rope_theta` is 10000, but `rope_parameters` says 0"),
        ("dropout-2", "/attention_dropout", json!(2), "`dropout` is 2"),
        ("deviation-negative", "/initializer_range", json!(-1), "`initializer_range` is -1"),
        ("learned-positions", "/model_type", json!("gpt2"), "model.safetensors` does not hold"),
    ] {
        cases.push(case(ConfigJson, name, verdict, set(field, value)));
    }
    cases.push(case(ConfigJson, "learned-positions-16-million", "model.safetensors` does not hold", {
        fixed(
            json!({"model_type": "gpt2", "vocab_size": 12, "n_embd": 4, "n_head": 2, "n_layer": 2,
                "n_positions": 1 << 24})
            .to_string(),
        )
    }));
    cases
}

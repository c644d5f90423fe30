//! The text of `config.json` and `generation_config.json`, with every field that the strictest readers want.

use serde_json::{Value, json};

use super::super::family::Family;
use crate::config::{AttentionBias, MlpKind, ModelConfig};
use crate::encoding::Encoding;

/// The text of `config.json` beside weights of this encoding.
pub fn to_json(config: &ModelConfig, begin_id: Option<u32>, end_ids: &[u32], encoding: Encoding) -> String {
    let family = Family::of(config);
    let (model_type, class) = family.names();
    let mut fields = match family {
        Family::MiniLlm => serde_json::to_value(config).unwrap_or_default(),
        Family::Gpt2 => gpt2_fields(config),
        Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => llama_fields(config, family),
    };
    let dtype = match encoding {
        Encoding::F16 => "float16",
        Encoding::Bf16 => "bfloat16",
        Encoding::F32 | Encoding::Q8_0 => "float32",
    };
    let common = json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "bos_token_id": begin_id,
        "eos_token_id": one_or_more(end_ids),
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "torch_dtype": dtype,
        "dtype": dtype,
        "use_cache": true,
    });
    if let (Some(fields), Value::Object(common)) = (fields.as_object_mut(), common) {
        fields.extend(common);
    }
    pretty(&fields)
}

/// The text of `generation_config.json`.
pub fn generation_json(begin_id: Option<u32>, end_ids: &[u32]) -> String {
    pretty(&json!({ "bos_token_id": begin_id, "eos_token_id": one_or_more(end_ids) }))
}

/// Nothing, an id, or a list of ids.
fn one_or_more(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn llama_fields(config: &ModelConfig, family: Family) -> Value {
    let scaling = config.rope_scaling.map(|scaling| serde_json::to_value(scaling).unwrap_or_default());
    let mut rope_parameters = scaling.clone().unwrap_or_else(|| json!({ "rope_type": "default" }));
    rope_parameters["rope_theta"] = json!(config.rope_theta);
    let mut fields = json!({
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": rope_parameters,
        "attention_dropout": config.dropout,
    });
    match family {
        Family::Mistral => fields["sliding_window"] = json!(config.sliding_window),
        Family::Qwen2 | Family::Qwen3 => {
            let first = config.sliding_window.map_or(config.num_hidden_layers, |_| config.max_window_layers);
            // candle wants a number for Qwen2, and for Qwen3 none; without `use_sliding_window` it means nothing.
            let unused = (family == Family::Qwen2).then_some(config.max_position_embeddings);
            fields["sliding_window"] = json!(config.sliding_window.or(unused));
            fields["use_sliding_window"] = json!(config.sliding_window.is_some());
            fields["max_window_layers"] = json!(first);
        }
        _ => {}
    }
    if matches!(family, Family::Llama | Family::Qwen3) {
        fields["attention_bias"] = json!(config.attention_bias == AttentionBias::All);
    }
    if family == Family::Llama {
        fields["mlp_bias"] = json!(config.mlp_bias);
    }
    fields
}

fn gpt2_fields(config: &ModelConfig) -> Value {
    json!({
        "n_embd": config.hidden_size,
        "n_inner": config.intermediate_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_positions": config.max_position_embeddings,
        "n_ctx": config.max_position_embeddings,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": if config.mlp == MlpKind::GeluErf { "gelu" } else { "gelu_new" },
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
    })
}

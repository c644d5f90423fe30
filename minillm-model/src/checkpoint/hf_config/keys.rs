//! What becomes of each key of a `config.json`: it is read, says nothing about the model's numbers, is refused by its name
//! because it would change them, or is unknown.

use serde_json::Value;

use super::fields::Fields;
use crate::error::Result;

/// Keys that are read, for every family.
const READ: &[&str] = &[
    "model_type",
    "vocab_size",
    "tie_word_embeddings",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "hidden_size",
    "num_hidden_layers",
];

/// Keys that are read for LLaMA, Mistral, Qwen2 and Qwen3. Those of biases matter only for some of them; of what the others
/// have, the tensors tell.
const READ_LLAMA: &[&str] = &[
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "attention_bias",
    "mlp_bias",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "attention_dropout",
    "pretraining_tp",
];

/// Keys that are read for GPT-2, and dropout and heads for other tasks, which are not.
const READ_GPT2: &[&str] = &[
    "n_embd",
    "n_head",
    "n_layer",
    "n_positions",
    "n_inner",
    "n_ctx",
    "num_attention_heads",
    "max_position_embeddings",
    "activation_function",
    "layer_norm_epsilon",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn",
    "add_cross_attention",
    "summary_type",
    "summary_use_proj",
    "summary_activation",
    "summary_proj_to_labels",
    "summary_first_dropout",
];

/// Keys that say nothing about what a model computes: how it is stored, called and used.
const HARMLESS: &[&str] = &[
    "architectures",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chat_template",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "max_seq_len",
    "max_sequence_length",
    "min_length",
    "model_max_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "padding_side",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_dropout",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "time_step_limit",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
    "use_flash_attention_2",
];

/// Keys with which other architectures compute other numbers, with the values that leave them as they are. `null`, `false`
/// and what is empty always do.
const CHANGING: &[(&str, &[f64])] = &[
    ("add_bias_kv", &[]),
    ("alibi", &[]),
    ("apply_residual_connection_post_layernorm", &[]),
    ("attention_chunk_size", &[]),
    ("attention_multiplier", &[]),
    ("attention_scale", &[]),
    ("attention_scaling", &[]),
    ("attention_sink", &[]),
    ("attention_window_size", &[]),
    ("attn_logit_softcapping", &[0.0]),
    ("attn_output_gate", &[]),
    ("attn_scale", &[]),
    ("attn_temperature_tuning", &[0.0]),
    ("clip_qkv", &[]),
    ("compression_config", &[]),
    ("cross_attention_hidden_size", &[]),
    ("dim_model_base", &[]),
    ("embedding_multiplier", &[1.0]),
    ("embedding_scale", &[1.0]),
    ("final_logit_softcapping", &[0.0]),
    ("first_k_dense_replace", &[0.0]),
    ("hidden_activation", &[]),
    ("hybrid_override_pattern", &[]),
    ("is_encoder_decoder", &[]),
    ("kv_lora_rank", &[0.0]),
    ("layernorm_1p", &[]),
    ("lm_head_multiplier", &[1.0]),
    ("logit_scale", &[1.0]),
    ("logits_scale", &[1.0]),
    ("logits_scaling", &[1.0]),
    ("moe_intermediate_size", &[0.0]),
    ("mrope_section", &[]),
    ("mup_width_multiplier", &[1.0]),
    ("n_routed_experts", &[0.0]),
    ("n_shared_experts", &[0.0]),
    ("no_rope_layer_interval", &[0.0]),
    ("no_rope_layers", &[]),
    ("nope_layer_interval", &[0.0]),
    ("norm_after", &[]),
    ("num_experts", &[0.0]),
    ("num_experts_per_tok", &[0.0]),
    ("num_local_experts", &[0.0]),
    ("num_nextn_predict_layers", &[0.0]),
    ("parallel_attn", &[]),
    ("parallel_residual", &[]),
    ("partial_rotary_factor", &[1.0]),
    ("post_norm", &[]),
    ("pruned_heads", &[]),
    ("q_lora_rank", &[0.0]),
    ("qk_layernorm", &[]),
    ("quantization", &[]),
    ("query_pre_attn_scalar", &[]),
    ("relative_attention", &[]),
    ("residual_multiplier", &[1.0]),
    ("residual_scale", &[1.0]),
    ("rope_interleaved", &[]),
    ("rope_local_base_freq", &[]),
    ("rope_pct", &[1.0]),
    ("rope_percent", &[1.0]),
    ("rope_ratio", &[1.0]),
    ("rope_traditional", &[]),
    ("rotary_base", &[]),
    ("rotary_dim", &[]),
    ("rotary_emb_base", &[]),
    ("rotary_emb_fraction", &[1.0]),
    ("rotary_pct", &[1.0]),
    ("scale_depth", &[]),
    ("scale_emb", &[1.0]),
    ("scale_embedding", &[]),
    ("shared_kv_layers", &[0.0]),
    ("softmax_scale", &[]),
    ("swiglu_limit", &[0.0]),
    ("use_alibi", &[]),
    ("use_bidirectional_attention", &[]),
    ("use_cla", &[]),
    ("use_dynamic_ntk", &[]),
    ("use_logn_attn", &[]),
    ("use_mrope", &[]),
    ("use_parallel_residual", &[]),
    ("use_post_norm", &[]),
];

/// Keys with a rule of their own in [`check`].
const SPECIAL: &[&str] = &["quantization_config", "is_causal", "position_embedding_type", "use_qk_norm", "qk_norm"];

/// Whether a value leaves a model as it is: nothing, no, or one of these numbers.
pub(super) fn means_nothing(value: &Value, numbers: &[f64]) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64().is_some_and(|number| numbers.contains(&number)),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// Refuses keys whose values this family does not compute with, and returns those that are unknown.
pub(super) fn check(fields: &Fields, model_type: &str) -> Result<Vec<String>> {
    let refuse = |key: &str, value: &Value| {
        let shown = if value.is_object() || value.is_array() { String::new() } else { format!(" to {value}") };
        let problem = format!("is set{shown}, which is not supported");
        Err(fields.refuse(key, &problem, "use a model without it"))
    };
    let own: &[&str] = match model_type {
        "llama" | "mistral" | "qwen2" | "qwen3" => READ_LLAMA,
        "gpt2" => READ_GPT2,
        _ => return Ok(Vec::new()), // an unknown family, or our own, of which every key is checked
    };
    let mut unknown = Vec::new();
    for (key, value) in fields.fields {
        let key = key.as_str();
        let numbers = CHANGING.iter().find(|(name, _)| *name == key).map(|(_, numbers)| *numbers);
        let is_usual = match key {
            "quantization_config" => value.is_null(),
            "is_causal" => value.is_null() || *value == Value::Bool(true),
            "position_embedding_type" => {
                let usual: &[&str] = if model_type == "gpt2" { &["absolute", "learned"] } else { &["rope", "rotary"] };
                means_nothing(value, &[]) || value.as_str().is_some_and(|kind| usual.contains(&kind))
            }
            // What the queries' and keys' norm is called elsewhere.
            "use_qk_norm" | "qk_norm" => means_nothing(value, &[]) || model_type == "qwen3",
            _ => numbers.is_none_or(|numbers| means_nothing(value, numbers)),
        };
        if !is_usual {
            return refuse(key, value);
        }
        let is_known = numbers.is_some()
            || key.starts_with('_')
            || SPECIAL.contains(&key)
            || [READ, own, HARMLESS].iter().any(|list| list.contains(&key))
            || means_nothing(value, &[]);
        if !is_known || is_window_of_llama(fields, model_type, key) {
            unknown.push(key.to_owned());
        }
    }
    Ok(unknown)
}

/// `LlamaForCausalLM` has no window, but some files that were made from Mistral's say one.
fn is_window_of_llama(fields: &Fields, model_type: &str, key: &str) -> bool {
    let number = |key: &str| fields.get(key).and_then(Value::as_u64);
    key == "sliding_window"
        && model_type == "llama"
        && number(key) < number("max_position_embeddings")
        && fields.has(key)
}

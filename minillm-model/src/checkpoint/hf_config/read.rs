//! A `config.json` as our configuration.

use std::path::Path;

use serde_json::{Map, Value};

use super::fields::{Fields, as_usize};
use super::rope::read_rope;
use super::{HfConfig, keys};
use crate::config::{AttentionBias, MlpKind, ModelConfig, NormKind, Position};
use crate::error::{Error, Result};
use crate::json::quote_non_finite;

/// Reads the text of a `config.json`; `path` is for messages. The result has passed [`ModelConfig::validate`].
pub fn from_json(path: &Path, text: &str) -> Result<HfConfig> {
    let fields = object(path, text)?;
    let fields = Fields { path, fields: &fields };
    let model_type = fields.text("model_type")?;
    let model_type = fields.required("model_type", model_type)?;
    let unknown_keys = keys::check(&fields, model_type)?;
    let config = match model_type {
        "gpt2" => read_gpt2(&fields)?,
        "minillm" => read_minillm(&fields)?,
        "llama" | "mistral" | "qwen2" | "qwen3" => read_llama(&fields, model_type)?,
        other => {
            let supported = "llama, mistral, qwen2, qwen3, gpt2 and minillm";
            return Err(fields.refuse("model_type", &format!("is `{other}`"), &format!("supported: {supported}")));
        }
    };
    config.validate().map_err(|error| match error {
        Error::InvalidConfig { field, problem, hint } => {
            Error::InvalidFile { path: path.to_owned(), problem: format!("`{field}` {problem}"), hint }
        }
        other => other,
    })?;
    let begin_id = fields.ids("bos_token_id")?.first().copied();
    Ok(HfConfig { config, begin_id, end_ids: fields.ids("eos_token_id")?, unknown_keys })
}

/// The tokens that end a text according to a `generation_config.json`; `None` if it does not say.
pub fn generation_end_ids(path: &Path, text: &str) -> Result<Option<Vec<u32>>> {
    let fields = object(path, text)?;
    let fields = Fields { path, fields: &fields };
    Ok(if fields.has("eos_token_id") { Some(fields.ids("eos_token_id")?) } else { None })
}

fn object(path: &Path, text: &str) -> Result<Map<String, Value>> {
    let refuse = |problem: String| Error::InvalidFile {
        path: path.to_owned(),
        problem,
        hint: "copy the model's directory again".to_owned(),
    };
    match serde_json::from_str(&quote_non_finite(text)) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(refuse("is not a JSON object".to_owned())),
        Err(error) => Err(refuse(format!("is not JSON: {error}"))),
    }
}

fn read_minillm(fields: &Fields) -> Result<ModelConfig> {
    // Only our own fields: those for other readers (`dtype`, token ids) are left out before the strict reading.
    const FOREIGN: [&str; 7] =
        ["architectures", "model_type", "bos_token_id", "eos_token_id", "torch_dtype", "dtype", "use_cache"];
    let own: Map<_, _> = fields
        .fields
        .iter()
        .filter(|(key, value)| !FOREIGN.contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    serde_json::from_value(Value::Object(own)).map_err(|error| Error::InvalidFile {
        path: fields.path.to_owned(),
        problem: error.to_string(),
        hint: "the file was written by another version, or edited".to_owned(),
    })
}

fn read_llama(fields: &Fields, model_type: &str) -> Result<ModelConfig> {
    fields.only("hidden_act", &["silu", "swish"])?;
    if model_type == "mistral" && fields.flag("attention_bias", false)? {
        return Err(fields.refuse("attention_bias", "is true, which Mistral models have not", "use another model"));
    }
    let num_attention_heads = fields.count("num_attention_heads")?;
    let hidden_size = fields.count("hidden_size")?;
    let attention_bias = match model_type {
        "qwen2" => AttentionBias::Qkv,
        "mistral" => AttentionBias::None,
        _ if fields.flag("attention_bias", false)? => AttentionBias::All,
        _ => AttentionBias::None,
    };
    let (rope_theta, rope_scaling) = read_rope(fields)?;
    let num_hidden_layers = fields.count("num_hidden_layers")?;
    let (sliding_window, max_window_layers) = read_window(fields, model_type, num_hidden_layers)?;
    Ok(ModelConfig {
        vocab_size: fields.count("vocab_size")?,
        hidden_size,
        intermediate_size: fields.count("intermediate_size")?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: fields.count_or("num_key_value_heads", num_attention_heads)?,
        head_dim: fields.count_or("head_dim", hidden_size.checked_div(num_attention_heads).unwrap_or(0))?,
        max_position_embeddings: fields.count("max_position_embeddings")?,
        norm: NormKind::RmsNorm,
        norm_eps: fields.number("rms_norm_eps", 1e-6)?,
        position: Position::Rope,
        rope_theta,
        rope_scaling,
        sliding_window,
        max_window_layers,
        mlp: MlpKind::Swiglu,
        attention_bias,
        mlp_bias: model_type == "llama" && fields.flag("mlp_bias", false)?,
        qk_norm: model_type == "qwen3",
        tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
        dropout: fields.number("attention_dropout", 0.0)?,
        initializer_range: fields.number("initializer_range", 0.02)?,
    })
}

/// How far back queries look, and how many of the first blocks look at everything all the same. Mistral's window holds for
/// every block; Qwen's from `max_window_layers` on and only if `use_sliding_window`; `layer_types`, where it stands, says it
/// block by block.
fn read_window(fields: &Fields, model_type: &str, layers: usize) -> Result<(Option<usize>, usize)> {
    let usual = 4096; // transformers' default; `null` says that there is none
    let absent = !fields.fields.contains_key("sliding_window");
    let mut window = if absent { Some(usual) } else { fields.typed("sliding_window", "a whole number", as_usize)? };
    let mut first = if model_type == "mistral" { 0 } else { fields.count_or("max_window_layers", 28)? };
    if model_type.starts_with("qwen") && !fields.flag("use_sliding_window", false)? || model_type == "llama" {
        window = None;
    }
    if let Some(types) = fields.typed("layer_types", "a list", Value::as_array)? {
        let refuse =
            |problem: &str| fields.refuse("layer_types", problem, "supported: full_attention, then sliding_attention");
        let is_sliding = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => Err(refuse(&format!("has {kind}, which is not supported"))),
        };
        let sliding = types.iter().map(is_sliding).collect::<Result<Vec<_>>>()?;
        if sliding.len() != layers || !sliding.is_sorted() {
            return Err(refuse("does not have one kind for each block, or mixes them"));
        }
        let full = sliding.iter().filter(|sliding| !**sliding).count();
        if full < layers && window.is_none() {
            return Err(refuse("asks for a window, but `sliding_window` gives none"));
        }
        if model_type == "mistral" && full > 0 && window.is_some() {
            let problem = "has blocks without a window, which MistralForCausalLM does not compute";
            return Err(fields.refuse("layer_types", problem, "set `sliding_window` to null if no block has one"));
        }
        first = full;
    }
    // A window that no block has is none.
    Ok(if first < layers && window.is_some() { (window, first) } else { (None, 0) })
}

fn read_gpt2(fields: &Fields) -> Result<ModelConfig> {
    fields.only("activation_function", &["gelu_new", "gelu", "gelu_pytorch_tanh", "gelu_fast"])?;
    for (field, usual) in
        [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false), ("add_cross_attention", false)]
    {
        if fields.flag(field, usual)? != usual {
            return Err(fields.refuse(field, &format!("is {}", !usual), "such models are not supported"));
        }
    }
    // transformers takes either name of these.
    let hidden_size = fields.count_of_either("n_embd", "hidden_size")?;
    let num_attention_heads = fields.count_of_either("n_head", "num_attention_heads")?;
    let exact_gelu = fields.text("activation_function")? == Some("gelu");
    Ok(ModelConfig {
        vocab_size: fields.count("vocab_size")?,
        hidden_size,
        intermediate_size: fields.count_or("n_inner", hidden_size.saturating_mul(4))?,
        num_hidden_layers: fields.count_of_either("n_layer", "num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: num_attention_heads,
        head_dim: hidden_size.checked_div(num_attention_heads).unwrap_or(0),
        max_position_embeddings: fields.count_of_either("n_positions", "max_position_embeddings")?,
        norm: NormKind::LayerNorm,
        norm_eps: fields.number("layer_norm_epsilon", 1e-5)?,
        position: Position::Learned,
        rope_theta: 10_000.0,
        rope_scaling: None,
        sliding_window: None,
        max_window_layers: 0,
        mlp: if exact_gelu { MlpKind::GeluErf } else { MlpKind::Gelu },
        attention_bias: AttentionBias::All,
        mlp_bias: true,
        qk_norm: false,
        tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        dropout: fields.number("resid_pdrop", 0.0)?,
        initializer_range: fields.number("initializer_range", 0.02)?,
    })
}

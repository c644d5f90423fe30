//! `config.json`: our configuration in Hugging Face's words, and back.
//!
//! An architecture that transformers knows is written under its class, with every field that the strictest readers want
//! (both `torch_dtype` and `dtype`, both `rope_theta` with `rope_scaling` and the newer `rope_parameters`). Any other
//! combination carries `model_type: "minillm"` and [`ModelConfig`]'s own fields. Reading is lenient about what is
//! absent and strict about what it cannot honour: an unsupported feature is refused by the name of its field.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::{AttentionBias, Mlp, ModelConfig, Norm, Position, RopeScaling};
use crate::error::{Error, Result};

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig {
    /// The architecture.
    pub config: ModelConfig,
    /// Tokens that end a text.
    pub end_ids: Vec<u32>,
}

/// The families whose files we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `LlamaForCausalLM`
    Llama,
    /// `Qwen2ForCausalLM`
    Qwen2,
    /// `Qwen3ForCausalLM`
    Qwen3,
    /// `GPT2LMHeadModel`
    Gpt2,
    /// No class of transformers has this combination of switches.
    MiniLlm,
}

impl Family {
    /// The family that computes exactly what `config` describes.
    pub fn of(config: &ModelConfig) -> Self {
        let rotary = config.norm == Norm::RmsNorm && config.position == Position::Rope && config.mlp == Mlp::Swiglu;
        let heads_fill_width = config.head_dim * config.num_attention_heads == config.hidden_size;
        let gpt2 = config.norm == Norm::LayerNorm
            && config.position == Position::Learned
            && matches!(config.mlp, Mlp::Gelu | Mlp::GeluErf)
            && config.num_key_value_heads == config.num_attention_heads
            && heads_fill_width
            && config.attention_bias == AttentionBias::All
            && config.mlp_bias
            && config.tie_word_embeddings
            && !config.qk_norm;
        match config.attention_bias {
            _ if gpt2 => Self::Gpt2,
            AttentionBias::None | AttentionBias::All if rotary && !config.qk_norm => Self::Llama,
            AttentionBias::None | AttentionBias::All if rotary && !config.mlp_bias => Self::Qwen3,
            AttentionBias::Qkv if rotary && !config.qk_norm && !config.mlp_bias && heads_fill_width => Self::Qwen2,
            _ => Self::MiniLlm,
        }
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("llama", "LlamaForCausalLM"),
            Self::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Self::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Self::Gpt2 => ("gpt2", "GPT2LMHeadModel"),
            Self::MiniLlm => ("minillm", "MiniLlmForCausalLM"),
        }
    }
}

/// The text of `config.json`.
pub fn to_json(config: &ModelConfig, end_of_text: Option<u32>) -> String {
    let family = Family::of(config);
    let (model_type, class) = family.names();
    let mut fields = match family {
        Family::MiniLlm => serde_json::to_value(config).unwrap_or_default(),
        Family::Gpt2 => gpt2_fields(config),
        Family::Llama | Family::Qwen2 | Family::Qwen3 => llama_fields(config, family),
    };
    let common = json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "torch_dtype": "float32",
        "dtype": "float32",
        "use_cache": true,
    });
    if let (Some(fields), Value::Object(common)) = (fields.as_object_mut(), common) {
        fields.extend(common);
    }
    pretty(&fields)
}

/// The text of `generation_config.json`.
pub fn generation_json(end_of_text: Option<u32>) -> String {
    pretty(&json!({ "bos_token_id": end_of_text, "eos_token_id": end_of_text }))
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
    if family == Family::Qwen2 || family == Family::Qwen3 {
        fields["sliding_window"] = Value::Null;
        fields["use_sliding_window"] = json!(false);
        fields["max_window_layers"] = json!(config.num_hidden_layers);
    }
    if family != Family::Qwen2 {
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
        "activation_function": if config.mlp == Mlp::GeluErf { "gelu" } else { "gelu_new" },
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
    })
}

/// Reads the text of a `config.json`; `path` is for messages. The result has passed [`ModelConfig::validate`].
pub fn from_json(path: &Path, text: &str) -> Result<HfConfig> {
    let value: Value = serde_json::from_str(text).map_err(|error| Error::InvalidFile {
        path: path.to_owned(),
        problem: format!("is not JSON: {error}"),
        hint: "copy the model's directory again".to_owned(),
    })?;
    let Value::Object(fields) = value else {
        return Err(Error::InvalidFile {
            path: path.to_owned(),
            problem: "is not a JSON object".to_owned(),
            hint: "copy the model's directory again".to_owned(),
        });
    };
    let fields = Fields { path, fields: &fields };
    let model_type = fields.text("model_type")?;
    let model_type = fields.required("model_type", model_type)?;
    for field in ["quantization_config", "partial_rotary_factor"] {
        if fields.has(field) {
            return Err(fields.refuse(field, "is set, which is not supported", "use a model without it"));
        }
    }
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
    Ok(HfConfig { config, end_ids: fields.ids("eos_token_id")? })
}

fn read_minillm(fields: &Fields) -> Result<ModelConfig> {
    // Only our own fields: those for other readers (`dtype`, token ids) are left out before the strict reading.
    const FOREIGN: [&str; 7] =
        ["architectures", "model_type", "bos_token_id", "eos_token_id", "torch_dtype", "dtype", "use_cache"];
    let own: Map<_, _> = fields
        .fields
        .iter()
        .filter(|(key, _)| !FOREIGN.contains(&key.as_str()))
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
    let windowed = match model_type {
        "mistral" if fields.has("sliding_window") => Some("sliding_window"),
        "qwen2" | "qwen3" if fields.flag("use_sliding_window", false)? => Some("use_sliding_window"),
        _ if fields.text_of("layer_types").contains("sliding") => Some("layer_types"),
        _ => None,
    };
    if let Some(field) = windowed {
        let problem = "asks for a sliding window, which is not supported";
        return Err(fields.refuse(field, problem, "use a model without a window"));
    }
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
    Ok(ModelConfig {
        vocab_size: fields.count("vocab_size")?,
        hidden_size,
        intermediate_size: fields.count("intermediate_size")?,
        num_hidden_layers: fields.count("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: fields.count_or("num_key_value_heads", num_attention_heads)?,
        head_dim: fields.count_or("head_dim", hidden_size.checked_div(num_attention_heads).unwrap_or(0))?,
        max_position_embeddings: fields.count("max_position_embeddings")?,
        norm: Norm::RmsNorm,
        norm_eps: fields.number("rms_norm_eps", 1e-6)?,
        position: Position::Rope,
        rope_theta,
        rope_scaling,
        mlp: Mlp::Swiglu,
        attention_bias,
        mlp_bias: model_type == "llama" && fields.flag("mlp_bias", false)?,
        qk_norm: model_type == "qwen3",
        tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
        dropout: fields.number("attention_dropout", 0.0)?,
        initializer_range: fields.number("initializer_range", 0.02)?,
    })
}

/// transformers 5 writes `rope_parameters`; transformers 4 wrote `rope_theta` beside `rope_scaling`.
fn read_rope(fields: &Fields) -> Result<(f64, Option<RopeScaling>)> {
    let theta = fields.number("rope_theta", 10_000.0)?;
    let (key, value) = match (fields.fields.get("rope_parameters"), fields.fields.get("rope_scaling")) {
        (Some(Value::Object(parameters)), _) => ("rope_parameters", parameters),
        (_, Some(Value::Object(scaling))) => ("rope_scaling", scaling),
        (None | Some(Value::Null), None | Some(Value::Null)) => return Ok((theta, None)),
        _ => {
            let hint = "the file is damaged or was edited";
            return Err(fields.refuse("rope_scaling", "or `rope_parameters` is not an object", hint));
        }
    };
    let inner = Fields { path: fields.path, fields: value };
    if inner.has("partial_rotary_factor") {
        return Err(fields.refuse(key, "has a `partial_rotary_factor`, which is not supported", "use another model"));
    }
    let theta = inner.number("rope_theta", theta)?;
    let rope_type = inner.text("rope_type")?.or(inner.text("type")?).unwrap_or("default");
    let scaling = match rope_type {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: inner.required_number("factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: inner.required_number("factor")?,
            low_freq_factor: inner.required_number("low_freq_factor")?,
            high_freq_factor: inner.required_number("high_freq_factor")?,
            original_max_position_embeddings: inner.count("original_max_position_embeddings")?,
        }),
        other => {
            let hint = "supported rope types: default, linear, llama3";
            return Err(fields.refuse(key, &format!("has the rope_type `{other}`, which is not supported"), hint));
        }
    };
    Ok((theta, scaling))
}

fn read_gpt2(fields: &Fields) -> Result<ModelConfig> {
    fields.only("activation_function", &["gelu_new", "gelu", "gelu_pytorch_tanh"])?;
    for (field, usual) in
        [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false), ("add_cross_attention", false)]
    {
        if fields.flag(field, usual)? != usual {
            return Err(fields.refuse(field, &format!("is {}", !usual), "such models are not supported"));
        }
    }
    if !fields.flag("tie_word_embeddings", true)? {
        return Err(fields.refuse("tie_word_embeddings", "is false, which GPT-2 models have not", "use another model"));
    }
    let hidden_size = fields.count("n_embd")?;
    let num_attention_heads = fields.count("n_head")?;
    let exact_gelu = fields.text("activation_function")? == Some("gelu");
    Ok(ModelConfig {
        vocab_size: fields.count("vocab_size")?,
        hidden_size,
        intermediate_size: fields.count_or("n_inner", hidden_size.saturating_mul(4))?,
        num_hidden_layers: fields.count("n_layer")?,
        num_attention_heads,
        num_key_value_heads: num_attention_heads,
        head_dim: hidden_size.checked_div(num_attention_heads).unwrap_or(0),
        max_position_embeddings: fields.count("n_positions")?,
        norm: Norm::LayerNorm,
        norm_eps: fields.number("layer_norm_epsilon", 1e-5)?,
        position: Position::Learned,
        rope_theta: 10_000.0,
        rope_scaling: None,
        mlp: if exact_gelu { Mlp::GeluErf } else { Mlp::Gelu },
        attention_bias: AttentionBias::All,
        mlp_bias: true,
        qk_norm: false,
        tie_word_embeddings: true,
        dropout: fields.number("resid_pdrop", 0.0)?,
        initializer_range: fields.number("initializer_range", 0.02)?,
    })
}

/// Typed access to a JSON object, with errors that name file and field. `null` counts as absent.
struct Fields<'a> {
    path: &'a Path,
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    fn refuse(&self, field: &str, problem: &str, hint: &str) -> Error {
        Error::InvalidFile {
            path: self.path.to_owned(),
            problem: format!("`{field}` {problem}"),
            hint: hint.to_owned(),
        }
    }

    fn typed<T>(&self, field: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => {
                Err(self.refuse(field, &format!("is {value}, not {expected}"), "the file is damaged or was edited"))
            }
        }
    }

    fn required<T>(&self, field: &str, value: Option<T>) -> Result<T> {
        value
            .ok_or_else(|| self.refuse(field, "is missing", "the file is incomplete; copy the model's directory again"))
    }

    fn count(&self, field: &str) -> Result<usize> {
        let value = self.typed(field, "a whole number", as_usize)?;
        self.required(field, value)
    }

    fn count_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.typed(field, "a whole number", as_usize)?.unwrap_or(default))
    }

    fn number(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.typed(field, "a number", Value::as_f64)?.unwrap_or(default))
    }

    fn required_number(&self, field: &str) -> Result<f64> {
        let value = self.typed(field, "a number", Value::as_f64)?;
        self.required(field, value)
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool> {
        Ok(self.typed(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    fn text(&self, field: &str) -> Result<Option<&'a str>> {
        self.typed(field, "a text", Value::as_str)
    }

    /// The field as it stands in the file; empty if it does not.
    fn text_of(&self, field: &str) -> String {
        self.get(field).map(Value::to_string).unwrap_or_default()
    }

    fn only(&self, field: &str, allowed: &[&str]) -> Result<()> {
        match self.text(field)? {
            Some(value) if !allowed.contains(&value) => {
                let hint = format!("supported: {}", allowed.join(", "));
                Err(self.refuse(field, &format!("is `{value}`, which is not supported"), &hint))
            }
            _ => Ok(()),
        }
    }

    /// One token id, or a list of them.
    fn ids(&self, field: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let read = |value: &Value| match value {
            Value::Array(values) => values.iter().map(id).collect(),
            value => id(value).map(|id| vec![id]),
        };
        Ok(self.typed(field, "a token id or a list of them", read)?.unwrap_or_default())
    }
}

fn as_usize(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|value| usize::try_from(value).ok())
}

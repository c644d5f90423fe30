//! `config.json`: our configuration in Hugging Face's words, and back.
//!
//! An architecture that transformers knows is written under its class, with every field that the strictest readers want
//! (both `torch_dtype` and `dtype`, both `rope_theta` with `rope_scaling` and the newer `rope_parameters`). Any other
//! combination carries `model_type: "minillm"` and [`ModelConfig`]'s own fields. Reading is lenient about what is
//! absent and strict about what it cannot honour: an unsupported feature is refused by the name of its field.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::family::Family;
use crate::config::rope_scaling::{yarn_beta_fast, yarn_beta_slow};
use crate::config::{AttentionBias, Mlp, ModelConfig, Norm, Position, RopeScaling};
use crate::encoding::Encoding;
use crate::error::{Error, Result};

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig {
    /// The architecture.
    pub config: ModelConfig,
    /// The token that begins a text.
    pub begin_id: Option<u32>,
    /// Tokens that end a text.
    pub end_ids: Vec<u32>,
}

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

/// The chat template in a `tokenizer_config.json`, if it has one for general use.
pub fn chat_template(tokenizer_config: &str) -> Option<String> {
    let config: Value = serde_json::from_str(tokenizer_config).ok()?;
    let template = &config["chat_template"];
    let is_default = |named: &&Value| named["name"] == "default";
    let named = || template.as_array()?.iter().find(is_default)?["template"].as_str();
    template.as_str().or_else(named).map(str::to_owned)
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
        "activation_function": if config.mlp == Mlp::GeluErf { "gelu" } else { "gelu_new" },
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
    })
}

/// Reads the text of a `config.json`; `path` is for messages. The result has passed [`ModelConfig::validate`].
pub fn from_json(path: &Path, text: &str) -> Result<HfConfig> {
    let fields = object(path, text)?;
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
    let begin_id = fields.ids("bos_token_id")?.first().copied();
    Ok(HfConfig { config, begin_id, end_ids: fields.ids("eos_token_id")? })
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
    match serde_json::from_str(text) {
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
        norm: Norm::RmsNorm,
        norm_eps: fields.number("rms_norm_eps", 1e-6)?,
        position: Position::Rope,
        rope_theta,
        rope_scaling,
        sliding_window,
        max_window_layers,
        mlp: Mlp::Swiglu,
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
        first = sliding.iter().filter(|sliding| !**sliding).count();
        if first < layers && window.is_none() {
            return Err(refuse("asks for a window, but `sliding_window` gives none"));
        }
    }
    // A window that no block has is none.
    Ok(if first < layers && window.is_some() { (window, first) } else { (None, 0) })
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
        "dynamic" => Some(RopeScaling::Dynamic { factor: inner.required_number("factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: inner.required_number("factor")?,
            low_freq_factor: inner.required_number("low_freq_factor")?,
            high_freq_factor: inner.required_number("high_freq_factor")?,
            original_max_position_embeddings: inner.count("original_max_position_embeddings")?,
        }),
        "yarn" => Some(read_yarn(&inner, fields.count("max_position_embeddings")?)?),
        other => {
            let hint = "supported rope types: default, linear, dynamic, llama3, yarn";
            return Err(fields.refuse(key, &format!("has the rope_type `{other}`, which is not supported"), hint));
        }
    };
    Ok((theta, scaling))
}

/// YaRN with transformers' defaults; DeepSeek's two `mscale`s become the attention factor that they stand for.
fn read_yarn(fields: &Fields, longest: usize) -> Result<RopeScaling> {
    let original_max_position_embeddings = fields.count_or("original_max_position_embeddings", longest)?;
    let factor = match fields.typed("factor", "a number", Value::as_f64)? {
        Some(factor) => factor,
        None => longest as f64 / original_max_position_embeddings as f64,
    };
    let given = |field: &str| fields.typed(field, "a number", Value::as_f64);
    let size = |scale: f64| if factor > 1.0 { 0.1 * scale * factor.ln() + 1.0 } else { 1.0 };
    let attention_factor = match (given("attention_factor")?, given("mscale")?, given("mscale_all_dim")?) {
        (Some(factor), ..) => Some(factor),
        (None, Some(scale), Some(all)) if scale != 0.0 && all != 0.0 => Some(size(scale) / size(all)),
        _ => None,
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings,
        attention_factor,
        beta_fast: fields.number("beta_fast", yarn_beta_fast())?,
        beta_slow: fields.number("beta_slow", yarn_beta_slow())?,
        truncate: fields.flag("truncate", true)?,
    })
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
        sliding_window: None,
        max_window_layers: 0,
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

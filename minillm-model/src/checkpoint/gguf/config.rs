//! An architecture in GGUF's keys. llama.cpp computes four of our families: `llama`, `qwen2`, `qwen3` and `gpt2`.

use super::super::family::Family;
use super::super::tensor_files::{HostTensor, TensorFiles};
use super::read::Keys;
use super::write::KeyList;
use super::{Value, hyperparameters};
use crate::config::rope_scaling::{yarn_beta_fast, yarn_beta_slow};
use crate::config::{AttentionBias, MlpKind, ModelConfig, NormKind, Position, RopeScaling};
use crate::error::{Error, Result};
use crate::layers::rope_table::frequencies;

/// llama3 scaling in GGUF: what each pair's frequency is divided by.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Where those divisors come from, as config.json says it. They alone do not tell.
const ROPE_SCALING_KEY: &str = "minillm.rope_scaling";

/// llama.cpp's name for the architecture, or the switches of `config` that it has no name for.
pub fn architecture(config: &ModelConfig) -> Result<&'static str, Vec<&'static str>> {
    let family = Family::of(config);
    let mut blocking = match family {
        Family::MiniLlm => Family::nearest(config).1,
        Family::Qwen3 if config.attention_bias != AttentionBias::None => vec!["attention_bias"],
        Family::Gpt2 if config.mlp != MlpKind::Gelu => vec!["mlp"],
        _ => Vec::new(),
    };
    // llama.cpp looks at everything in these architectures.
    if config.sliding_window.is_some_and(|window| window < config.context()) {
        blocking.push("sliding_window");
    }
    let is_expressible = match config.rope_scaling {
        None | Some(RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. }) => true,
        Some(RopeScaling::Dynamic { .. }) => false,
        // Only with the paper's own numbers, which llama.cpp computes with.
        Some(RopeScaling::Yarn { attention_factor, beta_fast, beta_slow, truncate, .. }) => {
            let is_usual = |given: f64, usual: f64| (given - usual).abs() < 1e-9;
            attention_factor.is_none()
                && is_usual(beta_fast, yarn_beta_fast())
                && is_usual(beta_slow, yarn_beta_slow())
                && truncate
        }
    };
    if !is_expressible {
        blocking.push("rope_scaling");
    }
    blocking.dedup();
    match family {
        _ if !blocking.is_empty() => Err(blocking),
        Family::Qwen2 => Ok("qwen2"),
        Family::Qwen3 => Ok("qwen3"),
        Family::Gpt2 => Ok("gpt2"),
        // A window as wide as the context is none.
        Family::Llama | Family::Mistral | Family::MiniLlm => Ok("llama"),
    }
}

/// The keys of an architecture that [`architecture`] has a name for.
pub fn keys(architecture: &str, config: &ModelConfig) -> KeyList {
    let key = |name: &str| format!("{architecture}.{name}");
    let mut keys: KeyList = [
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("vocab_size", config.vocab_size),
    ]
    .map(|(name, count)| (key(name), Value::Int(count as i128)))
    .into();
    let eps = if config.norm == NormKind::LayerNorm { "layer_norm_epsilon" } else { "layer_norm_rms_epsilon" };
    keys.push((key(&format!("attention.{eps}")), Value::Float(config.norm_eps)));
    if config.position == Position::Rope {
        for name in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            keys.push((key(name), Value::Int(config.head_dim as i128)));
        }
        keys.push((key("rope.freq_base"), Value::Float(config.rope_theta)));
    }
    let scaling = match config.rope_scaling {
        Some(RopeScaling::Linear { factor }) => Some(("linear", factor, None)),
        Some(RopeScaling::Yarn { factor, original_max_position_embeddings, .. }) => {
            Some(("yarn", factor, Some(original_max_position_embeddings)))
        }
        _ => None,
    };
    if let Some((kind, factor, original)) = scaling {
        keys.push((key("rope.scaling.type"), Value::Text(kind.to_owned())));
        keys.push((key("rope.scaling.factor"), Value::Float(factor)));
        keys.extend(original.map(|tokens| (key("rope.scaling.original_context_length"), Value::Int(tokens as i128))));
    }
    if let Some(scaling @ RopeScaling::Llama3 { .. }) = config.rope_scaling {
        let text = serde_json::to_string(&scaling).unwrap_or_default();
        keys.push((ROPE_SCALING_KEY.to_owned(), Value::Text(text)));
    }
    keys
}

/// The tensor of llama3 scaling, where the model has it.
pub fn rope_factors(config: &ModelConfig) -> Option<HostTensor> {
    let Some(RopeScaling::Llama3 { .. }) = config.rope_scaling else { return None };
    let context = config.max_position_embeddings;
    let plain = frequencies(&ModelConfig { rope_scaling: None, ..config.clone() }, context);
    let scaled = frequencies(config, context);
    let values: Vec<f32> = plain.iter().zip(scaled).map(|(plain, scaled)| (plain / scaled) as f32).collect();
    Some(HostTensor { shape: vec![values.len()], values })
}

/// Reads a file's architecture and name of it. What GGUF's keys leave out (biases, tying) the tensors tell.
pub fn read(keys: &Keys, tensors: &TensorFiles) -> Result<(String, ModelConfig)> {
    hyperparameters::check_file(keys)?;
    let architecture = keys.required_text("general.architecture")?;
    if !["llama", "qwen2", "qwen3", "gpt2"].contains(&architecture) {
        let hint = "supported: llama, qwen2, qwen3 and gpt2";
        return Err(keys.refuse("general.architecture", &format!("is `{architecture}`"), hint));
    }
    let key = |name: &str| format!("{architecture}.{name}");
    let gpt2 = architecture == "gpt2";
    let has = |name: &str| tensors.get(name).is_some();
    let Some(&[vocab_size, _]) = tensors.get("token_embd.weight").map(|stored| &stored.shape[..]) else {
        return Err(Error::InvalidFile {
            path: keys.path().to_owned(),
            problem: "has no matrix `token_embd.weight`".to_owned(),
            hint: "convert the model again".to_owned(),
        });
    };
    let hidden_size = keys.required_count(&key("embedding_length"))?;
    let num_attention_heads = keys.required_uniform_count(&key("attention.head_count"))?;
    let usual_width = hidden_size.checked_div(num_attention_heads).unwrap_or(0);
    let head_dim = keys.count(&key("attention.key_length"))?.unwrap_or(usual_width);
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(width) = keys.count(&key(name))?
            && width != head_dim
            && !gpt2
        {
            let problem = format!("is {width}, and the heads are {head_dim} wide");
            return Err(keys.refuse(&key(name), &problem, "such models are not supported"));
        }
    }
    hyperparameters::check(keys, architecture, head_dim, !gpt2)?;
    let context = keys.required_count(&key("context_length"))?;
    if keys.count(&key("attention.sliding_window"))?.is_some_and(|window| window > 0 && window < context) {
        let problem = "is set: windows are not supported in GGUF";
        return Err(keys.refuse(&key("attention.sliding_window"), problem, "use the model's Hugging Face directory"));
    }
    let bias = match (has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias"), has("blk.0.attn_output.bias")) {
        (true, true) => AttentionBias::All,
        (true, false) => AttentionBias::Qkv,
        (false, _) => AttentionBias::None,
    };
    let eps = key(if gpt2 { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" });
    let mut config = ModelConfig {
        vocab_size,
        hidden_size,
        intermediate_size: keys.required_uniform_count(&key("feed_forward_length"))?,
        num_hidden_layers: keys.required_count(&key("block_count"))?,
        num_attention_heads,
        num_key_value_heads: keys.uniform_count(&key("attention.head_count_kv"))?.unwrap_or(num_attention_heads),
        head_dim,
        max_position_embeddings: context,
        norm: if gpt2 { NormKind::LayerNorm } else { NormKind::RmsNorm },
        norm_eps: shortest(keys.required_number(&eps)?),
        position: if gpt2 { Position::Learned } else { Position::Rope },
        rope_theta: shortest(keys.number(&key("rope.freq_base"))?.unwrap_or(10_000.0)),
        rope_scaling: None,
        sliding_window: None,
        max_window_layers: 0,
        mlp: if gpt2 { MlpKind::Gelu } else { MlpKind::Swiglu },
        attention_bias: bias,
        mlp_bias: has("blk.0.ffn_up.bias"),
        qk_norm: architecture == "qwen3",
        tie_word_embeddings: !has("output.weight"),
        dropout: 0.0,
        initializer_range: 0.02,
    };
    // Before anything is computed from them.
    config.validate().map_err(|error| in_file(keys, error))?;
    if !gpt2 {
        config.rope_scaling = read_scaling(keys, tensors, &config, architecture)?;
    }
    config.validate().map_err(|error| in_file(keys, error))?;
    Ok((architecture.to_owned(), config))
}

/// GGUF has f32 where a config has decimals: 1e-5, and not 0.0000099999997.
fn shortest(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

fn in_file(keys: &Keys, error: Error) -> Error {
    match error {
        Error::InvalidConfig { field, problem, hint } => {
            Error::InvalidFile { path: keys.path().to_owned(), problem: format!("`{field}` {problem}"), hint }
        }
        other => other,
    }
}

/// As llama.cpp reads it: without a type a scaling is linear, `rope.scale_linear` is what `rope.scaling.factor` was called in
/// 2023, and a factor of 0 is none.
fn read_scaling(
    keys: &Keys,
    tensors: &TensorFiles,
    config: &ModelConfig,
    architecture: &str,
) -> Result<Option<RopeScaling>> {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let kind = keys.text(&key("scaling.type"))?.unwrap_or("linear");
    if !["none", "linear", "yarn"].contains(&kind) {
        let problem = format!("is `{kind}`, which is not supported");
        return Err(keys.refuse(&key("scaling.type"), &problem, "supported: none, linear, yarn"));
    }
    let mut factor_key = key("scaling.factor");
    if keys.number(&factor_key)?.is_none() && keys.number(&key("scale_linear"))?.is_some() {
        factor_key = key("scale_linear");
    }
    let factor = keys.number(&factor_key)?.filter(|factor| *factor != 0.0).map(shortest);
    let is_one = |factor: f64| (factor - 1.0).abs() <= f64::EPSILON;
    let factor = factor.filter(|factor| kind != "none" && !is_one(*factor));
    if tensors.get(ROPE_FACTORS).is_some() {
        if factor.is_some() {
            let problem = format!("is set, and `{ROPE_FACTORS}` changes the angles, too: both are not supported");
            return Err(keys.refuse(&factor_key, &problem, "use the model's Hugging Face directory"));
        }
        return read_factors(keys, tensors, config).map(Some);
    }
    let Some(factor) = factor else { return Ok(None) };
    if kind == "linear" {
        return Ok(Some(RopeScaling::Linear { factor }));
    }
    let beta = |name: &str, usual: f64| Ok(keys.number(&key(name))?.map_or(usual, shortest));
    let original = keys.count(&key("scaling.original_context_length"))?.filter(|tokens| *tokens > 0);
    Ok(Some(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original.unwrap_or(config.max_position_embeddings),
        attention_factor: None,
        beta_fast: beta("scaling.yarn_beta_fast", yarn_beta_fast())?,
        beta_slow: beta("scaling.yarn_beta_slow", yarn_beta_slow())?,
        truncate: true,
    }))
}

/// The llama3 scaling that gives the file's divisors: what our own files say, else Llama 3's published numbers.
fn read_factors(keys: &Keys, tensors: &TensorFiles, config: &ModelConfig) -> Result<RopeScaling> {
    const TOLERANCE: f32 = 1e-4; // the divisors are f32, computed by different programs
    let refuse = |problem: &str| {
        keys.refuse(
            ROPE_FACTORS,
            problem,
            "use the model's Hugging Face directory, whose config.json says how it was made",
        )
    };
    let pairs = config.head_dim / 2;
    if tensors.get(ROPE_FACTORS).is_some_and(|stored| stored.shape != [pairs]) {
        return Err(refuse(&format!("is not a list of {pairs} numbers")));
    }
    let factors = tensors.read(ROPE_FACTORS)?.values;
    let largest = factors.iter().copied().fold(1.0, f32::max);
    let scaling = match keys.text(ROPE_SCALING_KEY)? {
        Some(text) => serde_json::from_str(text).map_err(|error| {
            keys.refuse(ROPE_SCALING_KEY, &format!("is no rotary scaling: {error}"), "convert again")
        })?,
        None => RopeScaling::Llama3 {
            factor: f64::from(largest),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        },
    };
    let scaled = ModelConfig { rope_scaling: Some(scaling), ..config.clone() };
    scaled.validate().map_err(|error| in_file(keys, error))?;
    let expected = rope_factors(&scaled).map(|tensor| tensor.values).unwrap_or_default();
    let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * b.abs();
    if expected.len() != factors.len() || !factors.iter().zip(&expected).all(is_close) {
        return Err(refuse("are not the divisors of a known scaling"));
    }
    Ok(scaling)
}

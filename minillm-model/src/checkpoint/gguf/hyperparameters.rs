//! What becomes of each key of a GGUF file's architecture: it is read, says nothing about the model's numbers, or is refused by
//! its name because llama.cpp's architectures would compute other numbers with it. The names are those of llama.cpp's
//! `llama-arch.cpp`.

use super::Value;
use super::read::Keys;
use crate::error::Result;

/// Keys that are read by [`config`](super::config), with what they may be.
const READ: &[&str] = &[
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];

/// Keys that say nothing about the logits, or only about windows, which are refused by their own key.
const HARMLESS: &[&str] = &[
    "vocab_size", // the embedding's rows say it
    "tensor_data_layout",
    "pooling_type",
    "classifier.output_labels",
    "rope.scaling.finetuned",
    "rope.freq_base_swa",
    "rope.dimension_count_swa",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "attention.sliding_window_pattern",
];

/// Factors, which are nothing as 1. (0 stands for absent here as everywhere.)
const FACTORS: &[&str] = &[
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.output_scale",
    "attention.value_scale",
    "expert_weights_scale",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_attn_factor",
];

/// Whether llama.cpp takes this value as if the key were absent.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Int(int) => *int == 0,
        Value::Float(float) => *float == 0.0,
        Value::Bool(flag) => !flag,
        Value::Text(text) => text.is_empty(),
        Value::Texts(texts) => texts.is_empty(),
        Value::Ints(ints) => ints.iter().all(|int| *int == 0),
        Value::Floats(floats) => floats.iter().all(|float| *float == 0.0),
        Value::Bools(flags) => flags.iter().all(|flag| !flag),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(int) => Some(*int as f64),
        Value::Float(float) => Some(*float),
        _ => None,
    }
}

/// Refuses files that are no whole model: a part of one, an adapter, a projector.
pub(super) fn check_file(keys: &Keys) -> Result<()> {
    if let Some(count) = keys.count("split.count")?.filter(|count| *count > 1) {
        let part = keys.count("split.no")?.map_or_else(String::new, |number| format!(": this is part {}", number + 1));
        let hint = "join the parts with llama.cpp: `llama-gguf-split --merge FIRST_PART.gguf MODEL.gguf`";
        return Err(keys.refuse("split.count", &format!("is {count}, so the model is split{part}"), hint));
    }
    match keys.text("general.type")? {
        None | Some("" | "model") => Ok(()),
        Some("adapter") => {
            let hint = "merge it into its base model (llama.cpp: `llama-export-lora`), or give that model";
            Err(keys.refuse("general.type", "is `adapter`: the file is a LoRA adapter for another model", hint))
        }
        Some(other) => Err(keys.refuse("general.type", &format!("is `{other}`, not `model`"), "give the model's file")),
    }
}

/// Refuses keys of the architecture that would change what it computes. With learned positions nothing is rotated, and the
/// keys about that say nothing.
pub(super) fn check(keys: &Keys, architecture: &str, head_dim: usize, rotates: bool) -> Result<()> {
    let is_close = |value: f64, usual: f64| (value - usual).abs() <= 1e-6 * usual.abs();
    let prefix = format!("{architecture}.");
    for (key, value) in keys.iter() {
        let Some(name) = key.strip_prefix(&prefix) else { continue };
        if READ.contains(&name) || HARMLESS.contains(&name) || name.starts_with("rope.") && !rotates {
            continue;
        }
        let means_nothing = match name {
            "attention.causal" => *value == Value::Bool(true),
            "attention.scale" => {
                is_absent(value) || number(value).is_some_and(|scale| is_close(scale, 1.0 / (head_dim as f64).sqrt()))
            }
            // Below 0 it stands for what the type of the scaling implies: 1 for `yarn`.
            "rope.scaling.yarn_ext_factor" => {
                let usual = if keys.text(&format!("{prefix}rope.scaling.type"))? == Some("yarn") { 1.0 } else { 0.0 };
                number(value).is_some_and(|factor| factor < 0.0 || is_close(factor, usual))
            }
            name if FACTORS.contains(&name) => {
                is_absent(value) || number(value).is_some_and(|factor| is_close(factor, 1.0))
            }
            _ => is_absent(value),
        };
        if !means_nothing {
            let shown = match value {
                Value::Int(int) => format!(" to {int}"),
                Value::Float(float) => format!(" to {}", *float as f32),
                Value::Bool(flag) => format!(" to {flag}"),
                Value::Text(text) if text.len() < 40 => format!(" to `{text}`"),
                _ => String::new(),
            };
            let hint = "use another model, or the model's Hugging Face directory";
            return Err(keys.refuse(key, &format!("is set{shown}, which is not supported"), hint));
        }
    }
    Ok(())
}

//! `adapter_config.json`, as PEFT 0.21 writes it.

use std::fmt;
use std::path::Path;

use regex::Regex;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::checkpoint::file::read_text;
use crate::error::{Error, Result};

/// The name of the file.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

const MAX_BYTES: u64 = 1 << 20;

/// Keys that change what an adapter computes in a way that is not computed here, unless they are absent, null, false or empty.
const REFUSED: [(&str, &str); 10] = [
    ("use_dora", "is DoRA"),
    ("lora_bias", "adds a bias of LoRA's own"),
    ("trainable_token_indices", "trains single rows of the embedding"),
    ("layer_replication", "repeats layers"),
    ("use_qalora", "is QALoRA"),
    ("use_bdlora", "is BD-LoRA"),
    ("alora_invocation_tokens", "is switched on by tokens (aLoRA)"),
    ("arrow_config", "chooses among adapters (Arrow)"),
    ("target_parameters", "adapts parameters that are no modules"),
    ("megatron_config", "is for Megatron's layers"),
];

/// Keys without effect on what is computed with the tensors of the file.
const WITHOUT_EFFECT: [&str; 28] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "alpha_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Ways of beginning that change the base model, too: its file then is not what the adapter is for.
const CHANGES_BASE: [&str; 4] = ["pissa", "olora", "corda", "loftq"];

/// What the file says about the size of an adapter's change.
#[derive(Debug)]
pub struct AdapterConfig {
    alpha: f64,
    /// Modules with an alpha of their own.
    alphas: Vec<(Regex, f64)>,
    is_rank_stabilized: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The name or path of the model that the adapter in `directory` is for.
pub fn base_model(directory: &Path) -> Option<String> {
    let text = read_text(&directory.join(ADAPTER_CONFIG_FILE), MAX_BYTES, "the adapter's config").ok()?;
    let file: Value = serde_json::from_str(&text).ok()?;
    file["base_model_name_or_path"].as_str().map(str::to_owned)
}

impl AdapterConfig {
    /// Reads the file in `directory`.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(ADAPTER_CONFIG_FILE);
        let text = read_text(&path, MAX_BYTES, "the adapter's config")?;
        Self::parse(&text).map_err(|problem| Error::InvalidFile {
            path,
            problem,
            hint: "merge it into its model with the program that made it (in peft: `merge_and_unload`)".to_owned(),
        })
    }

    /// Errors continue the file's name.
    fn parse(text: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        if file["peft_type"] != "LORA" {
            return Err(format!("has the `peft_type` {}, which is not LORA", file["peft_type"]));
        }
        if let Some((key, what)) = REFUSED.iter().find(|(key, _)| says_something(&file[*key])) {
            return Err(format!("has `{key}`: it {what}, which is not computed here"));
        }
        if let Some(start) = file["init_lora_weights"].as_str()
            && CHANGES_BASE.iter().any(|name| start.to_lowercase().starts_with(name))
        {
            return Err(format!("has `init_lora_weights` \"{start}\", which changes the base model, too"));
        }
        let alpha = file["lora_alpha"].as_f64().ok_or("has no `lora_alpha` that is a number")?;
        let mut alphas = Vec::new();
        let OfModules { alpha_pattern } =
            serde_json::from_str(text).map_err(|error| format!("has an `alpha_pattern` that is none: {error}"))?;
        for (pattern, alpha) in alpha_pattern.unwrap_or_default().0 {
            // The name's end, from a dot on, or all of it.
            let pattern = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
                .map_err(|_| format!("has an `alpha_pattern` for `{pattern}`, which is not a regular expression"))?;
            alphas.push((pattern, alpha));
        }
        let known = |key: &str| WITHOUT_EFFECT.contains(&key) || REFUSED.iter().any(|(name, _)| *name == key);
        let unknown: Vec<_> = file
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| !known(key) && says_something(value))
            .collect();
        let names: Vec<_> = unknown.iter().map(|(key, _)| format!("`{key}`")).collect();
        let warnings = (!names.is_empty()).then(|| {
            format!("{ADAPTER_CONFIG_FILE} has keys that are unknown here and have no effect: {}", names.join(", "))
        });
        let is_rank_stabilized = file["use_rslora"] == true;
        Ok(Self { alpha, alphas, is_rank_stabilized, warnings: warnings.into_iter().collect() })
    }

    /// What `B A` is multiplied by in `module`.
    pub fn scale(&self, module: &str, rank: usize) -> f64 {
        let own = self.alphas.iter().find(|(pattern, _)| pattern.is_match(module));
        let alpha = own.map_or(self.alpha, |(_, alpha)| *alpha);
        let rank = rank as f64;
        alpha / if self.is_rank_stabilized { rank.sqrt() } else { rank }
    }
}

/// What the file says about single modules.
#[derive(Deserialize)]
struct OfModules {
    alpha_pattern: Option<InOrder>,
}

/// An object of numbers in the order of the file: of several patterns that mean a module, the first counts.
#[derive(Default)]
struct InOrder(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Whether a value is more than nothing.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => true,
    }
}

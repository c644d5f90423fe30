//! The names a configuration may use, and the nearest one to a name that it may not.

use minillm_model::config::ModelOptions;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor, value};

use super::{CheckpointConfig, EvalConfig, LogConfig, LoraConfig, ObjectiveConfig, OptimizerConfig, TrainConfig};
use crate::data::{DataConfig, TokenizerConfig};
use crate::schedule::ScheduleConfig;

/// nanoGPT's and llama2.c's names for our keys, which similarity alone would not find.
const OTHER_NAMES: [(&str, &str); 18] = [
    ("n_layer", "model.num_hidden_layers"),
    ("n_layers", "model.num_hidden_layers"),
    ("n_head", "model.num_attention_heads"),
    ("n_heads", "model.num_attention_heads"),
    ("n_kv_heads", "model.num_key_value_heads"),
    ("n_embd", "model.hidden_size"),
    ("dim", "model.hidden_size"),
    ("bias", "model.attention_bias"),
    ("block_size", "train.context"),
    ("max_seq_len", "train.context"),
    ("max_iters", "train.max_steps"),
    ("lr", "optimizer.learning_rate"),
    ("min_lr", "schedule.min_learning_rate"),
    ("warmup_iters", "schedule.warmup_steps"),
    ("lr_decay_iters", "schedule.decay_steps"),
    ("eval_interval", "eval.every_steps"),
    ("log_interval", "log.every_steps"),
    ("save_steps", "checkpoint.every_steps"),
];

/// The sections and their keys, taken from the structs themselves.
pub(super) fn sections() -> [(&'static str, &'static [&'static str]); 11] {
    [
        ("objective", field_names::<ObjectiveConfig>()),
        ("data", field_names::<DataConfig>()),
        ("tokenizer", field_names::<TokenizerConfig>()),
        ("model", field_names::<ModelOptions>()),
        ("lora", field_names::<LoraConfig>()),
        ("train", field_names::<TrainConfig>()),
        ("optimizer", field_names::<OptimizerConfig>()),
        ("schedule", field_names::<ScheduleConfig>()),
        ("eval", field_names::<EvalConfig>()),
        ("checkpoint", field_names::<CheckpointConfig>()),
        ("log", field_names::<LogConfig>()),
    ]
}

/// Every dotted key of a configuration, `train.batch_size`, in the order of the structs.
pub fn keys() -> Vec<String> {
    let mut keys = vec!["seed".to_owned()];
    for (section, fields) in sections() {
        keys.extend(fields.iter().map(|field| format!("{section}.{field}")));
    }
    keys
}

/// The keys that a mistaken `key` most likely means, best first; none if nothing is close.
///
/// In this order: the same name in another section or without one, another program's name for it, the most similar name.
pub(super) fn nearest(key: &str) -> Vec<String> {
    const CLOSE: f64 = 0.7; // of strsim's similarity, 1 being equal; below it suggestions are noise
    let key = key.to_lowercase().replace('-', "_");
    let name = last(&key);
    let keys = keys();
    let mut same: Vec<_> = keys.iter().filter(|known| last(known) == name).cloned().collect();
    if let Some((section, _)) = key.split_once('.')
        && let Some((known, _)) = closest(section, sections().iter().map(|(section, _)| *section))
        && let Some(own) = same.iter().find(|key| key.split('.').next() == Some(known))
    {
        same = vec![own.clone()]; // `evaluation.every_steps` is `eval.every_steps`, not `log.every_steps`
    }
    if !same.is_empty() {
        return same;
    }
    if let Some((_, known)) = OTHER_NAMES.iter().find(|(other, _)| *other == name) {
        return vec![(*known).to_owned()];
    }
    let whole = closest(&key, keys.iter().map(String::as_str));
    let by_name = closest(name, keys.iter().map(|key| last(key)));
    match (whole, by_name) {
        (Some((known, score)), other) if score >= CLOSE && other.is_none_or(|(_, by_name)| score >= by_name) => {
            vec![known.to_owned()]
        }
        (_, Some((known, score))) if score >= CLOSE => keys.iter().filter(|key| last(key) == known).cloned().collect(),
        _ => Vec::new(),
    }
}

/// The section whose name is closest to `name`, if one is close.
pub(super) fn nearest_section(name: &str) -> Option<&'static str> {
    let sections = sections();
    closest(name, sections.iter().map(|(section, _)| *section))
        .filter(|(_, score)| *score >= 0.5)
        .map(|(known, _)| known)
}

/// What to use in place of a command-line flag that is no flag but names a configuration key, as nanoGPT's are written:
/// `--batch_size=32` gives "write `--set train.batch_size=32`". `None` if it names none.
pub fn suggest(argument: &str) -> Option<String> {
    let argument = argument.trim_start_matches('-');
    let (key, value) = argument.split_once('=').unwrap_or((argument, "VALUE"));
    let candidates = nearest(key);
    if candidates.is_empty() {
        return None;
    }
    let settings: Vec<_> = candidates.iter().map(|key| format!("`--set {key}={value}`")).collect();
    Some(format!("write {}", settings.join(" or ")))
}

/// The last part of a dotted key.
fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// The candidate most like `name`, with its similarity from 0 to 1; the first of equals.
pub(crate) fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<(&'a str, f64)> {
    let mut best: Option<(&str, f64)> = None;
    for candidate in candidates {
        let score = strsim::normalized_damerau_levenshtein(name, candidate);
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((candidate, score));
        }
    }
    best
}

/// The field names of a struct, as its derived `Deserialize` hands them to a deserialiser before it reads a value.
pub(crate) fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // Always an error: the names are all that is wanted, and there is no value to read.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

/// A deserialiser that holds no value and only notes the field names it is asked for.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;

    #[test]
    fn the_sections_are_those_of_the_config() {
        let listed: Vec<_> = std::iter::once("seed").chain(sections().map(|(section, _)| section)).collect();
        assert_eq!(listed, field_names::<RunConfig>());
        for (section, fields) in sections() {
            assert!(!fields.is_empty(), "{section}");
        }
        let keys = keys();
        for key in
            ["data.url", "tokenizer.vocab_size", "model.rope_scaling", "train.micro_batch_size", "log.every_steps"]
        {
            assert!(keys.iter().any(|known| known == key), "{key}");
        }
        for (_, known) in OTHER_NAMES {
            assert!(keys.iter().any(|key| key == known), "{known}");
        }
    }

    #[test]
    fn the_nearest_key() {
        for (mistaken, meant) in [
            ("batch_size", "train.batch_size"),
            ("train.batchsize", "train.batch_size"),
            ("train.learning_rate", "optimizer.learning_rate"),
            ("optimiser.beta2", "optimizer.beta2"),
            ("train.max_step", "train.max_steps"),
            ("model.n_layer", "model.num_hidden_layers"),
            ("model.hiden_size", "model.hidden_size"),
            ("evaluation.every_steps", "eval.every_steps"),
            ("checkpoints.keeplast", "checkpoint.keep_last"),
            ("block_size", "train.context"),
        ] {
            assert_eq!(nearest(mistaken), [meant], "{mistaken}");
        }
        assert_eq!(nearest("every_steps"), ["eval.every_steps", "checkpoint.every_steps", "log.every_steps"]);
        assert!(nearest("wandb_project").is_empty());
        assert_eq!(nearest_section("optimiser"), Some("optimizer"));
    }

    #[test]
    fn flags_that_name_a_key() {
        assert_eq!(suggest("--batch_size=32").as_deref(), Some("write `--set train.batch_size=32`"));
        assert_eq!(suggest("--learning-rate").as_deref(), Some("write `--set optimizer.learning_rate=VALUE`"));
        assert_eq!(suggest("--model.preset=gpt2").as_deref(), Some("write `--set model.preset=gpt2`"));
        assert_eq!(suggest("--wandb-project=x"), None);
    }
}

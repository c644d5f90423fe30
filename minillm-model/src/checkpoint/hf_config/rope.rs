//! Rotary positions in `config.json`. transformers 5 writes `rope_parameters`; transformers 4 wrote `rope_theta` beside
//! `rope_scaling`, and reads nothing else.

use serde_json::{Map, Value};

use super::fields::{Fields, as_usize};
use super::keys::means_nothing;
use crate::config::RopeScaling;
use crate::config::rope_scaling::{yarn_beta_fast, yarn_beta_slow};
use crate::error::Result;

/// The base of the frequencies, and what is done to them.
type Rope = (f64, Option<RopeScaling>);

/// Keys inside the two objects that are read for one type or another. (`finetuned` says how a model was made.)
const KNOWN: [&str; 15] = [
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "low_freq_factor",
    "high_freq_factor",
    "partial_rotary_factor",
    "finetuned",
];

/// Where both objects are given and differ, `rope_scaling` counts if the other one only says that there is no scaling: so
/// read both versions of transformers. Any other difference is an error.
pub(super) fn read_rope(fields: &Fields) -> Result<Rope> {
    match (object(fields, "rope_parameters")?, object(fields, "rope_scaling")?) {
        (None, None) => Ok((fields.number("rope_theta", 10_000.0)?, None)),
        (Some(parameters), None) => read_object(fields, "rope_parameters", parameters),
        (None, Some(scaling)) => read_object(fields, "rope_scaling", scaling),
        (Some(parameters), Some(scaling)) => {
            let parameters = read_object(fields, "rope_parameters", parameters)?;
            let scaling = read_object(fields, "rope_scaling", scaling)?;
            let is_plain = parameters.1.is_none() && parameters.0.to_bits() == scaling.0.to_bits();
            if parameters != scaling && !is_plain {
                let problem = "and `rope_parameters` describe different positions; versions of transformers take one or the other";
                return Err(fields.refuse(
                    "rope_scaling",
                    problem,
                    "remove the one that the model was not trained with",
                ));
            }
            Ok(scaling)
        }
    }
}

/// One of the two objects; an empty one counts as absent.
fn object<'a>(fields: &Fields<'a>, key: &str) -> Result<Option<&'a Map<String, Value>>> {
    match fields.get(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object).filter(|object| !object.is_empty())),
        Some(_) => Err(fields.refuse(key, "is not an object", "the file is damaged or was edited")),
    }
}

fn read_object(fields: &Fields, key: &str, object: &Map<String, Value>) -> Result<Rope> {
    let inner = Fields { path: fields.path, fields: object };
    let unsupported =
        |name: &str| fields.refuse(key, &format!("has `{name}`, which is not supported"), "use a model without it");
    if let Some((name, _)) =
        object.iter().find(|(name, value)| !KNOWN.contains(&name.as_str()) && !means_nothing(value, &[1.0]))
    {
        return Err(unsupported(name));
    }
    let is_usual = |name: &str| inner.get(name).is_none_or(|value| means_nothing(value, &[1.0]));
    if !is_usual("partial_rotary_factor") {
        return Err(unsupported("partial_rotary_factor"));
    }
    let base = |fields: &Fields| fields.typed("rope_theta", "a number", Value::as_f64);
    let theta = match (base(fields)?, base(&inner)?) {
        (Some(outer), Some(inner)) if outer.to_bits() != inner.to_bits() => {
            let problem =
                format!("is {outer}, but `{key}` says {inner}; versions of transformers take one or the other");
            return Err(fields.refuse("rope_theta", &problem, "remove the one that the model was not trained with"));
        }
        (outer, inner) => inner.or(outer).unwrap_or(10_000.0),
    };
    let rope_type = match (inner.text("rope_type")?, inner.text("type")?) {
        (Some(new), Some(old)) if new != old => {
            let problem = format!("has the rope_type `{new}` and the type `{old}`");
            return Err(fields.refuse(key, &problem, "remove the one that is wrong"));
        }
        (new, old) => new.or(old),
    };
    let scaling = match rope_type {
        None if !is_usual("factor") => {
            let hint = "say which: linear, dynamic, llama3 or yarn";
            return Err(fields.refuse(key, "has a `factor`, but no `rope_type`", hint));
        }
        None | Some("default") => None,
        Some("linear") => Some(RopeScaling::Linear { factor: inner.required_number("factor")? }),
        Some("dynamic") => Some(RopeScaling::Dynamic { factor: inner.required_number("factor")? }),
        Some("llama3") => Some(RopeScaling::Llama3 {
            factor: inner.required_number("factor")?,
            low_freq_factor: inner.required_number("low_freq_factor")?,
            high_freq_factor: inner.required_number("high_freq_factor")?,
            original_max_position_embeddings: original(fields, key, &inner)?,
        }),
        Some("yarn") => Some(read_yarn(&inner, original(fields, key, &inner)?, longest(fields)?)?),
        Some(other) => {
            let hint = "supported rope types: default, linear, dynamic, llama3, yarn";
            return Err(fields.refuse(key, &format!("has the rope_type `{other}`, which is not supported"), hint));
        }
    };
    Ok((theta, scaling))
}

fn longest(fields: &Fields) -> Result<usize> {
    fields.count("max_position_embeddings")
}

/// The context of the original training, which some models have outside of the object.
fn original(fields: &Fields, key: &str, inner: &Fields) -> Result<usize> {
    let name = "original_max_position_embeddings";
    match (fields.typed(name, "a whole number", as_usize)?, inner.typed(name, "a whole number", as_usize)?) {
        (Some(outer), Some(inner)) if outer != inner => {
            Err(fields.refuse(name, &format!("is {outer}, but `{key}` says {inner}"), "remove the one that is wrong"))
        }
        (outer, inner) => inner.or(outer).map_or_else(|| longest(fields), Ok),
    }
}

/// YaRN with transformers' defaults; DeepSeek's two `mscale`s become the attention factor that they stand for.
fn read_yarn(fields: &Fields, original_max_position_embeddings: usize, longest: usize) -> Result<RopeScaling> {
    let given = |field: &str| fields.typed(field, "a number", Value::as_f64);
    // As Python's `or`: 0 counts as absent.
    let given_or =
        |field: &str, usual: f64| -> Result<f64> { Ok(given(field)?.filter(|value| *value != 0.0).unwrap_or(usual)) };
    let factor = given("factor")?.unwrap_or(longest as f64 / original_max_position_embeddings as f64);
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
        beta_fast: given_or("beta_fast", yarn_beta_fast())?,
        beta_slow: given_or("beta_slow", yarn_beta_slow())?,
        truncate: fields.flag("truncate", true)?,
    })
}

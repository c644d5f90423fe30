//! What may change between the start of a run and its continuation.
//!
//! Resuming is exact: a run that is stopped and continued ends with the weights of one that was never stopped. That
//! holds as long as the steps already taken would have been the same under the new configuration, so this is the rule:
//!
//! - [`RESUMABLE`] keys decide how long the run is and what is watched, never a step, or where the text and
//!   the model lie that the run began with. They may have been moved: that it is the same text is seen by its fingerprint,
//!   and the weights are the checkpoint's. They may change.
//! - The learning rate's keys (`optimizer.learning_rate`, `schedule.*`) may change if every step already taken keeps
//!   its rate. So a WSD run may be made longer before its decay has begun. A cosine that was to end at step 2,000 may
//!   not be stretched to 4,000, but with `schedule.decay_steps` = 2000 the run may go on to 4,000 at the minimum.
//! - Everything else may not change. The model is compared as it is built: writing out a default changes nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::RunConfig;
use crate::error::{Error, Result};
use crate::schedule::learning_rate;

/// The keys that may differ when a run is resumed, whatever their values.
///
/// `micro_batch_size` is among them because the gradient is the same however the batch is split, up to rounding: a
/// run that is to be repeated bit for bit must keep it. `max_steps` is where the schedule ends by default, so changing
/// it alone may still change `schedule.decay_steps`, which is then the conflict. `skip_spikes` holds from there on: who needs
/// it finds out in the middle of a run.
pub const RESUMABLE: [&str; 15] = [
    "data.files",
    "data.url",
    "data.sha256",
    "tokenizer.path",
    "train.max_steps",
    "train.micro_batch_size",
    "train.skip_spikes",
    "train.check_device",
    "eval.every_steps",
    "eval.sample_tokens",
    "eval.graded",
    "checkpoint.every_steps",
    "checkpoint.keep_last",
    "checkpoint.on_error",
    "log.every_steps",
];

/// Stands for a value that is not given.
const UNSET: &str = "unset";

/// A key whose change would make the resumed run another run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The dotted key.
    pub field: String,
    /// Its value in the run so far.
    pub old: String,
    /// Its value now.
    pub new: String,
}

/// The keys that keep a run of `old`, after `completed_steps` steps, from being continued as `new`; none if it can be.
///
/// # Errors
/// A configuration that cannot be written down (see [`RunConfig::to_toml`]).
pub fn resume_conflicts(old: &RunConfig, new: &RunConfig, completed_steps: usize) -> Result<Vec<Conflict>> {
    let same_rates = (0..completed_steps).all(|step| rate(old, step).to_bits() == rate(new, step).to_bits());
    let (old, new) = (flatten(old)?, flatten(new)?);
    let mut conflicts = Vec::new();
    for field in old.keys().chain(new.keys().filter(|field| !old.contains_key(*field))) {
        let of_rate = field == "optimizer.learning_rate" || field.starts_with("schedule.");
        let (was, is) = (old.get(field), new.get(field));
        if was == is || RESUMABLE.contains(&field.as_str()) || (of_rate && same_rates) {
            continue;
        }
        conflicts.push(Conflict { field: field.clone(), old: show(was), new: show(is) });
    }
    Ok(conflicts)
}

/// [`resume_conflicts`] as an error that names the first conflict and lists the others.
///
/// # Errors
/// [`Error::Config`] if there is a conflict.
pub fn check_resume(old: &RunConfig, new: &RunConfig, completed_steps: usize) -> Result<()> {
    let conflicts = resume_conflicts(old, new, completed_steps)?;
    let Some((first, others)) = conflicts.split_first() else {
        return Ok(());
    };
    let undo: Vec<_> = conflicts.iter().map(back).collect();
    let others = others.iter().map(|Conflict { field, old, new }| format!("; so may not `{field}` ({old}, now {new})"));
    let others = others.collect::<Vec<_>>().concat();
    let problem = format!("was {} and is now {}, which may not change on resume{others}", first.old, first.new);
    Err(Error::Config {
        origin: "--resume".to_owned(),
        field: first.field.clone(),
        problem,
        hint: format!("{}, or start a new run with another --out", undo.join(", ")),
    })
}

/// How to undo one change.
fn back(conflict: &Conflict) -> String {
    let Conflict { field, old, .. } = conflict;
    if old == UNSET { format!("take `{field}` out") } else { format!("add `--set {field}={old}`") }
}

fn rate(config: &RunConfig, step: usize) -> f64 {
    learning_rate(&config.schedule, config.optimizer.learning_rate, step, config.train.max_steps)
}

/// Every dotted key with its value, nothing left open.
fn flatten(config: &RunConfig) -> Result<BTreeMap<String, Value>> {
    let mut config = config.resolved();
    config.data.order = Some(config.data.order());
    // The model as it is built. The vocabulary is the tokenizer's, whose own keys are compared.
    let model = config.model.resolve(config.model.vocab_size.unwrap_or(0), config.train.context);
    let (Ok(mut whole), Ok(model)) = (serde_json::to_value(&config), serde_json::to_value(&model)) else {
        config.to_toml()?; // says what cannot be written
        return Ok(BTreeMap::new());
    };
    whole["model"] = model;
    if config.model.from.is_some() {
        // Where it is does not matter any more, but that the architecture is not this file's does.
        whole["model"]["from"] = "another model".into();
    }
    let mut flat = BTreeMap::new();
    for (section, value) in whole.as_object_mut().into_iter().flatten() {
        match value {
            Value::Object(fields) => {
                flat.extend(fields.iter().map(|(field, value)| (format!("{section}.{field}"), value.clone())));
            }
            value => {
                flat.insert(section.clone(), value.clone());
            }
        }
    }
    Ok(flat)
}

fn show(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => UNSET.to_owned(),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;
    use crate::schedule::ScheduleKind;

    fn fields(old: &RunConfig, new: &RunConfig, completed_steps: usize) -> Vec<String> {
        resume_conflicts(old, new, completed_steps).unwrap().into_iter().map(|conflict| conflict.field).collect()
    }

    #[test]
    fn what_is_only_watched_may_change() {
        let old = RunConfig::default();
        let mut new = old.resolved();
        new.train.micro_batch_size = Some(3);
        new.train.check_device = false;
        new.eval.every_steps = 7;
        new.eval.sample_tokens = 0;
        new.checkpoint.every_steps = 7;
        new.checkpoint.keep_last = 9;
        new.log.every_steps = 1;
        new.data.files = vec!["moved.txt".into()];
        new.data.order = Some(old.data.order()); // by default it follows from the source
        assert!(fields(&old, &new, 100).is_empty());
        assert!(RESUMABLE.iter().all(|key| keys().iter().any(|known| known == key)));
    }

    #[test]
    fn what_is_computed_may_not() {
        let old = RunConfig::default();
        let mut new = old.clone();
        new.seed = 1;
        new.train.batch_size = 32;
        new.model.dropout = Some(0.1);
        assert_eq!(fields(&old, &new, 1), ["model.dropout", "seed", "train.batch_size"]);
        let error = check_resume(&old, &new, 1).unwrap_err();
        let expected = "--resume: `model.dropout` was 0.0 and is now 0.1, which may not change on resume; \
                        so may not `seed` (1337, now 1); so may not `train.batch_size` (16, now 32)";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.exit_code(), 2);
        let hint = error.hint().unwrap();
        let expected =
            "add `--set model.dropout=0.0`, add `--set seed=1337`, add `--set train.batch_size=16`, or start";
        assert!(hint.starts_with(expected), "{hint}");
    }

    #[test]
    fn a_default_written_out_is_no_change() {
        let old = RunConfig::default();
        let mut new = old.clone();
        new.model.hidden_size = Some(128);
        new.model.num_key_value_heads = Some(4);
        new.data.order = Some(crate::data::Order::Documents);
        assert!(fields(&old, &new, 1).is_empty());
    }

    #[test]
    fn a_longer_run_must_keep_the_rates_it_had() {
        let old = RunConfig::default();
        let mut new = old.clone();
        new.train.max_steps = 4000;
        assert_eq!(fields(&old, &new, 1000), ["schedule.decay_steps"]);
        new.schedule.decay_steps = Some(2000);
        assert!(fields(&old, &new, 1000).is_empty());
        new.optimizer.learning_rate = 2e-3;
        assert_eq!(fields(&old, &new, 1000), ["optimizer.learning_rate", "schedule.min_learning_rate"]);
    }

    #[test]
    fn wsd_may_be_extended_until_its_decay_begins() {
        let mut old = RunConfig::default();
        old.schedule.kind = ScheduleKind::Wsd;
        let mut new = old.clone();
        new.train.max_steps = 4000;
        assert!(fields(&old, &new, 1601).is_empty());
        assert_eq!(fields(&old, &new, 1602), ["schedule.cooldown_steps", "schedule.decay_steps"]);
    }
}

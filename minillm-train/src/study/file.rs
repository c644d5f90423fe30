//! A study as a file: strict TOML, and errors that name the key and what to do.
//!
//! ```toml
//! title = "The MLP's activation"
//! question = "Which activation learns best with the same number of parameters?"
//! base = "base/tales.toml"        # a run's configuration, relative to this file; or a table [base] with its sections
//! seeds = [1, 2, 3]
//! hold = "parameters"             # parameters | flops | nothing
//!
//! [budget]                        # one of steps, tokens, seconds; by default the base's train.max_steps
//! steps = 800
//!
//! [[variants]]                    # the first is what the others are compared with
//! name = "GELU"
//! set = { "model.mlp" = "gelu" }  # any keys of a run's configuration
//!
//! [[variants]]
//! name = "GELU and RMSNorm"
//! from = "GELU"                   # begins with what that variant sets
//! set = { "model.norm" = "rmsnorm" }
//! # against = "GELU"             # what it is compared with, if not the first
//! # seeds = [4, 5, 6]            # its own, for a comparison that is not seed by seed
//!
//! [evaluate]                      # what is measured after training, all optional
//! contexts = [1, 2, 4]            # loss at these multiples of the training's context
//! rope_scaling = ["linear", "dynamic", "yarn"]  # and there with stretched rotary angles, without further training
//! decode_tokens = 128             # tokens written to measure the rate of generation
//!
//! [figure]
//! over = "optimizer.learning_rate"  # draws the losses over this key; variants that differ in nothing else make a line
//!
//! [full]                          # with --full: another budget, other seeds, further keys for every variant
//! steps = 20000
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::errors::did_you_mean;
use crate::config::keys::{closest, field_names, keys};
use crate::config::load::read_toml;
use crate::error::{Error, Result};

/// What stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// What the table is called.
    pub title: String,
    /// What the study answers, in one sentence.
    pub question: String,
    /// What all variants begin with.
    pub base: Base,
    /// Every variant is trained once with each.
    pub seeds: Vec<u64>,
    /// How long each run is; by default as the base says.
    #[serde(default)]
    pub budget: BudgetFields,
    /// What is the same in all variants beside the budget.
    pub hold: Hold,
    /// What is compared. The first is the reference.
    pub variants: Vec<VariantFields>,
    /// What is measured after training.
    #[serde(default)]
    pub evaluate: Evaluate,
    /// What the losses are drawn over.
    #[serde(default)]
    pub figure: FigureFields,
    /// The longer form.
    #[serde(default)]
    pub full: FullFields,
}

/// The configuration that all variants begin with.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Base {
    /// A file, relative to the study's.
    File(PathBuf),
    /// The sections of a configuration, written out.
    Inline(Table),
}

/// The `[budget]` section: at most one of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetFields {
    /// Optimiser steps of each run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Tokens that each run trains on, padding included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Training time of each run; how many steps that makes is measured once, before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// What is the same in all variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// Parameters: the width of every other variant's MLP is solved for.
    Parameters,
    /// Floating-point operations of the whole training: every other variant's number of steps is solved for.
    Flops,
    /// Nothing but the budget.
    Nothing,
}

/// One of `[[variants]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantFields {
    /// What it is called in the table.
    pub name: String,
    /// An earlier variant whose keys come first.
    pub from: Option<String>,
    /// Keys of a run's configuration.
    #[serde(default)]
    pub set: Table,
    /// The variant that it is compared with; by default the first.
    pub against: Option<String>,
    /// Its own seeds in place of the study's: then its difference from the reference is not paired.
    pub seeds: Option<Vec<u64>>,
}

/// The `[evaluate]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluate {
    /// Multiples of the training's context at which the validation text is scored once more.
    pub contexts: Vec<usize>,
    /// How rotary angles are stretched there.
    pub rope_scaling: Vec<Stretch>,
    /// The factor of the stretching; by default the multiple of the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Tokens that are written, greedily, to measure the rate of generation; fewer where the model's context is shorter.
    pub decode_tokens: usize,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self { contexts: Vec::new(), rope_scaling: Vec::new(), factor: None, decode_tokens: 128 }
    }
}

/// A way of stretching rotary angles after training, see [`minillm_model::config::RopeScaling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stretch {
    /// Position interpolation.
    Linear,
    /// A base that grows with the sequence.
    Dynamic,
    /// Interpolation by wavelength.
    Yarn,
}

/// The `[figure]` section.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FigureFields {
    /// A key of a run's configuration that holds a number.
    pub over: Option<String>,
}

/// The `[full]` section.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FullFields {
    /// Steps of a run, as in `[budget]`.
    pub steps: Option<usize>,
    /// Tokens of a run, as in `[budget]`.
    pub tokens: Option<u64>,
    /// Seconds of a run, as in `[budget]`.
    pub seconds: Option<f64>,
    /// Seeds in place of the study's.
    pub seeds: Option<Vec<u64>>,
    /// Keys of a run's configuration, laid over the base.
    pub set: Table,
}

impl StudyFile {
    /// Reads a study, checks its keys, and with `full` takes the longer form.
    pub fn load(path: &Path, full: bool) -> Result<Self> {
        let text = read_toml(path, "STUDY", "configs/studies/mlp.toml")?;
        let mut file = Self::parse(&text, path)?;
        if full {
            let FullFields { steps, tokens, seconds, seeds, .. } = &file.full;
            let budget = BudgetFields { steps: *steps, tokens: *tokens, seconds: *seconds };
            if budget != BudgetFields::default() {
                file.budget = budget;
            }
            if let Some(seeds) = seeds {
                file.seeds.clone_from(seeds);
            }
        } else {
            file.full = FullFields::default();
        }
        file.check(&path.display().to_string())?;
        Ok(file)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let table: Table = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let content = text.lines().nth(line - 1).unwrap_or_default().trim();
            let hint = "text stands in quotes, a list in [brackets]; see configs/studies/ for examples";
            problem(&format!("{origin}:{line}"), content, format!("is not TOML: {}", error.message()), hint)
        })?;
        refuse_unknown_keys(&table, &origin)?;
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let key = error.path().to_string();
            let reason = error.inner().message().trim().to_owned();
            problem(&origin, &key, format!("cannot be used: {reason}"), "compare with the files in configs/studies/")
        })
    }

    fn check(&self, origin: &str) -> Result<()> {
        let refuse = |field: &str, what: String, hint: &str| Err(problem(origin, field, what, hint));
        if self.variants.is_empty() {
            return refuse("variants", "is empty".to_owned(), "add [[variants]] with a `name`");
        }
        for (field, seeds) in std::iter::once(("seeds".to_owned(), &self.seeds))
            .chain(self.variants.iter().filter_map(|v| Some((format!("variants.{}.seeds", v.name), v.seeds.as_ref()?))))
        {
            if seeds.is_empty() {
                return refuse(
                    &field,
                    "is empty".to_owned(),
                    "three seeds are the fewest that say anything: [1, 2, 3]",
                );
            }
            if let Some(twice) = seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed)) {
                let hint = "the same seed gives the same run: name each once";
                return refuse(&field, format!("has {} twice", twice.1), hint);
            }
        }
        for (index, variant) in self.variants.iter().enumerate() {
            let field = format!("variants.{}", variant.name);
            let before = &self.variants[..index];
            if slug(&variant.name).is_empty() {
                return refuse(&field, "has no letter or digit".to_owned(), "its runs lie in a folder of that name");
            }
            if let Some(other) = before.iter().find(|other| slug(&other.name) == slug(&variant.name)) {
                let what = format!("has the folder of `{}`: {}", other.name, slug(&variant.name));
                return refuse(&field, what, "choose another `name`");
            }
            if let Some(from) = &variant.from
                && !before.iter().any(|other| other.name == *from)
            {
                let near = closest(from, before.iter().map(|other| other.name.as_str()));
                let hint = near.map_or("the first variant has none before it".to_owned(), |(name, _)| {
                    format!("did you mean `{name}`? A variant can only begin with an earlier one")
                });
                return Err(problem(
                    origin,
                    &format!("{field}.from"),
                    format!("is `{from}`, which is no variant before it"),
                    hint,
                ));
            }
        }
        for variant in &self.variants {
            if let Some(against) = &variant.against
                && !self.variants.iter().any(|other| other.name == *against)
            {
                let near = closest(against, self.variants.iter().map(|other| other.name.as_str()));
                let hint = near.map_or(String::new(), |(name, _)| format!("did you mean `{name}`?"));
                let field = format!("variants.{}.against", variant.name);
                return Err(problem(origin, &field, format!("is `{against}`, which is no variant"), hint));
            }
        }
        let BudgetFields { steps, tokens, seconds } = self.budget;
        let given = [steps.is_some(), tokens.is_some(), seconds.is_some()].into_iter().filter(|given| *given).count();
        if given > 1 {
            return refuse("budget", "has more than one of steps, tokens and seconds".to_owned(), "keep one");
        }
        if steps == Some(0) || tokens == Some(0) || seconds.is_some_and(|s| !(s.is_finite() && s > 0.0)) {
            return refuse("budget", "is not above 0".to_owned(), "write for example steps = 500");
        }
        if seconds.is_some() && self.hold == Hold::Flops {
            let hint = "give steps or tokens, or hold parameters or nothing";
            return refuse("budget.seconds", "and `hold = \"flops\"` contradict each other".to_owned(), hint);
        }
        if self.evaluate.contexts.contains(&0) {
            return refuse(
                "evaluate.contexts",
                "has 0".to_owned(),
                "write multiples of the training's context: [1, 2, 4]",
            );
        }
        if self.evaluate.factor.is_some_and(|factor| !(factor.is_finite() && factor >= 1.0)) {
            return refuse("evaluate.factor", "is below 1".to_owned(), "leave it out for the multiple of the context");
        }
        if let Some(over) = &self.figure.over
            && !keys().contains(over)
        {
            let hint = did_you_mean(over);
            return Err(problem(origin, "figure.over", format!("is `{over}`, which is no key of a run"), hint));
        }
        if self.evaluate.decode_tokens == 0 {
            return refuse("evaluate.decode_tokens", "is 0".to_owned(), "128 take a moment");
        }
        Ok(())
    }

    /// The keys that variant `index` sets, those of the variants it begins with first.
    pub fn settings_of(&self, index: usize) -> Vec<(String, Value)> {
        let variant = &self.variants[index];
        let from = variant.from.as_ref().and_then(|from| self.variants.iter().position(|other| other.name == *from));
        let mut settings = from.map_or(Vec::new(), |from| self.settings_of(from));
        settings.extend(flatten(&variant.set));
        settings
    }
}

/// Dotted keys with their values, as they stand: `"model.norm" = ..` and `model = { norm = .. }` alike.
pub fn flatten(table: &Table) -> Vec<(String, Value)> {
    fn walk(prefix: &str, table: &Table, known: &[String], into: &mut Vec<(String, Value)>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(inner) if !known.contains(&key) => walk(&key, inner, known, into),
                _ => into.push((key, value.clone())),
            }
        }
    }
    let mut flat = Vec::new();
    walk("", table, &keys(), &mut flat);
    flat
}

/// What a variant's folder is called: letters, digits and `-`.
pub fn slug(name: &str) -> String {
    let spaced = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
    spaced.collect::<String>().split_whitespace().collect::<Vec<_>>().join("-")
}

fn refuse_unknown_keys(table: &Table, origin: &str) -> Result<()> {
    check_keys(table, "", field_names::<StudyFile>(), origin)?;
    for (name, fields) in [
        ("budget", field_names::<BudgetFields>()),
        ("evaluate", field_names::<Evaluate>()),
        ("figure", field_names::<FigureFields>()),
        ("full", field_names::<FullFields>()),
    ] {
        if let Some(section) = table.get(name).and_then(Value::as_table) {
            check_keys(section, name, fields, origin)?;
        }
    }
    for (index, variant) in table.get("variants").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(variant) = variant.as_table() {
            check_keys(variant, &format!("variants[{index}]"), field_names::<VariantFields>(), origin)?;
        }
    }
    Ok(())
}

fn check_keys(table: &Table, section: &str, known: &[&str], origin: &str) -> Result<()> {
    let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let hint = match closest(key, known.iter().copied()) {
        Some((near, score)) if score >= 0.6 => format!("did you mean `{near}`?"),
        _ => format!("the keys here are {}; those of a run stand in `set`", known.join(", ")),
    };
    let key = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
    Err(problem(origin, &key, "is not a key", hint))
}

/// An error about a key of the file.
pub(super) fn problem(origin: &str, field: &str, what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Config { origin: origin.to_owned(), field: field.to_owned(), problem: what.into(), hint: hint.into() }
}

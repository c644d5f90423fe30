//! `study.json`: what a directory's study is, so that a later start knows what may be kept.
//!
//! Runs are kept by the variant's name and the seed. That is sound as long as the same name means the same run, so a study
//! may gain variants and seeds, and be told in other words; anything else that changed is refused by name.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::design::{Design, Unit, Variant};
use super::file::{Evaluate, Hold};
use super::json::{read_json, write_json};
use super::result::Environment;
use crate::error::{Error, Result};

/// The file's name.
pub const STUDY_FILE: &str = "study.json";

/// A directory's study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyRecord {
    /// What it is called.
    pub title: String,
    /// What it answers.
    pub question: String,
    /// What is the same in all variants.
    pub hold: Hold,
    /// What is measured after training.
    pub evaluate: Evaluate,
    /// The unit of differences.
    pub unit: Unit,
    /// The machine and the program that it was last started with.
    pub environment: Environment,
    /// The variants in order.
    pub variants: Vec<VariantRecord>,
}

/// One variant of a directory's study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantRecord {
    /// What it is called.
    pub name: String,
    /// The folder of its runs.
    pub folder: String,
    /// The keys it sets.
    pub settings: Vec<String>,
    /// One run for each.
    pub seeds: Vec<u64>,
    /// The whole configuration, as TOML; each run has its own seed.
    pub config: String,
    /// What a step took when the budget was turned into steps, if it was in seconds.
    pub seconds_per_step: Option<f64>,
}

impl StudyRecord {
    /// Of a study about to be run. `pace` knows what a step of a variant takes, where that was measured.
    pub fn new(design: &Design, environment: Environment, pace: &BTreeMap<String, f64>) -> Result<Self> {
        let variant = |variant: &Variant| {
            Ok(VariantRecord {
                name: variant.name.clone(),
                folder: variant.slug.clone(),
                settings: variant.settings.clone(),
                seeds: variant.seeds.clone(),
                config: variant.config.to_toml()?,
                seconds_per_step: pace.get(&variant.name).copied(),
            })
        };
        Ok(Self {
            title: design.title.clone(),
            question: design.question.clone(),
            hold: design.hold,
            evaluate: design.evaluate.clone(),
            unit: design.unit,
            environment,
            variants: design.variants.iter().map(variant).collect::<Result<_>>()?,
        })
    }

    /// The study of `directory`, if there is one.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(STUDY_FILE);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Writes it there.
    pub fn write(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join(STUDY_FILE), self)
    }

    /// Refuses to continue `old` in `directory` as this, if runs would not fit together.
    pub fn check_continues(&self, old: &Self, directory: &Path) -> Result<()> {
        let Some(what) = self.change_from(old) else {
            return Ok(());
        };
        Err(Error::Run {
            path: directory.to_owned(),
            problem: format!("holds runs of another form of this study: {what}"),
            hint: "only variants and seeds may be added; undo the change, or choose another --out".to_owned(),
        })
    }

    fn change_from(&self, old: &Self) -> Option<String> {
        for (what, was, is) in [
            ("hold", show(&old.hold), show(&self.hold)),
            ("evaluate", show(&old.evaluate), show(&self.evaluate)),
            ("--device", show(&old.environment.device), show(&self.environment.device)),
        ] {
            if was != is {
                return Some(format!("`{what}` was {was} and is now {is}"));
            }
        }
        for was in &old.variants {
            let field = format!("variants.{}", was.name);
            let Some(is) = self.variants.iter().find(|is| is.name == was.name) else {
                return Some(format!("`{field}` is gone"));
            };
            if let Some(seed) = was.seeds.iter().find(|seed| !is.seeds.contains(seed)) {
                return Some(format!("seed {seed} of `{field}` is gone"));
            }
            let (before, now) = (keys_of(&was.config), keys_of(&is.config));
            for key in before.keys().chain(now.keys()) {
                // Which seed stands in the variant's configuration says nothing: every run has its own.
                if key != "seed" && before.get(key) != now.get(key) {
                    let shown = |value: Option<&String>| value.map_or("unset".to_owned(), Clone::clone);
                    let (was, is) = (shown(before.get(key)), shown(now.get(key)));
                    return Some(format!("`{field}: {key}` was {was} and is now {is}"));
                }
            }
        }
        None
    }
}

fn show(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Every dotted key of a configuration with its value, both as text.
fn keys_of(config: &str) -> BTreeMap<String, String> {
    let table: toml::Table = config.parse().unwrap_or_default();
    super::file::flatten(&table).into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

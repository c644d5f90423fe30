//! From a study's file to complete configurations, with what is held equal solved for.
//!
//! **Equal parameters.** A model's parameters grow in a straight line with its MLP's width F, so the width that gives the
//! reference's total is found by division, then rounded to the coarsest multiple (32, 16, .., 1) that stays within a quarter
//! of a per cent. **Equal FLOPs.** A step's cost is `training_flops_per_token` times the tokens of its batch; the number of
//! steps is the reference's total divided by that.

use std::collections::BTreeMap;
use std::path::Path;

use minillm_model::config::ModelConfig;
use minillm_model::stats;
use serde::{Deserialize, Serialize};
use toml::Value;

use super::file::{Base, Evaluate, Hold, StudyFile, flatten, problem, slug};
use crate::config::RunConfig;
use crate::data::{Silent, TokenizerConfig};
use crate::error::{Error, Result};
use crate::objective;

/// How far parameters may be off for a convenient width: a quarter of a per cent.
const CONVENIENT: f64 = 0.0025;
/// How far they may be off at all, so that any two variants are within one per cent.
const LARGEST_PARAMETER_ERROR: f64 = 0.005;
/// The same for FLOPs, so that any two are within two per cent.
const LARGEST_FLOPS_ERROR: f64 = 0.01;

/// A study ready to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Design {
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
    /// The key that the losses are drawn over.
    pub over: Option<String>,
    /// What is compared, the reference first.
    pub variants: Vec<Variant>,
}

/// In what losses of different variants can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nats per token, where all variants have the same tokens.
    NatsPerToken,
    /// Where they have not: a token of one is not a token of the other, a byte is a byte.
    BitsPerByte,
}

impl Unit {
    /// The unit in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NatsPerToken => "nats per token",
            Self::BitsPerByte => "bits per byte",
        }
    }

    /// The short form, behind a number.
    pub fn short(self) -> &'static str {
        match self {
            Self::NatsPerToken => "nats",
            Self::BitsPerByte => "bits per byte",
        }
    }
}

/// One thing that is trained, once for each seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// What it is called.
    pub name: String,
    /// The folder of its runs.
    pub slug: String,
    /// The keys it sets, as in `--set`.
    pub settings: Vec<String>,
    /// The whole configuration; the seed is the first of `seeds`.
    pub config: RunConfig,
    /// The architecture, vocabulary and all.
    pub model: ModelConfig,
    /// One run for each.
    pub seeds: Vec<u64>,
    /// The index of the variant that it is compared with; its own for the reference.
    pub against: usize,
}

impl Variant {
    /// The configuration of one run.
    pub fn config(&self, seed: u64) -> RunConfig {
        RunConfig { seed, ..self.config.clone() }
    }

    /// Tokens that a run trains on, padding included.
    pub fn tokens(&self) -> u64 {
        let train = &self.config.train;
        train.max_steps as u64 * (train.batch_size * train.context) as u64
    }

    /// Floating-point operations to train on a token.
    pub fn flops_per_token(&self) -> usize {
        stats::training_flops_per_token(&self.model, self.config.train.context)
    }

    /// Floating-point operations of a run's training.
    pub fn flops(&self) -> f64 {
        self.tokens() as f64 * self.flops_per_token() as f64
    }

    /// Parameters of the whole model.
    pub fn parameters(&self) -> usize {
        stats::parameters(&self.model).total()
    }

    /// The number that `key` holds, whether it is set or follows from others.
    pub fn number(&self, key: &str) -> Option<f64> {
        let (section, name) = key.split_once('.')?;
        let resolved = self.config.resolved();
        let mut whole = serde_json::to_value(&resolved).ok()?;
        whole["model"] = serde_json::to_value(&self.model).ok()?;
        whole[section][name].as_f64()
    }

    /// What it sets beside `key`, each key once.
    pub fn settings_beside(&self, key: &str) -> BTreeMap<&str, &str> {
        let pairs = self.settings.iter().filter_map(|setting| setting.split_once('='));
        pairs.filter(|(other, _)| *other != key).collect()
    }

    /// Another number of steps, with the schedule that follows from it.
    fn with_steps(&mut self, steps: usize, source: &VariantSource) -> Result<()> {
        let config = source.config(&[("train.max_steps".to_owned(), Value::Integer(steps as i64))])?;
        self.config = RunConfig { seed: self.config.seed, ..config };
        Ok(())
    }
}

impl Design {
    /// Reads a study and solves for what it holds equal. `overrides` are laid over the base, as `--set` of `train`.
    /// `seconds_per_step` is asked for where the budget is in seconds.
    ///
    /// # Errors
    /// What cannot be read, built or held equal, by the variant's name.
    pub fn load(
        path: &Path,
        overrides: &[String],
        full: bool,
        cache_dir: &Path,
        mut seconds_per_step: impl FnMut(&Variant) -> Result<f64>,
    ) -> Result<Self> {
        let file = StudyFile::load(path, full)?;
        let origin = path.display().to_string();
        let mut vocabularies = Vec::new();
        let mut variants: Vec<Variant> = Vec::new();
        for index in 0..file.variants.len() {
            let source = VariantSource::new(&file, index, path, overrides);
            let mut variant = source.variant(cache_dir, &mut vocabularies)?;
            let tokens_per_step = (variant.config.train.batch_size * variant.config.train.context) as u64;
            let budget = file.budget;
            if let Some(steps) = budget.steps {
                variant.with_steps(steps, &source)?;
            } else if let Some(tokens) = budget.tokens {
                variant.with_steps(tokens.div_ceil(tokens_per_step) as usize, &source)?;
            }
            if let Some(reference) = variants.first() {
                match file.hold {
                    Hold::Nothing => {}
                    Hold::Parameters => hold_parameters(&mut variant, reference, &source)?,
                    Hold::Flops => hold_flops(&mut variant, reference, &source)?,
                }
            }
            if let Some(seconds) = budget.seconds {
                let steps = (seconds / seconds_per_step(&variant)?).round().max(1.0) as usize;
                let width = variant.config.model.intermediate_size;
                variant.with_steps(steps, &source)?;
                variant.config.model.intermediate_size = width;
            }
            variants.push(variant);
        }
        check_same_text(&variants, &origin)?;
        let same_tokens = variants.iter().all(|variant| variant.config.tokenizer == variants[0].config.tokenizer);
        Ok(Self {
            title: file.title,
            question: file.question,
            hold: file.hold,
            evaluate: file.evaluate,
            over: file.figure.over,
            unit: if same_tokens { Unit::NatsPerToken } else { Unit::BitsPerByte },
            variants,
        })
    }

    /// Every run, as variant and seed: all variants with the first seed, then all with the next, so that a study that is
    /// looked at early has whole comparisons.
    pub fn runs(&self) -> Vec<(&Variant, u64)> {
        let most = self.variants.iter().map(|variant| variant.seeds.len()).max().unwrap_or(0);
        let of = |round: usize| self.variants.iter().filter_map(move |v| Some((v, *v.seeds.get(round)?)));
        (0..most).flat_map(of).collect()
    }
}

/// Where a variant's configuration comes from.
struct VariantSource<'a> {
    file: &'a StudyFile,
    index: usize,
    study: &'a Path,
    /// Base, `--set`, `[full]` and the variant's own, in this order.
    settings: Vec<String>,
    /// The variant's own.
    own: Vec<(String, Value)>,
}

impl<'a> VariantSource<'a> {
    fn new(file: &'a StudyFile, index: usize, study: &'a Path, overrides: &[String]) -> Self {
        let own = file.settings_of(index);
        let full = flatten(&file.full.set);
        let laid = full.iter().chain(&own).map(setting);
        Self { file, index, study, settings: overrides.iter().cloned().chain(laid).collect(), own }
    }

    fn origin(&self) -> String {
        self.study.display().to_string()
    }

    fn field(&self) -> String {
        format!("variants.{}", self.file.variants[self.index].name)
    }

    /// Base, settings and `further` ones together.
    fn config(&self, further: &[(String, Value)]) -> Result<RunConfig> {
        let settings: Vec<_> = self.settings.iter().cloned().chain(further.iter().map(setting)).collect();
        let loaded = match &self.file.base {
            Base::File(base) => {
                let folder = self.study.parent().unwrap_or(Path::new(""));
                RunConfig::load(&folder.join(base), &settings)
            }
            Base::Inline(table) => {
                RunConfig::parse(&table.to_string(), Path::new(&format!("{} [base]", self.origin())), &settings)
            }
        };
        loaded.map_err(|error| match error {
            // What was laid over the base stands in the study's file.
            Error::Config { origin, field, problem, hint } if origin == "--set" => Error::Config {
                origin: format!("{}: {}", self.origin(), self.field()),
                field,
                problem,
                hint: hint.replace("--set ", ""),
            },
            other => other,
        })
    }

    fn variant(&self, cache_dir: &Path, vocabularies: &mut Vec<(TokenizerConfig, usize)>) -> Result<Variant> {
        let fields = &self.file.variants[self.index];
        let mut config = self.config(&[])?;
        if config.model.from.is_some() {
            let hint = "write out the model's sizes: a study trains every variant from its first step";
            return Err(problem(&self.origin(), &format!("{}: model.from", self.field()), "is given", hint));
        }
        let against = fields.against.as_ref();
        let against = against.and_then(|name| self.file.variants.iter().position(|other| other.name == *name));
        let seeds = fields.seeds.as_ref().unwrap_or(&self.file.seeds).clone();
        config.seed = seeds[0];
        let model = config.model.resolve(vocabulary(&config, cache_dir, vocabularies)?, config.train.context);
        model.validate()?;
        Ok(Variant {
            name: fields.name.clone(),
            slug: slug(&fields.name),
            settings: self.own.iter().map(setting).collect(),
            config,
            model,
            seeds,
            against: against.unwrap_or(0),
        })
    }
}

/// How many tokens there are: known only when the tokenizer has been made.
fn vocabulary(config: &RunConfig, cache_dir: &Path, known: &mut Vec<(TokenizerConfig, usize)>) -> Result<usize> {
    if let Some((_, size)) = known.iter().find(|(tokenizer, _)| *tokenizer == config.tokenizer) {
        return Ok(*size);
    }
    let size = objective::prepare(config, cache_dir, &Silent)?.tokenizer().vocab_size();
    known.push((config.tokenizer.clone(), size));
    Ok(size)
}

fn setting((key, value): &(String, Value)) -> String {
    format!("{key}={value}")
}

fn hold_parameters(variant: &mut Variant, reference: &Variant, source: &VariantSource) -> Result<()> {
    let target = reference.parameters();
    if source.own.iter().any(|(key, _)| key == "model.intermediate_size") {
        let hint = "leave it out, or write `hold = \"nothing\"`";
        let field = format!("{}: model.intermediate_size", source.field());
        return Err(problem(&source.origin(), &field, "is what `hold = \"parameters\"` solves for", hint));
    }
    let Some(width) = equal_width(&variant.model, target) else {
        let what = format!("cannot have the {target} parameters of `{}`: no MLP width gives them", reference.name);
        let hint = "make the variants more alike in size, or write `hold = \"nothing\"`";
        return Err(problem(&source.origin(), &source.field(), what, hint));
    };
    variant.model.intermediate_size = width;
    variant.config.model.intermediate_size = Some(width);
    Ok(())
}

/// The MLP width with which `model` has `target` parameters, if one comes close enough.
fn equal_width(model: &ModelConfig, target: usize) -> Option<usize> {
    let total = |width| {
        let model = ModelConfig { intermediate_size: width, ..model.clone() };
        stats::parameters(&model).total() as f64
    };
    let per_unit = total(2) - total(1);
    let exact = (target as f64 - (total(1) - per_unit)) / per_unit;
    let error = |width: usize| (total(width) / target as f64 - 1.0).abs();
    let nearest = |multiple: usize| ((exact / multiple as f64).round().max(1.0) as usize) * multiple;
    [32, 16, 8, 4, 2]
        .map(nearest)
        .into_iter()
        .find(|width| error(*width) <= CONVENIENT)
        .or_else(|| Some(nearest(1)).filter(|width| error(*width) <= LARGEST_PARAMETER_ERROR))
}

fn hold_flops(variant: &mut Variant, reference: &Variant, source: &VariantSource) -> Result<()> {
    let step = variant.flops() / variant.config.train.max_steps as f64;
    let steps = (reference.flops() / step).round() as usize;
    if steps > 0 {
        variant.with_steps(steps, source)?;
    }
    if steps == 0 || (variant.flops() / reference.flops() - 1.0).abs() > LARGEST_FLOPS_ERROR {
        let what = format!("cannot have the FLOPs of `{}`: whole steps are too coarse", reference.name);
        return Err(problem(&source.origin(), &source.field(), what, "give the study more steps, or smaller batches"));
    }
    Ok(())
}

/// Losses are comparable only on the same text.
fn check_same_text(variants: &[Variant], origin: &str) -> Result<()> {
    let text = |variant: &Variant| crate::data::DataConfig { order: None, ..variant.config.data.clone() };
    match variants.iter().find(|variant| text(variant) != text(&variants[0])) {
        None => Ok(()),
        Some(other) => {
            let what = "reads another text than the first variant, so that their losses cannot be compared";
            let hint = "of [data] a variant may set `order` alone";
            Err(problem(origin, &format!("variants.{}", other.name), what, hint))
        }
    }
}

//! From the runs' results to a line per variant: means, intervals, the difference from the reference, and what it says.

use minillm_model::stats;
use serde::Serialize;

use super::design::{Design, Unit, Variant};
use super::file::{Hold, Stretch};
use super::result::{RunResult, Validation};
use super::statistics::{Difference, Estimate};

/// A whole study, measured.
#[derive(Clone, Debug, Serialize)]
pub struct StudySummary {
    /// What it is called.
    pub title: String,
    /// What it answers.
    pub question: String,
    /// What is the same in all variants.
    pub hold: Hold,
    /// In what differences and gaps are given.
    pub unit: Unit,
    /// A line each, the reference first.
    pub variants: Vec<VariantSummary>,
    /// The losses over a key of the configuration, where the study asks for it.
    pub over: Option<Over>,
}

/// Losses over a key.
#[derive(Clone, Debug, Serialize)]
pub struct Over {
    /// The key.
    pub key: String,
    /// Variants that differ in nothing else.
    pub lines: Vec<Line>,
}

/// Variants that differ in one key.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What their names begin with in common.
    pub name: String,
    /// The key's value, and the variant's place in the study.
    pub points: Vec<(f64, usize)>,
}

/// One variant, measured.
#[derive(Clone, Debug, Serialize)]
pub struct VariantSummary {
    /// What it is called.
    pub name: String,
    /// The keys it sets.
    pub settings: Vec<String>,
    /// The width of the MLP, which may have been solved for.
    pub intermediate_size: usize,
    /// Steps of each run, which may have been solved for.
    pub steps: usize,
    /// Tokens of each run, padding included.
    pub tokens: u64,
    /// The parameters of the whole model.
    pub parameters: usize,
    /// The operations of training on one token.
    pub training_flops_per_token: usize,
    /// The operations of the whole training.
    pub training_flops: f64,
    /// The growth of the key-value cache with each token.
    pub kv_cache_bytes_per_token: usize,
    /// Validation loss after the last step, in nats per token.
    pub loss: Option<Estimate>,
    /// The same in bits per byte.
    pub bits_per_byte: Option<Estimate>,
    /// The loss above the floor, in the study's unit, where a floor is known.
    pub gap: Option<Estimate>,
    /// The variant that it is compared with; `None` for the reference itself.
    pub against: Option<String>,
    /// The difference from that variant, in the study's unit.
    pub difference: Option<Difference>,
    /// The speed of training.
    pub tokens_per_second: Option<Estimate>,
    /// The peak memory of training, the largest of the runs.
    pub peak_memory_bytes: Option<u64>,
    /// The speed of greedy generation of one text.
    pub decode_tokens_per_second: Option<Estimate>,
    /// The losses at other contexts.
    pub contexts: Vec<ContextSummary>,
    /// Runs that did not stay finite.
    pub diverged: Vec<Diverged>,
    /// The number of runs.
    pub runs: usize,
    /// What the difference says, in a sentence.
    pub verdict: String,
}

/// A run that did not stay finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Diverged {
    /// The run's seed.
    pub seed: u64,
    /// The step at which it was no longer finite.
    pub step: usize,
}

/// A variant at one context.
#[derive(Clone, Debug, Serialize)]
pub struct ContextSummary {
    /// Tokens that are seen at once.
    pub context: usize,
    /// How the rotary angles were stretched, if they were.
    pub stretch: Option<Stretch>,
    /// The loss, in the study's unit.
    pub loss: Option<Estimate>,
    /// Why there is no number.
    pub note: Option<String>,
}

impl StudySummary {
    /// The summary of all runs of `design`.
    pub fn new(design: &Design, results: &[RunResult]) -> Self {
        let of = |variant: &Variant| -> Vec<&RunResult> {
            results.iter().filter(|result| result.variant == variant.name).collect()
        };
        let variants = design.variants.iter().enumerate().map(|(index, variant)| {
            let against = &design.variants[variant.against];
            let reference = of(against);
            let others = (index != variant.against).then_some((against.name.as_str(), reference.as_slice()));
            VariantSummary::new(variant, &of(variant), others, design.unit)
        });
        Self {
            title: design.title.clone(),
            question: design.question.clone(),
            hold: design.hold,
            unit: design.unit,
            variants: variants.collect(),
            over: design.over.as_ref().map(|key| over(design, key)),
        }
    }
}

impl VariantSummary {
    fn new(variant: &Variant, runs: &[&RunResult], reference: Option<(&str, &[&RunResult])>, unit: Unit) -> Self {
        let estimate = |value: &dyn Fn(&RunResult) -> Option<f64>| {
            let values: Vec<f64> = runs.iter().filter_map(|run| value(run)).collect();
            Estimate::of(&values)
        };
        let validation =
            |run: &RunResult, of: &dyn Fn(&Validation) -> Option<f64>| run.validation.as_ref().and_then(of);
        let difference =
            reference.and_then(|(_, reference)| Difference::of(&losses(runs, unit), &losses(reference, unit)));
        let diverged =
            runs.iter().filter_map(|run| Some(Diverged { seed: run.seed, step: run.diverged.as_ref()?.step }));
        let diverged: Vec<_> = diverged.collect();
        Self {
            name: variant.name.clone(),
            settings: variant.settings.clone(),
            intermediate_size: variant.model.intermediate_size,
            steps: variant.config.train.max_steps,
            tokens: variant.tokens(),
            parameters: variant.parameters(),
            training_flops_per_token: variant.flops_per_token(),
            training_flops: variant.flops(),
            kv_cache_bytes_per_token: stats::kv_cache_bytes_per_token(&variant.model),
            loss: estimate(&|run| validation(run, &|at| Some(at.loss))),
            bits_per_byte: estimate(&|run| validation(run, &|at| Some(at.bits_per_byte))),
            gap: estimate(&|run| validation(run, &|at| gap(at, unit))),
            against: reference.map(|(name, _)| name.to_owned()),
            difference,
            tokens_per_second: estimate(&|run| run.tokens_per_second),
            peak_memory_bytes: runs.iter().filter_map(|run| run.peak_memory_bytes).max(),
            decode_tokens_per_second: estimate(&|run| run.decode_tokens_per_second),
            contexts: contexts(runs, unit),
            verdict: verdict(runs.len(), &diverged, difference, reference.map(|(name, _)| name), unit),
            runs: runs.len(),
            diverged,
        }
    }
}

/// Groups the variants by what they set beside `key`.
fn over(design: &Design, key: &str) -> Over {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, variant) in design.variants.iter().enumerate() {
        let beside = |other: usize| design.variants[other].settings_beside(key);
        match groups.iter_mut().find(|group| beside(group[0]) == variant.settings_beside(key)) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    let line = |group: Vec<usize>| {
        let names: Vec<&str> = group.iter().map(|&index| design.variants[index].name.as_str()).collect();
        let is_common = |end: &usize| names.iter().all(|name| name.get(..*end) == names[0].get(..*end));
        let common = (0..=names[0].len()).rev().filter(|end| names[0].is_char_boundary(*end)).find(is_common);
        let name = names[0][..common.unwrap_or(0)].trim_matches([' ', ',', ':', '(']).to_owned();
        let mut points: Vec<_> =
            group.iter().filter_map(|&index| Some((design.variants[index].number(key)?, index))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { name, points }
    };
    Over { key: key.to_owned(), lines: groups.into_iter().map(line).collect() }
}

/// The final losses of the runs that stayed finite, by seed.
fn losses(runs: &[&RunResult], unit: Unit) -> Vec<(u64, f64)> {
    let loss = |run: &&RunResult| Some((run.seed, in_unit(run.validation.as_ref()?, unit)));
    runs.iter().filter_map(loss).collect()
}

fn in_unit(validation: &Validation, unit: Unit) -> f64 {
    match unit {
        Unit::NatsPerToken => validation.loss,
        Unit::BitsPerByte => validation.bits_per_byte,
    }
}

fn gap(validation: &Validation, unit: Unit) -> Option<f64> {
    let floor = match unit {
        Unit::NatsPerToken => validation.floor,
        Unit::BitsPerByte => validation.floor_bits_per_byte(),
    };
    Some(in_unit(validation, unit) - floor?)
}

fn contexts(runs: &[&RunResult], unit: Unit) -> Vec<ContextSummary> {
    let Some(first) = runs.iter().find(|run| !run.contexts.is_empty()) else {
        return Vec::new();
    };
    let summary = |(index, at): (usize, &super::result::ContextResult)| {
        let measured = runs.iter().filter_map(|run| run.contexts.get(index));
        let values = measured.filter_map(|at| match unit {
            Unit::NatsPerToken => at.loss,
            Unit::BitsPerByte => at.bits_per_byte,
        });
        let loss = Estimate::of(&values.collect::<Vec<_>>());
        ContextSummary { context: at.context, stretch: at.stretch, loss, note: at.note.clone() }
    };
    first.contexts.iter().enumerate().map(summary).collect()
}

/// What the numbers say, in a sentence.
fn verdict(
    runs: usize,
    diverged: &[Diverged],
    difference: Option<Difference>,
    reference: Option<&str>,
    unit: Unit,
) -> String {
    if !diverged.is_empty() {
        let first = diverged.iter().map(|run| run.step).min().unwrap_or(0);
        let most = if diverged.len() == runs { "all".to_owned() } else { format!("{} of", diverged.len()) };
        return format!("diverged with {most} {runs} seeds, first at step {first}");
    }
    let Some(reference) = reference else {
        return "what the others are compared with".to_owned();
    };
    let Some(Difference { estimate, is_paired }) = difference else {
        return format!("cannot be compared: no run of \"{reference}\" stayed finite");
    };
    if estimate.half_width.is_none() {
        return format!(
            "{:+.4} {} from a single seed, which says nothing about the noise",
            estimate.mean,
            unit.short()
        );
    }
    let (low, high) = estimate.interval();
    let seeds = format!("{} seeds{}", estimate.count, if is_paired { "" } else { ", other ones" });
    if !estimate.is_clear() {
        if estimate.mean == 0.0 && high <= low {
            return format!("no difference: the same to the last digit ({seeds})");
        }
        return format!(
            "no difference larger than the noise (95 % interval {low:+.4} to {high:+.4} {}, {seeds})",
            unit.short()
        );
    }
    let (word, mean) = if estimate.mean < 0.0 { ("lower", -estimate.mean) } else { ("higher", estimate.mean) };
    let (low, high) = if estimate.mean < 0.0 { (-high, -low) } else { (low, high) };
    format!(
        "{word} by {mean:.4} {} (95 % interval {low:.4} to {high:.4}, {seeds}): more than seeds differ",
        unit.short()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(variant: &[f64], reference: &[f64]) -> String {
        let seeded = |values: &[f64]| (1..).zip(values.iter().copied()).collect::<Vec<_>>();
        let difference = Difference::of(&seeded(variant), &seeded(reference));
        verdict(variant.len(), &[], difference, Some("base"), Unit::NatsPerToken)
    }

    #[test]
    fn sentences() {
        let base = [1.5, 1.6, 1.7];
        assert_eq!(
            say(&[1.4, 1.51, 1.59], &base),
            "lower by 0.1000 nats (95 % interval 0.0752 to 0.1248, 3 seeds): more than seeds differ"
        );
        assert_eq!(
            say(&[1.6, 1.71, 1.79], &base),
            "higher by 0.1000 nats (95 % interval 0.0752 to 0.1248, 3 seeds): more than seeds differ"
        );
        let noise = "no difference larger than the noise (95 % interval -0.2484 to +0.2484 nats, 3 seeds)";
        assert_eq!(say(&[1.4, 1.6, 1.8], &base), noise);
        assert_eq!(say(&base, &base), "no difference: the same to the last digit (3 seeds)");
        assert_eq!(say(&[1.4], &[1.5]), "-0.1000 nats from a single seed, which says nothing about the noise");
        let diverged = [Diverged { seed: 2, step: 40 }, Diverged { seed: 3, step: 12 }];
        assert_eq!(
            verdict(3, &diverged, None, Some("base"), Unit::NatsPerToken),
            "diverged with 2 of 3 seeds, first at step 12"
        );
    }
}

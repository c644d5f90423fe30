//! From logits to the next token: one pure function per filter, in the order in which transformers applies them.
//!
//! ```text
//! repetition penalty -> temperature -> top-k -> top-p -> min-p -> softmax -> draw
//! ```
//!
//! A filter sets the logit of what it rules out to minus infinity.

use minillm_model::random::derive;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// How to choose tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: always the likeliest token. Below 1: sharper than the model's distribution; above: flatter.
    pub temperature: f32,
    /// Only the k likeliest.
    pub top_k: Option<usize>,
    /// Only the likeliest that together have this probability (Holtzman et al. 2020, arXiv:1904.09751).
    pub top_p: Option<f32>,
    /// Only those at least this share as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082).
    pub min_p: Option<f32>,
    /// Above 1: tokens that were there before become less likely (Keskar et al. 2019, arXiv:1909.05858).
    pub repetition_penalty: f32,
    /// The same seed gives the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, min_p: None, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Refuses values without a meaning, by the name of their option.
    pub fn validate(&self) -> Result<()> {
        let share = |value: Option<f32>| value.is_none_or(|value| value > 0.0 && value <= 1.0);
        let at_least_zero = self.temperature.is_finite() && self.temperature >= 0.0;
        check(at_least_zero, "--temperature", &self.temperature, "choose 0 for greedy, or a positive number")?;
        check(self.top_k != Some(0), "--top-k", &0, "choose 1 or more")?;
        check(share(self.top_p), "--top-p", &self.top_p.unwrap_or(1.0), "choose a share above 0, up to 1")?;
        check(share(self.min_p), "--min-p", &self.min_p.unwrap_or(1.0), "choose a share above 0, up to 1")?;
        let penalty = self.repetition_penalty;
        check(penalty.is_finite() && penalty > 0.0, "--repetition-penalty", &penalty, "1 changes nothing; try 1.1")
    }

    /// A sampler at the first token.
    pub fn sampler(&self) -> Sampler {
        Sampler { sampling: self.clone(), chosen: 0 }
    }
}

fn check(is_good: bool, option: &str, value: &dyn std::fmt::Display, hint: &str) -> Result<()> {
    if is_good {
        return Ok(());
    }
    Err(Error::Request { problem: format!("`{option}` is {value}"), hint: hint.to_owned() })
}

/// Chooses one token after the other. What it draws for the n-th is a pure function of the seed and n.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// How many tokens it has chosen.
    chosen: u64,
}

impl Sampler {
    /// Chooses from the logits of the next token, given the tokens before it (prompt included). Fails if a logit is NaN or
    /// infinitely large, or if none is left.
    pub fn next(&mut self, logits: &[f32], previous: &[u32]) -> Result<u32> {
        // No `any`: a loop that may end early is not turned into vector instructions.
        let is_bad = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
        let bad = logits.iter().fold(false, |bad, logit| bad | is_bad(*logit));
        if bad || logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            return Err(Error::NotFinite { what: "the logits are" });
        }
        let mut logits = logits.to_vec();
        penalise_repetition(&mut logits, previous, self.sampling.repetition_penalty);
        let position = self.chosen;
        self.chosen += 1;
        if self.sampling.temperature == 0.0 {
            return Ok(argmax(&logits));
        }
        scale(&mut logits, self.sampling.temperature);
        if let Some(k) = self.sampling.top_k {
            keep_top_k(&mut logits, k);
        }
        if let Some(p) = self.sampling.top_p {
            keep_top_p(&mut logits, p);
        }
        if let Some(p) = self.sampling.min_p {
            keep_min_p(&mut logits, p);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(derive(self.sampling.seed, &[position]));
        Ok(draw(&logits, rng.random::<f64>()))
    }
}

/// The largest logit's id; of equal ones the lowest.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// Divides positive logits of tokens already there by `penalty`, multiplies negative ones by it. Once, however often a
/// token was there.
pub fn penalise_repetition(logits: &mut [f32], previous: &[u32], penalty: f32) {
    let mut seen = vec![false; logits.len()];
    for id in previous {
        let id = *id as usize;
        if seen.get(id) == Some(&false) && logits[id].is_finite() {
            seen[id] = true;
            let penalised = if logits[id] > 0.0 { logits[id] / penalty } else { logits[id] * penalty };
            logits[id] = penalised.clamp(f32::MIN, f32::MAX); // an extreme penalty must not make it infinite
        }
    }
}

/// Divides by the temperature, after taking the largest logit off all: that changes no probability, and however small
/// the temperature is, nothing becomes infinitely large.
pub fn scale(logits: &mut [f32], temperature: f32) {
    let largest = largest(logits);
    for logit in logits {
        *logit = (*logit - largest) / temperature;
    }
}

/// Rules out all but the k largest; ties with the k-th stay.
pub fn keep_top_k(logits: &mut [f32], k: usize) {
    if k == 0 || k >= logits.len() {
        return;
    }
    let mut sorted = logits.to_vec();
    let (_, kth, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    rule_out(logits, |logit| logit < kth);
}

/// Rules out the unlikeliest that together have at most probability 1 - p. The likeliest always stays.
pub fn keep_top_p(logits: &mut [f32], p: f32) {
    let probabilities = softmax(logits);
    let mut left: Vec<_> = (0..logits.len()).filter(|&id| logits[id] > f32::NEG_INFINITY).collect();
    // Unlikeliest first; of equal ones the highest id.
    left.sort_unstable_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
    left.pop();
    let mut sum = 0.0;
    for id in left {
        sum += probabilities[id];
        if sum > 1.0 - f64::from(p) {
            break;
        }
        logits[id] = f32::NEG_INFINITY;
    }
}

/// Rules out what is less likely than `p` times the likeliest.
pub fn keep_min_p(logits: &mut [f32], p: f32) {
    let smallest = largest(logits) + p.ln();
    rule_out(logits, |logit| logit < smallest);
}

/// The token at `point`, from 0 to below 1, of all probabilities laid end to end in the order of their ids.
pub fn draw(logits: &[f32], point: f64) -> u32 {
    let mut sum = 0.0;
    for (id, probability) in softmax(logits).into_iter().enumerate() {
        sum += probability;
        if point < sum {
            return id as u32;
        }
    }
    argmax(logits) // rounding left the sum a hair below `point`
}

fn rule_out(logits: &mut [f32], is_out: impl Fn(f32) -> bool) {
    logits.iter_mut().filter(|logit| is_out(**logit)).for_each(|logit| *logit = f32::NEG_INFINITY);
}

fn largest(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Probabilities, in f64 so that the sum over a large vocabulary is exact enough to draw from.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = f64::from(largest(logits));
    let weights: Vec<_> = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUT: f32 = f32::NEG_INFINITY;

    fn after(filter: impl Fn(&mut [f32])) -> Vec<f32> {
        // Probabilities 0.1, 0.4, 0.2, 0.3.
        let mut logits: Vec<f32> = [0.1_f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln()).collect();
        filter(&mut logits);
        logits.iter().map(|logit| if logit.is_finite() { (logit.exp() * 10.0).round() / 10.0 } else { OUT }).collect()
    }

    #[test]
    fn filters_rule_out_what_they_say() {
        assert_eq!(after(|logits| keep_top_k(logits, 2)), [OUT, 0.4, OUT, 0.3]);
        assert_eq!(after(|logits| keep_top_k(logits, 9)), [0.1, 0.4, 0.2, 0.3]);
        assert_eq!(after(|logits| keep_top_p(logits, 0.65)), [OUT, 0.4, OUT, 0.3]);
        assert_eq!(after(|logits| keep_top_p(logits, 0.75)), [OUT, 0.4, 0.2, 0.3]);
        assert_eq!(after(|logits| keep_top_p(logits, 1e-6)), [OUT, 0.4, OUT, OUT]);
        assert_eq!(after(|logits| keep_top_p(logits, 1.0)), [0.1, 0.4, 0.2, 0.3]);
        assert_eq!(after(|logits| keep_min_p(logits, 0.6)), [OUT, 0.4, OUT, 0.3]);
    }

    #[test]
    fn repetition_is_penalised_once_and_towards_less_likely() {
        let mut logits = [2.0, -2.0, 1.0];
        penalise_repetition(&mut logits, &[0, 1, 0, 77], 2.0);
        assert_eq!(logits.map(|logit| (logit * 10.0) as i32), [10, -40, 10]);
        let mut logits = [2.0, -2.0, OUT];
        penalise_repetition(&mut logits, &[0, 1, 2], f32::MIN_POSITIVE);
        assert_eq!((logits[0] > 1e37, logits[0].is_finite(), logits[2]), (true, true, OUT));
    }

    #[test]
    fn temperature_changes_the_distances_alone() {
        let mut logits = [1.0, 3.0, OUT];
        scale(&mut logits, 0.5);
        assert_eq!(logits.map(|logit| logit.max(-99.0) as i32), [-4, 0, -99]);
        scale(&mut logits, f32::MIN_POSITIVE);
        assert_eq!(softmax(&logits).iter().map(|p| *p as i32).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn ties_stay_in_top_k_and_min_p_and_go_from_the_highest_id_in_top_p() {
        let tied = |filter: &dyn Fn(&mut [f32])| {
            let mut logits = [0.0; 4];
            filter(&mut logits);
            logits.map(|logit| logit == 0.0)
        };
        assert_eq!(tied(&|logits| keep_top_k(logits, 2)), [true; 4]);
        assert_eq!(tied(&|logits| keep_min_p(logits, 1.0)), [true; 4]);
        assert_eq!(tied(&|logits| keep_top_p(logits, 0.5)), [true, true, false, false]);
    }

    #[test]
    fn a_draw_is_a_point_on_all_probabilities_laid_end_to_end() {
        let logits = [0.25_f32, 0.0, 0.5, 0.25].map(f32::ln);
        for (point, id) in [(0.0, 0), (0.249, 0), (0.251, 2), (0.749, 2), (0.751, 3), (1.0 - f64::EPSILON, 3)] {
            assert_eq!(draw(&logits, point), id);
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_ones() {
        let mut sampler = Sampling { temperature: 0.0, ..Sampling::default() }.sampler();
        assert_eq!(sampler.next(&[1.0, 3.0, 3.0, 2.0], &[]).unwrap(), 1);
        let mut sampler = Sampling { temperature: 0.0, repetition_penalty: 2.0, ..Sampling::default() }.sampler();
        assert_eq!(sampler.next(&[1.0, 3.0, 3.0, 2.0], &[1]).unwrap(), 2);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits: Vec<f32> = [0.1_f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln()).collect();
        let mut sampler = Sampling::default().sampler();
        let mut counts = [0_u32; 4];
        for _ in 0..20_000 {
            counts[sampler.next(&logits, &[]).unwrap() as usize] += 1;
        }
        for (count, expected) in counts.iter().zip([2_000_i32, 8_000, 4_000, 6_000]) {
            // Four standard deviations of the largest share: 4 sqrt(20000 * 0.4 * 0.6) = 277.
            assert!((*count as i32 - expected).abs() < 280, "{counts:?}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let logits = vec![0.0; 50];
        let drawn = |seed| {
            let mut sampler = Sampling { seed, ..Sampling::default() }.sampler();
            (0..20).map(|_| sampler.next(&logits, &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(3), drawn(3));
        assert_ne!(drawn(3), drawn(4));
        // The twentieth draw does not depend on what was drawn from before.
        let mut sampler = Sampling { seed: 3, ..Sampling::default() }.sampler();
        for _ in 0..19 {
            sampler.next(&[1.0], &[0]).unwrap();
        }
        assert_eq!(sampler.next(&logits, &[]).unwrap(), drawn(3)[19]);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        for logits in [&[f32::NAN, 1.0][..], &[1.0, f32::NAN], &[OUT, OUT], &[f32::INFINITY, 1.0], &[]] {
            for temperature in [0.0, 1.0] {
                let mut sampler = Sampling { temperature, ..Sampling::default() }.sampler();
                assert!(sampler.next(logits, &[]).unwrap_err().to_string().contains("not finite"));
            }
        }
    }

    #[test]
    fn options_without_meaning_are_named() {
        let base = Sampling::default();
        for (sampling, option) in [
            (Sampling { temperature: -1.0, ..base.clone() }, "--temperature"),
            (Sampling { temperature: f32::NAN, ..base.clone() }, "--temperature"),
            (Sampling { top_k: Some(0), ..base.clone() }, "--top-k"),
            (Sampling { top_p: Some(1.5), ..base.clone() }, "--top-p"),
            (Sampling { min_p: Some(0.0), ..base.clone() }, "--min-p"),
            (Sampling { repetition_penalty: 0.0, ..base.clone() }, "--repetition-penalty"),
        ] {
            assert!(sampling.validate().unwrap_err().to_string().starts_with(&format!("`{option}` is")));
        }
        assert!(base.validate().is_ok());
    }

    proptest! {
        #[test]
        fn any_logits_and_filters_give_a_token_that_was_not_ruled_out(
            logits in prop::collection::vec(-50.0_f32..50.0, 1..40),
            top_k in prop::option::of(1_usize..50),
            top_p in prop::option::of(0.01_f32..=1.0),
            min_p in prop::option::of(0.01_f32..=1.0),
            seed in any::<u64>(),
        ) {
            let mut sampler = Sampling { top_k, top_p, min_p, seed, ..Sampling::default() }.sampler();
            let id = sampler.next(&logits, &[]).unwrap() as usize;
            prop_assert!(id < logits.len());
            if let Some(k) = top_k {
                prop_assert!(logits.iter().filter(|logit| **logit > logits[id]).count() < k);
            }
        }
    }
}

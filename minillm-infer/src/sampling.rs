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
        Sampler { sampling: self.clone(), drawn: 0 }
    }
}

fn check(is_good: bool, option: &str, value: &dyn std::fmt::Display, hint: &str) -> Result<()> {
    if is_good {
        return Ok(());
    }
    Err(Error::Request { problem: format!("{option} is {value}"), hint: hint.to_owned() })
}

/// Chooses one token after the other. What it draws for the n-th is a pure function of the seed and n.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    drawn: u64,
}

impl Sampler {
    /// Chooses from the logits of the next token, given the tokens before it. Fails if a logit is NaN or none is left.
    pub fn next(&mut self, logits: &[f32], previous: &[u32]) -> Result<u32> {
        let mut logits = logits.to_vec();
        let likeliest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !likeliest.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::Request {
                problem: "the model's logits are not finite".to_owned(),
                hint: "the weights are damaged, or the device computes wrongly: try --device flex".to_owned(),
            });
        }
        penalise_repetition(&mut logits, previous, self.sampling.repetition_penalty);
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
        let mut rng = ChaCha8Rng::seed_from_u64(derive(self.sampling.seed, &[self.drawn]));
        self.drawn += 1;
        Ok(draw(&logits, rng.random::<f64>()))
    }
}

/// The largest logit; of equal ones the lowest id.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// Divides positive logits of tokens already there by `penalty`, multiplies negative ones by it.
pub fn penalise_repetition(logits: &mut [f32], previous: &[u32], penalty: f32) {
    let mut seen = previous.to_vec();
    seen.sort_unstable();
    seen.dedup(); // once, however often it was there
    for id in seen {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// Divides by the temperature.
pub fn scale(logits: &mut [f32], temperature: f32) {
    logits.iter_mut().for_each(|logit| *logit /= temperature);
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
    let mut order: Vec<_> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))); // unlikeliest first; of equal ones the highest id
    let mut sum = 0.0;
    for &id in &order[..order.len() - 1] {
        sum += probabilities[id];
        if sum > 1.0 - f64::from(p) {
            break;
        }
        logits[id] = f32::NEG_INFINITY;
    }
}

/// Rules out what is less likely than `p` times the likeliest.
pub fn keep_min_p(logits: &mut [f32], p: f32) {
    let likeliest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let smallest = likeliest + p.ln();
    rule_out(logits, |logit| logit < smallest);
}

fn rule_out(logits: &mut [f32], is_out: impl Fn(f32) -> bool) {
    logits.iter_mut().filter(|logit| is_out(**logit)).for_each(|logit| *logit = f32::NEG_INFINITY);
}

/// Probabilities, in f64 so that the sum of a large vocabulary is exact enough to draw from.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let likeliest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<_> = logits.iter().map(|logit| f64::from(logit - likeliest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The token at `point`, from 0 to below 1, of all probabilities laid end to end.
fn draw(logits: &[f32], point: f64) -> u32 {
    let probabilities = softmax(logits);
    let mut sum = 0.0;
    for (id, probability) in probabilities.iter().enumerate() {
        sum += probability;
        if point < sum {
            return id as u32;
        }
    }
    argmax(logits) // rounding left the sum a hair below `point`
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
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_ones() {
        let mut sampler = Sampling { temperature: 0.0, ..Sampling::default() }.sampler();
        assert_eq!(sampler.next(&[1.0, 3.0, 3.0, 2.0], &[]).unwrap(), 1);
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
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        for logits in [[f32::NAN, 1.0], [OUT, OUT], [f32::INFINITY, 1.0]] {
            assert!(Sampling::default().sampler().next(&logits, &[]).is_err());
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
            assert!(sampling.validate().unwrap_err().to_string().contains(option));
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

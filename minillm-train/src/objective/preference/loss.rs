//! DPO, direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290): learning from which of two answers is better.
//!
//! ```text
//! d = (ln p(chosen) - ln p_ref(chosen)) - (ln p(rejected) - ln p_ref(rejected))
//! loss = -ln sigmoid(beta d)
//! ```
//!
//! `p_ref` is the model before the first step; beta says how far the model may move away from it. Two other losses of d are known: the hinge
//! max(0, 1 - beta d) (SLiC; Zhao et al. 2023, arXiv:2305.10425), and (d - 1 / (2 beta))^2 with means over the tokens of an answer in
//! place of sums (IPO; Azar et al. 2023, arXiv:2310.12036).
//!
//! **The gradient is that of ordinary training with a weight for each answer.** The loss depends on the model through the two log-probabilities
//! alone, so its gradient is
//!
//! ```text
//! d loss / d ln p(chosen) * grad ln p(chosen)  +  d loss / d ln p(rejected) * grad ln p(rejected)
//! ```
//!
//! A first pass without gradients finds the log-probabilities, and from them the two factors; the second is the pass of every other objective,
//! with the negative log-likelihood of each answer times its factor's negative. TRL does it in one, which keeps more in memory.

use crate::config::PreferenceLoss;

/// An answer's log-probability under the model and under the reference, in nats, and its tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// ln p.
    pub logp: f64,
    /// `ln p_ref`.
    pub reference: f64,
    /// Tokens that are learned.
    pub tokens: usize,
}

impl Answer {
    fn log_ratio(&self) -> f64 {
        self.logp - self.reference
    }
}

impl PreferenceLoss {
    /// The loss of a pair, and its derivatives by ln p(chosen) and ln p(rejected).
    pub fn of(self, beta: f64, chosen: Answer, rejected: Answer) -> (f64, [f64; 2]) {
        let d = chosen.log_ratio() - rejected.log_ratio();
        match self {
            Self::Sigmoid => {
                // ln(1 + exp(-x)), without an exponential that overflows.
                let x = beta * d;
                let loss = (-x.abs()).exp().ln_1p() + (-x).max(0.0);
                let slope = -beta / (1.0 + x.exp());
                (loss, [slope, -slope])
            }
            Self::Hinge => {
                let loss = (1.0 - beta * d).max(0.0);
                let slope = if loss > 0.0 { -beta } else { 0.0 };
                (loss, [slope, -slope])
            }
            Self::Ipo => {
                let mean = |answer: &Answer| answer.log_ratio() / answer.tokens.max(1) as f64;
                let off = mean(&chosen) - mean(&rejected) - 1.0 / (2.0 * beta);
                let slope = |answer: &Answer| 2.0 * off / answer.tokens.max(1) as f64;
                (off * off, [slope(&chosen), -slope(&rejected)])
            }
        }
    }
}

/// What TRL logs of some pairs, under its names, with the mean loss first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// The mean loss.
    pub loss: f64,
    /// The mean of beta times the log-ratio of the chosen answers.
    pub rewards_chosen: f64,
    /// The same of the rejected.
    pub rewards_rejected: f64,
    /// The share of pairs whose chosen answer has the larger one.
    pub accuracy: f64,
    /// The mean log-probability of the chosen answers.
    pub logps_chosen: f64,
    /// The same of the rejected.
    pub logps_rejected: f64,
}

impl Measures {
    /// Over pairs of answers, the chosen first.
    pub fn of(loss: PreferenceLoss, beta: f64, pairs: &[[Answer; 2]]) -> Self {
        let mean = |value: &dyn Fn(&[Answer; 2]) -> f64| pairs.iter().map(value).sum::<f64>() / pairs.len() as f64;
        Self {
            loss: mean(&|[chosen, rejected]| loss.of(beta, *chosen, *rejected).0),
            rewards_chosen: mean(&|[chosen, _]| beta * chosen.log_ratio()),
            rewards_rejected: mean(&|[_, rejected]| beta * rejected.log_ratio()),
            accuracy: mean(&|[chosen, rejected]| f64::from(u8::from(chosen.log_ratio() > rejected.log_ratio()))),
            logps_chosen: mean(&|[chosen, _]| chosen.logp),
            logps_rejected: mean(&|[_, rejected]| rejected.logp),
        }
    }
}

//! Steps that are better not taken: `train.skip_spikes = true`.
//!
//! A batch now and then has a loss or a gradient far beyond all others (a broken document, a page of numbers), and one
//! step along it can undo hundreds. The authors of `PaLM` went back to an earlier checkpoint and left such batches out (Chowdhery et
//! al. 2022, arXiv:2204.02311, section 5.1). Here the step is not taken in the first place: neither the weights nor what the
//! optimiser remembers change, as if the batch had not been there.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::step::Limits;

/// Steps that say what is usual; before there are as many, nothing is skipped.
const WINDOW: usize = 128;
/// Standard deviations above the mean. Of a normal distribution one step in a billion is beyond.
const DEVIATIONS: f64 = 6.0;
/// A run of equal losses would call the next rounding error a spike; a thousandth of the mean is none.
const SMALLEST_DEVIATION: f64 = 1e-3;
/// After this many in a row it is not the batches.
const MOST_IN_A_ROW: usize = 16;

/// The losses and gradient norms of the last steps that were taken, and how many were not. Part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spikes {
    /// Loss (nats per token) and gradient norm, the newest last. f32, as the device gave them: JSON keeps those exactly.
    recent: VecDeque<[f32; 2]>,
    /// Steps of the run that were not taken.
    skipped: usize,
    in_a_row: usize,
}

impl Spikes {
    /// Whether no step has been looked at: what a run without `skip_spikes` saves.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a run of `steps` steps can have noted them.
    pub fn are_of(&self, steps: usize) -> bool {
        self.recent.len() <= WINDOW && self.skipped.saturating_add(self.recent.len()) <= steps
    }

    /// Steps of the run that were not taken.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// What the next step must stay below, once there have been enough.
    pub fn limits(&self) -> Option<Limits> {
        if self.recent.len() < WINDOW {
            return None;
        }
        let limit = |index: usize| {
            let values = || self.recent.iter().map(|pair| f64::from(pair[index]));
            let mean = values().sum::<f64>() / WINDOW as f64;
            let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / WINDOW as f64;
            mean + DEVIATIONS * variance.sqrt().max(SMALLEST_DEVIATION * mean.abs())
        };
        Some(Limits { loss: limit(0), grad_norm: limit(1) })
    }

    /// Takes note of the step after `step - 1` others.
    ///
    /// # Errors
    /// Too many skipped one after the other: the model has diverged, or the text has changed.
    pub fn note(&mut self, step: usize, loss: f64, grad_norm: f64, skipped: bool) -> Result<()> {
        if skipped {
            self.skipped += 1;
            self.in_a_row += 1;
            let skipped = self.skipped;
            tracing::warn!(
                "step {step} is skipped: loss {loss:.3}, gradient norm {grad_norm:.2}; {skipped} of the run so far"
            );
            return if self.in_a_row < MOST_IN_A_ROW {
                Ok(())
            } else {
                Err(Error::Spikes { step, count: self.in_a_row })
            };
        }
        self.in_a_row = 0;
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back([loss as f32, grad_norm as f32]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses 2 ± 0.1 and norms 1 ± 0.5 in turn.
    fn usual() -> Spikes {
        let mut spikes = Spikes::default();
        for step in 1..=WINDOW {
            assert_eq!(spikes.limits(), None, "after {} steps", step - 1);
            let sign = if step % 2 == 0 { 1.0 } else { -1.0 };
            spikes.note(step, 2.0 + 0.1 * sign, 1.0 + 0.5 * sign, false).unwrap();
        }
        spikes
    }

    #[test]
    fn six_deviations_of_the_last_128() {
        let mut spikes = usual();
        let Limits { loss, grad_norm } = spikes.limits().unwrap();
        // f32 holds 2.1 to 1e-7
        assert!((loss - 2.6).abs() < 1e-6 && (grad_norm - 4.0).abs() < 1e-6, "{loss} {grad_norm}");
        for _ in 0..WINDOW {
            spikes.note(1, 1.0, 1.0, false).unwrap(); // the old ones leave
        }
        assert!((spikes.limits().unwrap().loss - 1.006).abs() < 1e-6, "{:?}", spikes.limits());
    }

    #[test]
    fn either_is_a_spike_and_lower_is_none() {
        let limits = usual().limits().unwrap();
        assert!(limits.are_exceeded_by(1e9, 1.0) && limits.are_exceeded_by(2.0, 1e9));
        assert!(limits.are_exceeded_by(2.7, 1.0) && !limits.are_exceeded_by(2.5, 3.9));
        assert!(!limits.are_exceeded_by(0.0, 0.0));
    }

    #[test]
    fn skipped_steps_are_counted_and_do_not_widen_the_limits() {
        let mut spikes = usual();
        let before = spikes.limits();
        for step in 1..MOST_IN_A_ROW {
            spikes.note(step, 1e9, 1.0, true).unwrap();
        }
        assert_eq!((spikes.limits(), spikes.skipped()), (before, MOST_IN_A_ROW - 1));
        let error = spikes.clone().note(99, 1e9, 1.0, true).unwrap_err();
        assert_eq!(error.to_string(), "step 99: the last 16 steps were all skipped as spikes");
        spikes.note(99, 2.0, 1.0, false).unwrap();
        spikes.note(100, 1e9, 1.0, true).unwrap();
    }

    #[test]
    fn what_no_run_can_have_noted() {
        let spikes = usual();
        assert!(spikes.are_of(WINDOW) && !spikes.are_of(WINDOW - 1));
        assert!(!Spikes { skipped: 1, ..spikes.clone() }.are_of(WINDOW));
        assert!(!Spikes { skipped: usize::MAX, ..spikes.clone() }.are_of(1000));
        let mut longer = spikes;
        longer.recent.push_back([1.0, 1.0]);
        assert!(!longer.are_of(1000));
    }

    #[test]
    fn saved_and_read_again_is_equal() {
        let spikes = usual();
        let text = serde_json::to_string(&spikes).unwrap();
        assert_eq!(serde_json::from_str::<Spikes>(&text).unwrap(), spikes);
        assert!(Spikes::default().is_empty() && !spikes.is_empty());
    }
}

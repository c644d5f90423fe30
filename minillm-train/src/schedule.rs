//! How large the next step may be: the learning rate as a function of the step, and of nothing else.
//!
//! Every schedule climbs in a straight line during `warmup_steps` (w), because the optimiser's running means say
//! little at first, and ends at `min_learning_rate` (m) once `decay_steps` (d) have been taken. With `t` steps already
//! taken and the peak `p`:
//!
//! ```text
//! warm-up    t < w         p (t + 1) / (w + 1)
//! cosine     w <= t < d    m + (p - m) (1 + cos(pi (t - w) / (d - w))) / 2
//! wsd        t < d - c     p                          warm-up, stable, decay: c is `cooldown_steps`
//!            d - c <= t    m + (p - m) (d - t) / c
//! constant   w <= t        p                          (m and d have no part in it)
//! ```
//!
//! Sources: warm-up and cosine are nanoGPT's `get_lr`, with its `it` as our `t` (the cosine is arXiv:1608.03983); WSD
//! is `MiniCPM`'s (arXiv:2404.06395) with the straight cool-down over a fifth of the steps of arXiv:2405.18392.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from the peak down to the minimum.
    #[default]
    Cosine,
    /// Warm-up, stable, decay: the peak, then a straight line down to the minimum at the end.
    Wsd,
    /// The peak for ever.
    Constant,
}

/// The `[schedule]` section. What is left out follows from `train.max_steps` and `optimizer.learning_rate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Cosine, WSD or constant.
    pub kind: ScheduleKind,
    /// Steps of linear warm-up; by default 100, or a tenth of `max_steps` where that is less.
    pub warmup_steps: Option<usize>,
    /// The learning rate at the end and after it; by default a tenth of the peak.
    pub min_learning_rate: Option<f64>,
    /// The step, counted from the start of the run, at which the minimum is reached; by default `max_steps`.
    pub decay_steps: Option<usize>,
    /// For `wsd`: over how many steps before `decay_steps` the rate falls; by default a fifth of `decay_steps`.
    pub cooldown_steps: Option<usize>,
}

impl ScheduleConfig {
    /// Length of the warm-up, in steps.
    pub fn warmup_steps(&self, max_steps: usize) -> usize {
        self.warmup_steps.unwrap_or_else(|| (max_steps / 10).min(100))
    }

    /// The lowest learning rate after warm-up.
    pub fn min_learning_rate(&self, peak: f64) -> f64 {
        self.min_learning_rate.unwrap_or(peak / 10.0)
    }

    /// The step at which the decay ends.
    pub fn decay_steps(&self, max_steps: usize) -> usize {
        self.decay_steps.unwrap_or(max_steps)
    }

    /// Length of WSD's decay, in steps.
    pub fn cooldown_steps(&self, max_steps: usize) -> usize {
        self.cooldown_steps.unwrap_or_else(|| self.decay_steps(max_steps) / 5)
    }

    /// The same schedule with nothing left open, so that a file that holds it no longer depends on `max_steps`.
    #[must_use]
    pub fn resolved(&self, peak: f64, max_steps: usize) -> Self {
        let wsd = self.kind == ScheduleKind::Wsd;
        Self {
            kind: self.kind,
            warmup_steps: Some(self.warmup_steps(max_steps)),
            min_learning_rate: Some(self.min_learning_rate(peak)),
            decay_steps: Some(self.decay_steps(max_steps)),
            cooldown_steps: if wsd { Some(self.cooldown_steps(max_steps)) } else { self.cooldown_steps },
        }
    }
}

/// The learning rate of the optimiser step that follows `step` steps already taken (so the first one has `step` = 0).
///
/// `peak` is `optimizer.learning_rate`; `max_steps` only fills in what `config` leaves open. See the module for the
/// formula. After warm-up the result never rises again, whatever `step` is.
pub fn learning_rate(config: &ScheduleConfig, peak: f64, step: usize, max_steps: usize) -> f64 {
    let warmup = config.warmup_steps(max_steps);
    let end = config.decay_steps(max_steps);
    let min = config.min_learning_rate(peak);
    if step < warmup {
        return peak * (step + 1) as f64 / (warmup + 1) as f64;
    }
    match config.kind {
        ScheduleKind::Constant => peak,
        _ if step >= end => min,
        ScheduleKind::Cosine => {
            let done = (step - warmup) as f64 / (end - warmup) as f64; // 0 at the end of warm-up, 1 at `end`
            min + (peak - min) * 0.5 * (1.0 + (PI * done).cos())
        }
        ScheduleKind::Wsd => {
            let cooldown = config.cooldown_steps(max_steps);
            let left = end - step;
            if left >= cooldown { peak } else { min + (peak - min) * left as f64 / cooldown as f64 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: ScheduleKind) -> ScheduleConfig {
        ScheduleConfig {
            kind,
            warmup_steps: Some(100),
            min_learning_rate: Some(1e-4),
            decay_steps: None,
            cooldown_steps: None,
        }
    }

    #[track_caller]
    fn assert_rates(config: &ScheduleConfig, expected: &[(usize, f64)]) {
        for &(step, rate) in expected {
            let found = learning_rate(config, 1e-3, step, 2000);
            assert!((found - rate).abs() < 1e-12, "step {step}: {found}, expected {rate}");
        }
    }

    /// Numbers from nanoGPT's `get_lr` with the settings of its CPU recipe.
    #[test]
    fn cosine_is_nanogpts() {
        let expected = [
            (0, 9.900_990_099_009_902e-6),
            (49, 4.950_495_049_504_95e-4),
            (99, 9.900_990_099_009_902e-4),
            (100, 1e-3),
            (575, 8.681_980_515_339_464e-4),
            (1050, 5.5e-4),
            (1525, 2.318_019_484_660_536_5e-4),
            (1999, 1.000_006_151_414_084_1e-4),
            (2000, 1e-4),
            (50_000, 1e-4),
        ];
        assert_rates(&config(ScheduleKind::Cosine), &expected);
    }

    #[test]
    fn wsd_is_flat_then_falls_in_a_straight_line() {
        let expected = [(99, 9.900_990_099_009_902e-4), (100, 1e-3), (1600, 1e-3), (1700, 7.75e-4), (1800, 5.5e-4)];
        assert_rates(&config(ScheduleKind::Wsd), &expected);
        assert_rates(&config(ScheduleKind::Wsd), &[(1999, 1.0225e-4), (2000, 1e-4), (9999, 1e-4)]);
    }

    #[test]
    fn constant_stays_at_the_peak() {
        assert_rates(&config(ScheduleKind::Constant), &[(100, 1e-3), (1999, 1e-3), (9999, 1e-3)]);
    }

    #[test]
    fn no_schedule_climbs_after_warmup_and_resolving_changes_nothing() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Wsd, ScheduleKind::Constant] {
            for (warmup, decay, cooldown) in [(0, 1, 0), (0, 50, 50), (7, 7, 0), (10, 40, 5), (50, 50, 0)] {
                let config = ScheduleConfig {
                    kind,
                    warmup_steps: Some(warmup),
                    min_learning_rate: None,
                    decay_steps: Some(decay),
                    cooldown_steps: Some(cooldown),
                };
                let rates: Vec<_> = (0..120).map(|step| learning_rate(&config, 3e-4, step, 60)).collect();
                assert!(rates.iter().all(|rate| (0.0..=3e-4).contains(rate)), "{config:?}: {rates:?}");
                assert!(rates[warmup..].windows(2).all(|pair| pair[1] <= pair[0]), "{config:?}: {rates:?}");
                assert!(rates[..warmup].windows(2).all(|pair| pair[1] > pair[0]), "{config:?}: {rates:?}");
            }
            let open = ScheduleConfig { kind, ..ScheduleConfig::default() };
            let resolved = open.resolved(3e-4, 60);
            for step in 0..80 {
                // Another `max_steps` has no say once everything is filled in.
                let (open, filled) = (learning_rate(&open, 3e-4, step, 60), learning_rate(&resolved, 3e-4, step, 9999));
                assert_eq!(open.to_bits(), filled.to_bits(), "{kind:?} at step {step}");
            }
        }
    }

    #[test]
    fn defaults_follow_the_length_of_the_run() {
        let config = ScheduleConfig::default();
        assert_eq!((config.warmup_steps(30), config.warmup_steps(5000)), (3, 100));
        assert_eq!((config.decay_steps(30), config.cooldown_steps(30)), (30, 6));
    }
}

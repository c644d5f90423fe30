//! The axes of a figure: a range of values, and the round values in it that get a label.

use crate::number::{exact, label};

/// How values become distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps are equally far apart.
    Linear,
    /// Equal factors are equally far apart; only positive values have a place.
    Log,
}

impl Scale {
    /// Whether a value has a place on it.
    pub(super) fn has(self, value: f64) -> bool {
        value.is_finite() && (self == Self::Linear || value > 0.0)
    }

    fn apply(self, value: f64) -> f64 {
        if self == Self::Log { value.log10() } else { value }
    }
}

/// A range of values along one side of the frame; `low` and `high` as the scale has them.
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// From the smallest to the largest value, and a share of that on both sides. Never empty.
    pub(super) fn over(scale: Scale, values: impl Iterator<Item = f64>, margin: f64) -> Self {
        let values = values.filter(|value| scale.has(*value)).map(|value| scale.apply(value));
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return Self { scale, low: 0.0, high: 1.0 };
        }
        // Values next to the largest numbers there are leave no room for a margin.
        let pad = if high > low { margin * (high - low) } else { 0.5 * low.abs().max(1e-9) };
        let (low, high) = (low - pad, high + pad);
        if (high - low).is_finite() { Self { scale, low, high } } else { Self { scale, low: 0.0, high: 1.0 } }
    }

    /// A linear axis of positive values that comes near zero begins there.
    pub(super) fn with_zero(self, values: impl Iterator<Item = f64>) -> Self {
        /// Times that the largest value is the smallest.
        const NEAR: f64 = 3.0;
        let smallest = values.fold(f64::INFINITY, f64::min);
        let low = if smallest > 0.0 && NEAR * smallest < self.high { 0.0 } else { self.low };
        if self.scale == Scale::Linear { Self { low, ..self } } else { self }
    }

    /// Between 0 and 1; `None` for what the scale has no place for.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let at = (self.scale.apply(value) - self.low) / (self.high - self.low);
        (self.scale.has(value) && at.is_finite()).then(|| at.clamp(0.0, 1.0))
    }

    /// About `count` round values with their labels, each at its place.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let values = match self.scale {
            Scale::Linear => round_values(self.low, self.high, count),
            Scale::Log => self.round_powers(count),
        };
        values.into_iter().filter_map(|(value, label)| Some((self.place(value)?, label))).collect()
    }

    /// Powers of ten; 1, 2 and 5 times them where there are few; else round values.
    fn round_powers(&self, count: usize) -> Vec<(f64, String)> {
        let (first, last) = (self.low.ceil() as i32, self.high.floor() as i32);
        let stride = ((last - first).max(0) as usize).div_ceil(count).max(1);
        let powers: Vec<_> = (first..=last).step_by(stride).map(|power| 10_f64.powi(power)).collect();
        if powers.len() >= 3 {
            return powers.into_iter().map(|value| (value, exact(value))).collect();
        }
        let inside = |value: &f64| (self.low - 1e-9..=self.high + 1e-9).contains(&value.log10());
        let finer: Vec<_> = (first - 1..=last)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
            .filter(inside)
            .collect();
        if finer.len() >= 3 {
            return finer.into_iter().map(|value| (value, exact(value))).collect();
        }
        round_values(10_f64.powf(self.low), 10_f64.powf(self.high), count)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten between `low` and `high`, about `count` of them, with their labels.
fn round_values(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / count as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= rough * 0.99).unwrap_or(10.0);
    let step = digit * power;
    if !step.is_finite() || step <= 0.0 {
        return Vec::new();
    }
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    let steps = (last - first).clamp(0.0, 2.0 * count as f64) as usize;
    (0..=steps).map(|index| (first + index as f64) * step).map(|value| (value, label(value, step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: Vec<(f64, String)>) -> Vec<String> {
        values.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(round_values(0.0, 1100.0, 6)), ["0", "200", "400", "600", "800", "1,000"]);
        assert_eq!(labels(round_values(0.57, 4.2, 5)), ["1", "2", "3", "4"]);
        assert_eq!(labels(round_values(-0.05, 0.04, 5)), ["−0.04", "−0.02", "0", "0.02", "0.04"]);
        assert_eq!(labels(round_values(0.0, 1e-3, 5)), ["0", "0.0002", "0.0004", "0.0006", "0.0008", "0.0010"]);
        assert_eq!(labels(round_values(0.0, 2e9, 2)), ["0", "10⁹", "2×10⁹"]);
    }

    #[test]
    fn logarithmic_ticks_are_powers_or_close_to_them() {
        let axis = |low: f64, high: f64| Axis::over(Scale::Log, [low, high].into_iter(), 0.0);
        assert_eq!(labels(axis(1e-3, 1.0).ticks(5)), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(axis(2.0, 60.0).ticks(5)), ["2", "5", "10", "20", "50"]);
        assert_eq!(labels(axis(1.0, 1e12).ticks(4)), ["1", "1,000", "1,000,000", "10⁹", "10¹²"]);
        assert_eq!(labels(axis(1.1, 1.5).ticks(4)), ["1.1", "1.2", "1.3", "1.4", "1.5"]);
    }
}

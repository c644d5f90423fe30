//! How sure a mean over a few seeds is.
//!
//! Two runs that differ in the seed alone end at different losses, so one run of each variant says little. The mean of n
//! seeds is within `t s / sqrt(n)` of what endlessly many would give, in 95 of 100 studies: s is the standard deviation
//! of the runs and t the quantile of Student's distribution (Student 1908), which is wide for few seeds: 4.30 standard
//! errors for three.
//!
//! Variants are compared seed by seed where they share seeds: the same seed draws the same batches, so much of what seeds
//! do falls out of the difference.

use serde::{Deserialize, Serialize};

/// 0.975 quantiles of Student's t for 1 to 30 degrees of freedom: a 95 % interval leaves out 2.5 % on either side.
const T: [f64; 30] = [
    12.706_204_736,
    4.302_652_730,
    3.182_446_305,
    2.776_445_105,
    2.570_581_836,
    2.446_911_851,
    2.364_624_252,
    2.306_004_135,
    2.262_157_163,
    2.228_138_852,
    2.200_985_160,
    2.178_812_830,
    2.160_368_656,
    2.144_786_688,
    2.131_449_546,
    2.119_905_299,
    2.109_815_578,
    2.100_922_040,
    2.093_024_054,
    2.085_963_447,
    2.079_613_845,
    2.073_873_068,
    2.068_657_610,
    2.063_898_562,
    2.059_538_553,
    2.055_529_439,
    2.051_830_516,
    2.048_407_142,
    2.045_229_642,
    2.042_272_456,
];

/// The 0.975 quantile of Student's t with so many degrees of freedom, at least 1.
pub fn t_quantile(degrees: usize) -> f64 {
    match degrees.max(1) {
        small @ 1..=30 => T[small - 1],
        large => {
            // Cornish and Fisher's expansion around the normal quantile z; off by less than 1e-6 from 30 on.
            let (z, n) = (1.959_963_984_540_054_f64, large as f64);
            let (z3, z5) = (z.powi(3), z.powi(5));
            z + (z3 + z) / (4.0 * n) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * n * n)
        }
    }
}

/// A mean and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Over the seeds.
    pub mean: f64,
    /// Half the width of the 95 % interval; `None` from a single seed.
    pub half_width: Option<f64>,
    /// The number of seeds.
    pub count: usize,
}

impl Estimate {
    /// Of one value per seed; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let (count, mean, variance) = moments(values)?;
        let half_width = (count > 1).then(|| t_quantile(count - 1) * (variance / count as f64).sqrt());
        Some(Self { mean, half_width, count })
    }

    /// The interval's ends; both the mean from a single seed.
    pub fn interval(&self) -> (f64, f64) {
        let half = self.half_width.unwrap_or(0.0);
        (self.mean - half, self.mean + half)
    }

    /// Whether the interval leaves out 0. From a single seed nothing can be told.
    pub fn is_clear(&self) -> bool {
        self.half_width.is_some_and(|half| self.mean.abs() > half)
    }
}

/// The difference between two variants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Theirs less the reference's.
    pub estimate: Estimate,
    /// Whether it was taken seed by seed.
    pub is_paired: bool,
}

impl Difference {
    /// Of values with their seeds: paired over the seeds that both have, and by Welch's interval (Welch 1947) where they share
    /// none. `None` where a side has no value.
    pub fn of(variant: &[(u64, f64)], reference: &[(u64, f64)]) -> Option<Self> {
        let partner = |seed: u64| reference.iter().find(|(other, _)| *other == seed).map(|(_, value)| *value);
        let pairs: Vec<f64> = variant.iter().filter_map(|(seed, value)| Some(value - partner(*seed)?)).collect();
        if let Some(estimate) = Estimate::of(&pairs) {
            return Some(Self { estimate, is_paired: true });
        }
        let values = |side: &[(u64, f64)]| side.iter().map(|(_, value)| *value).collect::<Vec<_>>();
        let (n, mean, variance) = moments(&values(variant))?;
        let (m, other_mean, other_variance) = moments(&values(reference))?;
        let (a, b) = (variance / n as f64, other_variance / m as f64);
        let half_width = (n > 1 && m > 1).then(|| {
            let spread = a * a / (n as f64 - 1.0) + b * b / (m as f64 - 1.0);
            // Both sides without any spread: no freedom is lost, and the width is 0 whatever t is.
            let degrees = if spread > 0.0 { ((a + b) * (a + b) / spread).floor() as usize } else { n + m - 2 };
            t_quantile(degrees) * (a + b).sqrt()
        });
        Some(Self { estimate: Estimate { mean: mean - other_mean, half_width, count: n.min(m) }, is_paired: false })
    }
}

/// Count, mean and variance (with n - 1).
fn moments(values: &[f64]) -> Option<(usize, f64, f64)> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    // From the first value on: equal values then give exactly that mean, and exactly no variance.
    let first = values[0];
    let mean = first + values.iter().map(|value| value - first).sum::<f64>() / count as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((count, mean, if count > 1 { squares / (count as f64 - 1.0) } else { 0.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 5e-4 * b.abs().max(1.0), "{a} {b}");
    }

    /// The printed tables of Student's t, three decimals.
    #[test]
    fn quantiles_of_two_to_ten_seeds() {
        let printed = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
        for (seeds, t) in (2..=10).zip(printed) {
            close(t_quantile(seeds - 1), t);
        }
        close(t_quantile(40), 2.021);
        close(t_quantile(120), 1.980);
        close(t_quantile(1_000_000), 1.960);
        assert!(t_quantile(30) > t_quantile(31));
    }

    /// 1.0, 1.1 and 1.3: mean 3.4 / 3, squares 0.046667, s = 0.152753, s / sqrt(3) = 0.088192, times 4.302653.
    #[test]
    fn an_interval_by_hand() {
        let estimate = Estimate::of(&[1.0, 1.1, 1.3]).unwrap();
        assert!((estimate.mean - 1.133_333).abs() < 1e-6);
        assert!((estimate.half_width.unwrap() - 0.379_459).abs() < 1e-5, "{estimate:?}");
        assert!(estimate.is_clear());
        let single = Estimate::of(&[2.0]).unwrap();
        assert_eq!((single.half_width, single.interval(), single.is_clear()), (None, (2.0, 2.0), false));
        assert_eq!(Estimate::of(&[]), None);
    }

    /// The seeds spread by 1, the differences are 0.1, 0.2 and 0.3: mean 0.2, s = 0.1, half width 4.302653 x 0.057735.
    #[test]
    fn pairing_takes_out_what_the_seeds_do() {
        let (reference, variant) = ([(1, 1.0), (2, 2.0), (3, 3.0)], [(3, 3.3), (1, 1.1), (2, 2.2)]);
        let difference = Difference::of(&variant, &reference).unwrap();
        assert!(difference.is_paired);
        assert!((difference.estimate.mean - 0.2).abs() < 1e-12);
        assert!((difference.estimate.half_width.unwrap() - 0.248_414).abs() < 1e-5, "{difference:?}");
        assert!(!difference.estimate.is_clear());
        let clear = Difference::of(&[(1, 1.21), (2, 2.2), (3, 3.19)], &reference).unwrap();
        assert!(clear.estimate.is_clear());
    }

    #[test]
    fn the_same_variant_twice_is_no_difference() {
        let runs = [(1, 1.234_567), (2, 1.3), (3, 0.1 + 0.2)];
        let difference = Difference::of(&runs, &runs).unwrap();
        assert_eq!(difference.estimate, Estimate { mean: 0.0, half_width: Some(0.0), count: 3 });
        assert!(!difference.estimate.is_clear());
        // The same loss with every seed, and a constant distance from it.
        let same = Estimate::of(&[0.1, 0.1, 0.1]).unwrap();
        assert_eq!((same.mean, same.half_width), (0.1, Some(0.0)));
        assert!(Difference::of(&[(1, 1.5), (2, 2.5)], &[(1, 1.0), (2, 2.0)]).unwrap().estimate.is_clear());
    }

    /// Other seeds, no pairs: 1, 2, 3 and 4, 6, 8 have variances 1 and 4, standard errors 1/3 and 4/3; Welch's degrees are
    /// (5/3)^2 / (1/9/2 + 16/9/2) = 2.94, so 2, and the half width 4.302653 x 1.290994.
    #[test]
    fn other_seeds_are_compared_without_pairs() {
        let difference = Difference::of(&[(4, 4.0), (5, 6.0), (6, 8.0)], &[(1, 1.0), (2, 2.0), (3, 3.0)]).unwrap();
        assert!(!difference.is_paired);
        assert!((difference.estimate.mean - 4.0).abs() < 1e-12);
        assert!((difference.estimate.half_width.unwrap() - 5.554_7).abs() < 1e-3, "{difference:?}");
        let none = Difference::of(&[(4, 1.0), (5, 1.0)], &[(1, 1.0), (2, 1.0)]).unwrap();
        assert_eq!((none.estimate.mean, none.estimate.half_width), (0.0, Some(0.0)));
    }
}

//! The inner loops' vocabulary: an exponential and reductions that the compiler turns into vector instructions.
//!
//! `vectorised!` picks the widest instructions of the processor when the program runs (AVX-512, AVX2, NEON); the code
//! inside is plain Rust. Sums run in sixteen partial sums of fixed places, so that they come out the same whatever
//! the width is.

/// Partial sums of a reduction: one AVX-512 register of f32, two of AVX2, four of NEON.
const LANES: usize = 16;

/// The value of a block, compiled for the widest vector instructions that the processor has: `vectorised!({ .. })`.
///
/// What is not inlined into the function with those instructions is compiled for the oldest processor. A closure that could
/// be called twice is reached through a call that the compiler may leave standing; one that consumes a value cannot.
macro_rules! vectorised {
    ($kernel:expr) => {{
        let once = $crate::ops::cpu::math::Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _consumed = once;
                $kernel
            },
        )
    }};
}
pub(super) use vectorised;

/// See [`vectorised`].
pub(super) struct Once;

/// e^x to within 2 units in the last place, for every x that is not NaN (NaN stays NaN); below -87.3 it is 1.2e-38
/// rather than 0, above 88.4 it is 2.4e38 rather than infinity.
///
/// x = n ln 2 + r, so e^x = 2^n e^r, with |r| <= ln 2 / 2. The polynomial for e^r is that of Cephes' `expf` (Moshier).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts: the first has few enough bits that n times it is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const CUBIC_AND_UP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

    // Comparisons and not `f32::clamp`, which the compiler cannot turn into one instruction each; NaN passes both.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.4 { 88.4 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let tail = CUBIC_AND_UP.iter().fold(0.0, |sum, coefficient| sum * r + coefficient);
    let e_to_r = tail * r * r + r + 1.0;
    // 2^n, by writing n into the exponent: the shift drops the bits of ROUND.
    let two_to_n = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    two_to_n * e_to_r
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum over all places of `term(a, b)`.
#[inline(always)]
pub fn sum_of(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| term(*a, *b)).sum();
    add_lanes(sums) + rest
}

/// The dot product.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of(a, b, |a, b| a * b)
}

/// The largest value; minus infinity if there is none. NaN is ignored.
#[inline(always)]
pub fn largest(values: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = if chunk[lane] > best[lane] { chunk[lane] } else { best[lane] };
        }
    }
    best.iter().chain(rest).fold(f32::NEG_INFINITY, |best, &value| if value > best { value } else { best })
}

/// Replaces each value by e^(value - shift) and returns their sum.
#[inline(always)]
pub fn exponentials(values: &mut [f32], shift: f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - shift);
            sums[lane] += chunk[lane];
        }
    }
    let mut sum = add_lanes(sums);
    for value in rest {
        *value = exp(*value - shift);
        sum += *value;
    }
    sum
}

/// Halves at a time, as a tree: the order that vector instructions would take.
#[inline(always)]
fn add_lanes(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_the_library_s() {
        for step in -8_700..=8_800 {
            let x = step as f32 / 100.0;
            let (got, expected) = (exp(x), f64::from(x).exp());
            // 2 units in the last place
            assert!((f64::from(got) / expected - 1.0).abs() < 2.4e-7, "{x}: {got} {expected}");
        }
        assert_eq!((exp(0.0), sigmoid(0.0)), (1.0, 0.5));
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38 && exp(f32::INFINITY) > 1e38);
        assert!(exp(f32::NAN).is_nan(), "a loss that is not a number must stay so");
    }

    #[test]
    #[allow(clippy::float_cmp)] // small whole numbers are exact
    fn reductions_take_every_value_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
            let squares: f32 = values.iter().map(|v| v * v).sum();
            assert_eq!(dot(&values, &values), squares, "{n}"); // small whole numbers: exact
            assert_eq!(largest(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut exponents = values.clone();
            let sum = exponentials(&mut exponents, 1.0);
            assert!((sum - values.iter().map(|v| (v - 1.0).exp()).sum::<f32>()).abs() < 1e-4, "{n}");
        }
    }
}

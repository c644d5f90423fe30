//! Dropout (Srivastava et al. 2014) whose masks are a pure function of (seed, place in the network, element).
//!
//! Frameworks draw masks from a global generator, so that a resumed run, another backend or another split into
//! micro-batches trains on other masks. Here each sequence of the batch brings a seed, each place in the network derives its
//! own from it, and the device hashes (seed, index) for every element: nothing is stored, and nothing depends on what
//! ran before.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::random::{derive, scramble};

/// The seeds of one micro-batch at one place in the network.
#[derive(Clone, Debug, Default)]
pub struct Dropout {
    pub(super) rate: f64,
    /// One per sequence of the batch.
    pub(super) seeds: Vec<u64>,
    /// The seeds of all places, where the device has the fast form, and the number of this place among them: 0 for what
    /// all are derived from, 1 for the embedding, then block by block.
    pub(super) on_device: Option<(Tensor<2>, usize)>,
}

/// Places of a block where values are dropped: attention's weights, its output, the MLP's output.
pub(super) const PLACES_OF_A_BLOCK: u64 = 3;

impl Dropout {
    /// Drops nothing: inference and evaluation.
    pub fn off() -> Self {
        Self::default()
    }

    /// Drops a share `rate` of the values; `seeds` holds one seed per sequence.
    pub fn new(rate: f64, seeds: Vec<u64>) -> Self {
        Self { rate, seeds, on_device: None }
    }

    /// Whether nothing is dropped.
    pub fn is_off(&self) -> bool {
        self.rate == 0.0
    }

    /// What is dropped of the embedding.
    #[must_use]
    pub fn at_embedding(&self) -> Self {
        self.at(&[0], 1)
    }

    /// What is dropped at one of the three places of a block, counted from 0 as blocks are.
    #[must_use]
    pub fn in_block(&self, block: usize, place: u64) -> Self {
        let block = block as u64;
        self.at(&[block + 1, place], (2 + block * PLACES_OF_A_BLOCK + place) as usize)
    }

    /// At the place that this path leads to, which is `number` among all.
    fn at(&self, path: &[u64], number: usize) -> Self {
        if self.is_off() {
            return Self::off();
        }
        let at = |seed| path.iter().fold(seed, |seed, &step| derive(seed, &[step]));
        let seeds = self.seeds.iter().map(|&seed| at(seed)).collect();
        let on_device = self.on_device.as_ref().map(|(table, _)| (table.clone(), number));
        Self { rate: self.rate, seeds, on_device }
    }
}

/// Zeroes a share of `x` and scales the rest up, so that the expected value stays the same.
///
/// # Shapes
/// - `x`: `[B, ..]` -> the same
pub fn dropout<const N: usize>(x: Tensor<N>, drop: &Dropout) -> Tensor<N> {
    if drop.is_off() {
        return x;
    }
    let shape = x.dims();
    let b = shape[0];
    debug_assert_eq!(b, drop.seeds.len(), "one dropout seed per sequence");
    let per_row = shape[1..].iter().product();
    let kept = keep_mask(&drop.seeds, per_row, drop.rate, &x.device()); // [B, per_row]
    x * (kept / (1.0 - drop.rate)).reshape(shape)
}

/// One where a value is kept, zero where it is dropped.
fn keep_mask(seeds: &[u64], per_row: usize, rate: f64, device: &Device) -> Tensor<2> {
    let b = seeds.len();
    let seeds: Vec<i32> = seeds.iter().copied().map(seed_31).collect();
    let seeds = Tensor::<2, Int>::from_data(TensorData::new(seeds, [b, 1]), device); // [B, 1]
    let index = Tensor::<1, Int>::arange(0..per_row as i64, device).unsqueeze(); // [1, per_row]
    let hash = hash_31(hash_31(index).bitwise_xor(seeds)); // [B, per_row]
    hash.greater_equal_scalar(threshold(rate)).float()
}

/// What the hashes of kept values are not below.
pub(super) fn threshold(rate: f64) -> i32 {
    (rate * f64::from(LOW_31_BITS)) as i32
}

/// A sequence's seed as the hash takes it.
pub(super) fn seed_31(seed: u64) -> i32 {
    (scramble(seed) & LOW_31_BITS as u64) as i32
}

const LOW_31_BITS: i32 = i32::MAX;

/// Scrambles non-negative integers below 2^31 (a multiply-xorshift hash as found by Wellons' hash prospector).
/// Integers are i32 on some backends and i64 on others; keeping the low 31 bits gives the same values on both, because
/// the wrapped product and the full one agree there.
fn hash_31(x: Tensor<2, Int>) -> Tensor<2, Int> {
    const MULTIPLIER: i32 = 0x045d_9f3b;
    let x = x.clone().bitwise_xor(x.bitwise_right_shift_scalar(16));
    let x = x.mul_scalar(MULTIPLIER).bitwise_and_scalar(LOW_31_BITS);
    let x = x.clone().bitwise_xor(x.bitwise_right_shift_scalar(15));
    let x = x.mul_scalar(MULTIPLIER).bitwise_and_scalar(LOW_31_BITS);
    x.clone().bitwise_xor(x.bitwise_right_shift_scalar(16))
}

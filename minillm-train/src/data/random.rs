//! Random choices as pure functions of seed, step and row, so that resuming a run needs no generator's state.

use minillm_model::random::{derive, scramble, stream};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Where row `row` of step `step` is cropped, out of `n` places.
pub fn crop(seed: u64, step: u64, row: u64, n: u64) -> u64 {
    below(&mut stream(derive(seed, &[step, row]), "crop"), n)
}

/// A number below `n`, uniform but for a bias of at most n / 2^64.
fn below(generator: &mut ChaCha8Rng, n: u64) -> u64 {
    ((u128::from(generator.next_u64()) * u128::from(n)) >> 64) as u64
}

/// Which of `count` things the `batch_size` rows of step `step` are: each once an epoch, in a new order every epoch.
pub fn rows_of_step(seed: u64, step: usize, batch_size: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count as u64;
    let numbers = (step * batch_size) as u64..((step + 1) * batch_size) as u64;
    numbers.map(move |number| Permutation::new(seed, number / count, count).at(number % count) as usize)
}

/// A pseudo-random permutation of `0..n` that is computed one place at a time, without a table of n entries.
///
/// A Feistel network (Luby and Rackoff, 1988): the number is two halves, and each round replaces `(left, right)` by
/// `(right, left ^ f(right))`. Whatever f is, a round can be undone, so the whole is a permutation of all numbers of
/// that many bits. Those not below n are sent through again until one is (cycle walking): starting below n, the walk
/// must come back below n, and it takes less than four tries on average because 2^bits is at most 4n.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; Self::ROUNDS],
}

impl Permutation {
    /// Four make a network look random; a few more cost nothing and help the very small ones.
    const ROUNDS: usize = 8;

    /// The order of epoch `epoch`, over `n` things.
    pub fn new(seed: u64, epoch: u64, n: u64) -> Self {
        let mut generator = stream(derive(seed, &[epoch]), "shuffle");
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2), keys: std::array::from_fn(|_| generator.next_u64()) }
    }

    /// What stands at `place`, which must be below n.
    pub fn at(&self, place: u64) -> u64 {
        assert!(place < self.n, "place {place} of {}", self.n);
        let mut value = place;
        loop {
            value = self.encrypt(value);
            if value < self.n {
                return value;
            }
        }
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (scramble(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permutation_hits_every_place_once() {
        for n in (1..70).chain([255, 256, 257, 1000, 4097]) {
            for epoch in 0..3 {
                let permutation = Permutation::new(7, epoch, n);
                let mut seen = vec![false; n as usize];
                (0..n).for_each(|place| seen[permutation.at(place) as usize] = true);
                assert!(seen.iter().all(|&seen| seen), "n = {n}");
            }
        }
    }

    #[test]
    fn permutations_look_random() {
        let n = 10_000;
        let orders = [(1, 0), (1, 1), (2, 0)].map(|(seed, epoch)| Permutation::new(seed, epoch, n));
        for (i, order) in orders.iter().enumerate() {
            let fixed = (0..n).filter(|&place| order.at(place) == place).count();
            assert!(fixed < 10, "{fixed} of about 1");
            let neighbours = (1..n).filter(|&place| order.at(place).abs_diff(order.at(place - 1)) == 1).count();
            assert!(neighbours < 15, "{neighbours} of about 2");
            for other in &orders[i + 1..] {
                assert!((0..n).filter(|&place| order.at(place) == other.at(place)).count() < 10);
            }
        }
        // Each of the 6 orders of three things is about as frequent as the others.
        let mut counts = [0; 27];
        for epoch in 0..6000 {
            let order = Permutation::new(3, epoch, 3);
            counts[(order.at(0) * 9 + order.at(1) * 3 + order.at(2)) as usize] += 1;
        }
        let counts: Vec<i32> = counts.into_iter().filter(|&count| count > 0).collect();
        assert!(counts.len() == 6 && counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn crops_depend_on_seed_step_and_row_and_are_uniform() {
        let first = crop(1, 2, 3, 1 << 40);
        assert_eq!(first, crop(1, 2, 3, 1 << 40));
        for other in [crop(2, 2, 3, 1 << 40), crop(1, 3, 3, 1 << 40), crop(1, 2, 4, 1 << 40), crop(1, 3, 2, 1 << 40)] {
            assert_ne!(first, other);
        }
        let mut seen = [0; 5];
        (0..5000).for_each(|step| seen[crop(0, step, step % 7, 5) as usize] += 1);
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
    }
}

//! Seeds as pure functions of a run's seed and a purpose.
//!
//! No generator lives on between uses, so there is no state to save, and what one purpose draws never shifts another.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Scrambles 64 bits (`SplitMix64`'s output function; Steele et al. 2014, doi:10.1145/2660193.2660195).
pub fn scramble(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The seed of a purpose that is told by numbers: which kind, which step, which row.
pub fn derive(seed: u64, purpose: &[u64]) -> u64 {
    purpose.iter().fold(seed, |state, number| scramble(state ^ scramble(*number)))
}

/// The random stream of a purpose that has a name.
pub fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    // FNV-1a: a hash that no library version changes.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

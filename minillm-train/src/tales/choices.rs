//! Choosing, forwards and backwards.
//!
//! The grammar makes every decision through one question: *which of these texts comes next?* A [`Sampler`] answers by
//! chance and writes the text down; a [`Reader`] answers by looking at a text that is already there. Both add up
//! -ln p of their answers, so the probability of a tale is the same whether it is told or read. [`Wished`] answers some
//! questions as it is asked to, and the rest by chance.
//!
//! None of the texts of a question may begin with another one. The reader then finds at most one that fits, a tale has
//! at most one derivation, and the sum is exactly -ln p(tale), not only of one of several ways to make it.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::world::World;

/// What a choice decides.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// Which alternative of this rule is told. The options are all of them, in order.
    Rule(usize),
    /// Which word this slot gets. The options are these words of its list, in a form.
    Slot(usize, &'a [usize]),
    /// Nothing: there is one option.
    Certain,
}

/// Answers the grammar's questions.
pub trait Choices {
    /// Chooses one of `options`, each a weight and a text, and moves past its text. `None`: no option fits, which only
    /// a reader answers.
    fn choose(&mut self, decision: Decision<'_>, options: &[(u32, &str)]) -> Option<usize>;
}

/// -ln of the probability with which `options[chosen]` is drawn: its weight as a share of all weights.
fn nats(options: &[(u32, &str)], chosen: usize) -> f64 {
    let total: u32 = options.iter().map(|(weight, _)| weight).sum();
    (f64::from(total) / f64::from(options[chosen].0)).ln()
}

/// Draws at random and writes.
pub struct Sampler {
    rng: ChaCha8Rng,
    /// What is written so far.
    pub text: String,
    /// -ln of its probability.
    pub nats: f64,
}

impl Sampler {
    /// Tells the `index`-th tale of `seed`: each index is a stream of its own, so tales can be told in any order.
    pub fn new(seed: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        Self { rng, text: String::new(), nats: 0.0 }
    }
}

impl Choices for Sampler {
    fn choose(&mut self, _: Decision<'_>, options: &[(u32, &str)]) -> Option<usize> {
        let total: u32 = options.iter().map(|(weight, _)| weight).sum();
        let mut left = self.rng.random_range(0..total);
        let chosen = options.iter().position(|&(weight, _)| {
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        })?;
        self.text.push_str(options[chosen].1);
        self.nats += nats(options, chosen);
        Some(chosen)
    }
}

/// Recognises a given text piece by piece.
pub struct Reader<'a> {
    /// What is not yet read.
    pub rest: &'a str,
    /// -ln of the probability of what is read.
    pub nats: f64,
}

impl<'a> Reader<'a> {
    /// Reads `text` from its beginning.
    pub fn new(text: &'a str) -> Self {
        Self { rest: text, nats: 0.0 }
    }
}

impl Choices for Reader<'_> {
    /// A text that two options fit is refused as well. So whatever is read to its end has exactly one derivation, by
    /// this very reading; that no tale is ever refused for this reason is left to the tests.
    fn choose(&mut self, _: Decision<'_>, options: &[(u32, &str)]) -> Option<usize> {
        let mut fitting = (0..options.len()).filter(|&i| self.rest.starts_with(options[i].1));
        let chosen = fitting.next()?;
        if fitting.next().is_some() {
            return None;
        }
        self.rest = &self.rest[options[chosen].1.len()..];
        self.nats += nats(options, chosen);
        Some(chosen)
    }
}

/// Tells what is asked for, and leaves the rest to chance.
///
/// What is asked for costs nothing, so `told.nats` is -ln p(tale | wish). It is that probability, and the tale is drawn
/// from it, as long as what is asked for has the same probability wherever it is decided: then
/// p(tale) = p(wish) p(tale | wish), a product of choices split in two.
pub struct Wished<'a> {
    /// The words and alternatives asked for. What it leaves open is left to chance.
    wish: &'a World,
    /// What is written so far, and -ln of the probability of what was left to chance.
    pub told: Sampler,
    /// -ln of the probability that chance decides as it was asked to.
    pub wish_nats: f64,
}

impl<'a> Wished<'a> {
    /// Tells as `wish` has it; `sampler` decides the rest.
    pub fn new(wish: &'a World, sampler: Sampler) -> Self {
        Self { wish, told: sampler, wish_nats: 0.0 }
    }
}

impl Choices for Wished<'_> {
    fn choose(&mut self, decision: Decision<'_>, options: &[(u32, &str)]) -> Option<usize> {
        let asked = match decision {
            Decision::Rule(rule) => self.wish.path[rule],
            Decision::Slot(slot, words) => words.iter().position(|&word| self.wish.slots[slot] == Some(word)),
            Decision::Certain => None,
        };
        let Some(chosen) = asked else { return self.told.choose(decision, options) };
        self.told.text.push_str(options[chosen].1);
        self.wish_nats += nats(options, chosen);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_read_back_at_the_same_price() {
        let options = [(1, "ant"), (2, "bee"), (5, "cow")];
        for index in 0..100 {
            let mut sampler = Sampler::new(7, index);
            let drawn: Vec<_> = (0..5).map(|_| sampler.choose(Decision::Certain, &options)).collect();
            let mut reader = Reader::new(&sampler.text);
            let read: Vec<_> = (0..5).map(|_| reader.choose(Decision::Certain, &options)).collect();
            assert_eq!((drawn, sampler.nats.to_bits()), (read, reader.nats.to_bits()));
            assert!(reader.rest.is_empty());
        }
    }

    #[test]
    fn the_sampler_draws_by_weight() {
        let mut counts = [0_i32; 3];
        let mut sampler = Sampler::new(1, 0);
        for _ in 0..80_000 {
            counts[sampler.choose(Decision::Certain, &[(1, "a"), (2, "b"), (5, "c")]).unwrap()] += 1;
        }
        for (count, expected) in counts.into_iter().zip([10_000_i32, 20_000, 50_000]) {
            assert!((count - expected).abs() < 600, "{counts:?}"); // more than four standard deviations
        }
    }

    #[test]
    fn the_reader_refuses_what_does_not_fit_and_what_fits_twice() {
        assert_eq!(Reader::new("a dog").choose(Decision::Certain, &[(1, "a cat"), (1, "a cow")]), None);
        assert_eq!(Reader::new("a catfish").choose(Decision::Certain, &[(1, "a cat"), (1, "a catfish")]), None);
        let mut reader = Reader::new("a dog.");
        assert_eq!(reader.choose(Decision::Certain, &[(3, "a cat"), (1, "a dog")]), Some(1));
        assert_eq!((reader.rest, reader.nats), (".", 4.0_f64.ln()));
    }
}

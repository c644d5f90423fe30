//! `tales`: a corpus whose best possible loss is known.
//!
//! Little stories in simple English, drawn from a probabilistic grammar ([`plots.txt`](self), `words.txt`). Who and what
//! a story is about is drawn early and needed again later, things are counted, some are given away, and the ending
//! follows from what happened: a model that cannot look back cannot do well.
//!
//! Every story has exactly one derivation, so its probability is the product of the probabilities of the choices made
//! on the way. With p the grammar, q a model and E the mean over stories drawn from p (Shannon 1948,
//! doi:10.1002/j.1538-7305.1948.tb01338.x):
//!
//! ```text
//! E[-ln q]  =  E[-ln p]  +  KL(p || q)  >=  E[-ln p]
//! ```
//!
//! The sum of [`Story::nats`] over a validation set, divided by its tokens, is therefore the loss of a perfect model,
//! which no other can beat on average, and the distance to it is all there is left to learn. It holds for any tokenizer
//! that maps a text to one sequence of tokens; ending a story costs nothing, because no story is the beginning of another.

mod choices;
mod grammar;
mod notation;

use std::sync::LazyLock;

use choices::{Reader, Sampler};
use grammar::Grammar;

static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| {
    // Cannot fail: both texts are compiled in, and every test below reads them.
    notation::read(include_str!("words.txt"), include_str!("plots.txt")).expect("the built-in grammar is well-formed")
});

/// A story, and how surprising it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// One paragraph of ASCII, without a newline.
    pub text: String,
    /// -ln of its exact probability under the grammar.
    pub nats: f64,
}

/// The `index`-th story of the stream `seed`: a pure function of both.
pub fn story(seed: u64, index: u64) -> Story {
    let mut sampler = Sampler::new(seed, index);
    // A sampler answers every choice, so this is never `None`.
    let _ = GRAMMAR.tell(&mut sampler);
    Story { text: sampler.text, nats: sampler.nats }
}

/// -ln p(`text`), found by reading `text` from its first letter to its last. `None`: the grammar cannot make it.
pub fn nats(text: &str) -> Option<f64> {
    let mut reader = Reader::new(text);
    GRAMMAR.tell(&mut reader)?;
    reader.rest.is_empty().then_some(reader.nats)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::choices::Choices;
    use super::grammar::Piece;
    use super::*;

    const STORIES: u64 = 20_000;

    /// A sampler that checks every question it is asked.
    struct Audit(Sampler);

    impl Choices for Audit {
        fn choose(&mut self, options: &[(u32, &str)]) -> Option<usize> {
            for (i, (weight, text)) in options.iter().enumerate() {
                assert!(*weight > 0 && !text.is_empty() || options.len() == 1, "{options:?}");
                for (_, other) in &options[..i] {
                    assert!(!text.starts_with(other) && !other.starts_with(text), "`{text}` and `{other}`");
                }
            }
            self.0.choose(options)
        }
    }

    #[test]
    fn at_every_choice_no_alternative_begins_with_another() {
        for index in 0..3_000 {
            let mut audit = Audit(Sampler::new(2, index));
            GRAMMAR.tell(&mut audit).unwrap();
            assert_eq!(audit.0.text, story(2, index).text);
        }
    }

    #[test]
    fn reading_a_story_finds_the_price_of_telling_it() {
        for index in 0..3_000 {
            let Story { text, nats: told } = story(3, index);
            assert_eq!(nats(&text).map(f64::to_bits), Some(told.to_bits()), "{text}");
        }
    }

    #[test]
    fn print_samples() {
        let (mut words, mut bytes, mut nats_, mut lens) = (0, 0, 0.0, vec![]);
        let mut distinct = std::collections::BTreeMap::new();
        for i in 0..STORIES {
            let s = story(1, i);
            if i < 40 {
                println!("{} [{:.1}]\n", s.text, s.nats);
            }
            let n = s.text.split_whitespace().count();
            words += n;
            lens.push(n);
            bytes += s.text.len();
            nats_ += s.nats;
            for w in s.text.split(|c: char| !c.is_ascii_alphabetic() && c != '-').filter(|w| !w.is_empty()) {
                *distinct.entry(w.to_lowercase()).or_insert(0) += 1;
            }
        }
        lens.sort_unstable();
        println!(
            "nats/story {:.2} /word {:.4} /byte {:.4}; words min {} p1 {} med {} p90 {} p99 {} max {}; distinct {}",
            nats_ / STORIES as f64,
            nats_ / words as f64,
            nats_ / bytes as f64,
            lens[0],
            lens[200],
            lens[10000],
            lens[18000],
            lens[19800],
            lens[19999],
            distinct.len()
        );
        let mut rare: Vec<_> = distinct.iter().map(|(w, n)| (*n, w.clone())).collect();
        rare.sort();
        println!("{:?}", &rare[..60]);
    }
}

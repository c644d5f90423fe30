//! `tales`: a corpus whose best possible loss is known.
//!
//! Little stories in simple English, drawn from a probabilistic grammar (`plots.txt` has the sentences, `words.txt`
//! the words). Who and what a story is about is drawn early and needed again later, things are counted, some are
//! given away, and the ending follows from what happened: a model that cannot look back cannot do well.
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
//! which no other can beat on average, and the distance to it is all there is left to learn. It holds for any
//! tokenizer that maps a text to one sequence of tokens; ending a story costs nothing, because no story is the
//! beginning of another.
//!
//! Because a story can be read, so can what is in it ([`World`]). [`chat`] asks about that, and [`preferences`]
//! prefer stories by it: both know the best that can be reached, too.

pub mod chat;
mod choices;
mod grammar;
mod notation;
pub mod preferences;
mod world;

use std::sync::LazyLock;

use choices::{Reader, Sampler, Wished};
use grammar::Grammar;
pub use world::World;

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

/// What `text` is about and what happens in it. `None`: the grammar cannot make it.
pub fn read(text: &str) -> Option<World> {
    let mut reader = Reader::new(text);
    let world = GRAMMAR.tell(&mut reader)?;
    reader.rest.is_empty().then_some(world)
}

/// How many bytes of `text`, from its first letter on, are read before no option fits.
fn bytes_read(text: &str) -> usize {
    let mut reader = Reader::new(text);
    let _ = GRAMMAR.tell(&mut reader);
    text.len() - reader.rest.len()
}

/// A tale that has what `wish` asks for, and its world. What the wish leaves open is drawn from (`seed`, `index`).
fn wished(wish: &World, seed: u64, index: u64) -> (Wished<'_>, World) {
    let mut choices = Wished::new(wish, Sampler::new(seed, index));
    // Every choice is answered, so there always is a world.
    let world = GRAMMAR.tell(&mut choices).unwrap_or_else(|| wish.clone());
    (choices, world)
}

/// The `count` first stories of a seed, and their worlds.
#[cfg(test)]
fn worlds(seed: u64, count: u64) -> impl Iterator<Item = (Story, World)> {
    (0..count).map(move |index| {
        let story = story(seed, index);
        let world = read(&story.text).unwrap();
        (story, world)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::choices::{Choices, Decision};
    use super::grammar::Piece;
    use super::*;

    /// The `count` first stories of a seed.
    fn stories(seed: u64, count: u64) -> impl Iterator<Item = Story> {
        (0..count).map(move |index| story(seed, index))
    }

    /// A sampler that checks every question it is asked, and which rules have told.
    struct Audit(Sampler, BTreeSet<usize>);

    impl Choices for Audit {
        fn choose(&mut self, decision: Decision<'_>, options: &[(u32, &str)]) -> Option<usize> {
            for (i, (weight, text)) in options.iter().enumerate() {
                assert!(*weight > 0 && !text.is_empty() || options.len() == 1, "{options:?}");
                for (_, other) in &options[..i] {
                    assert!(!text.starts_with(other) && !other.starts_with(text), "`{text}` and `{other}`");
                }
            }
            assert!(!matches!(decision, Decision::Rule(rule) if !self.1.insert(rule)), "a rule tells twice");
            self.0.choose(decision, options)
        }
    }

    #[test]
    fn at_every_choice_no_alternative_begins_with_another_and_no_rule_tells_twice() {
        // Every question asks for all words of a list or all alternatives of a rule, so few stories see every pair; the
        // next test shows that 20,000 come by everything there is.
        for index in 0..3_000 {
            let mut audit = Audit(Sampler::new(2, index), BTreeSet::new());
            GRAMMAR.tell(&mut audit).unwrap();
            assert_eq!(audit.0.text, story(2, index).text);
        }
    }

    #[test]
    fn the_corpus_is_what_it_is_meant_to_be() {
        let (mut lengths, mut words, mut nats) = (Vec::new(), BTreeSet::new(), 0.0);
        let mut unseen: BTreeSet<&str> = GRAMMAR.rules.iter().flatten().flat_map(|a| texts(&a.pieces)).collect();
        unseen.extend(GRAMMAR.lists.iter().flat_map(|list| &list.words).map(|forms| forms[0].as_str()));
        for story in stories(1, 20_000) {
            unseen.retain(|text| !story.text.contains(text));
            let all: Vec<_> = story
                .text
                .split(|c: char| c.is_ascii_punctuation() || c == ' ')
                .filter(|word| !word.is_empty())
                .collect();
            assert!(all.iter().all(|word| word.chars().all(|c| c.is_ascii_alphabetic())), "{}", story.text);
            for pair in all.windows(2) {
                let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']);
                assert!(!(pair[0] == "a" && vowel || pair[0] == "an" && !vowel), "{}", story.text);
            }
            lengths.push(all.len());
            words.extend(all.iter().map(|word| word.to_lowercase()));
            nats += story.nats;
        }
        assert_eq!(unseen, BTreeSet::new());
        assert!((800..=1_200).contains(&words.len()), "{} words", words.len());
        lengths.sort_unstable();
        assert!(lengths[0] >= 60 && lengths[19_999] <= 140 && (80..=90).contains(&lengths[10_000]), "{lengths:?}");
        let nats_per_word = nats / lengths.iter().sum::<usize>() as f64;
        assert!((0.6..0.9).contains(&nats_per_word), "{nats_per_word}");
    }

    fn texts(pieces: &[Piece]) -> impl Iterator<Item = &str> {
        pieces.iter().filter_map(|piece| if let Piece::Text(text) = piece { Some(text.as_str()) } else { None })
    }

    #[test]
    fn reading_a_story_finds_the_price_of_telling_it() {
        for Story { text, nats: told } in stories(3, 3_000) {
            assert_eq!(nats(&text).map(f64::to_bits), Some(told.to_bits()), "{text}");
        }
    }

    #[test]
    fn a_story_is_told_again_from_its_world() {
        for Story { text, nats } in stories(11, 1_000) {
            let world = read(&text).unwrap();
            let (choices, found) = wished(&world, 0, 0);
            assert!((choices.wish_nats - nats).abs() < 1e-9);
            assert_eq!((choices.told.text, choices.told.nats, found), (text, 0.0, world.clone()));
        }
    }

    #[test]
    fn reading_refuses_what_no_story_says() {
        for Story { text, .. } in stories(4, 50) {
            // No story is the beginning of another.
            assert!((0..text.len()).all(|end| nats(&text[..end]).is_none()), "{text}");
            assert_eq!(nats(&format!("{text} ")), None);
            // Every mention of a word that was drawn before must agree with it.
            let words: Vec<&str> = text.split(' ').collect();
            let last = words.iter().rposition(|word| words[..10].contains(word) && word.len() > 3);
            if let Some(last) = last {
                let changed = [&words[..last], &["zebra"], &words[last + 1..]].concat().join(" ");
                assert_eq!(nats(&changed), None, "{changed}");
            }
        }
        assert_eq!(nats("Once upon a time there was a caf\u{e9}."), None);
    }

    #[test]
    fn what_was_said_before_must_be_said_again() {
        let Story { text, .. } = story(1, 0);
        for (told, changed) in [
            ("called Olive. She", "called Olive. He"),
            ("Olive loved", "Ruby loved"),
            ("found seven of", "found six of"),
            ("four, five, six.", "four, five, six, seven."),
            ("back to the market", "back to the mill"),
            ("One seed was missing", "One bead was missing"),
            ("Thank you, Pip", "Thank you, Olive"),
        ] {
            assert!(text.contains(told));
            assert_eq!(nats(&text.replace(told, changed)), None, "{changed}");
        }
    }

    #[test]
    fn stories_depend_on_seed_and_index_alone() {
        let texts: BTreeSet<_> = (0..100).flat_map(|seed| stories(seed, 100)).map(|story| story.text).collect();
        assert_eq!(texts.len(), 10_000);
        assert_eq!(story(5, u64::MAX), story(5, u64::MAX));
        // Checkpoints, reported losses and floors belong to this corpus: whoever changes it must know.
        let expected = "Far away, next to a school, lived a lonely, messy fox named Felix. Felix's best friend was \
                        Oscar, a lively squirrel. One hot Sunday Felix wanted to bake a mint bun for him. He had cream \
                        and milk, but no oats. Near the peaceful station he met Leo the stubborn turtle, who gave him \
                        some oats in a pan. Then he mixed the cream, the milk and the oats, and put the bun into the \
                        oven. \"What a lovely bun!\" said Oscar with a laugh. \"Thank you, Felix.\"";
        assert_eq!(story(0, 0).text, expected);
        assert!((story(0, 0).nats - 72.568_895_206_013).abs() < 1e-9);
    }
}

//! Wishes: a tale is asked for by its hero, its plot and what it is about.

use std::sync::LazyLock;

use minillm_model::random;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::grammar::Piece;
use super::super::notation::read_pieces;
use super::super::world::World;
use super::super::{GRAMMAR, Story, bytes_read, nats, read, wished};
use super::message::{Message, Role};

/// The wish for each plot, in the order of `plots.txt`. It asks for the plot and for the words of its slots.
const WISHES: [&str; 7] = [
    "Tell a tale in which {hero} the {kind} loses {thing.a}.",
    "Tell a tale in which {hero} the {kind} wants {thing.a}.",
    "Tell a tale in which {hero} the {kind} picks {fruit.many}.",
    "Tell a tale in which {hero} the {kind} collects {shell.many}.",
    "Tell a tale in which {hero} the {kind} learns to {skill}.",
    "Tell a tale in which {hero} the {kind} bakes {flavour.a} {dish}.",
    "Tell a tale in which {hero} the {kind} visits {friend}.",
];

static TEXTS: LazyLock<Vec<Vec<Piece>>> = LazyLock::new(|| {
    // Cannot fail: the texts are compiled in, and every test of `chat` reads them.
    let texts = WISHES.iter().map(|text| read_pieces(text, &GRAMMAR));
    texts.collect::<Result<_, _>>().expect("the built-in wishes are well-formed")
});

/// Bytes of the shortest of 20,000 tales, rounded down: a text that is shorter breaks off.
const SHORTEST_TALE_BYTES: usize = 350;

/// What a tale is asked to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    text: String,
    asked: World,
    nats: f64,
}

impl Wish {
    /// The `index`-th wish to train on: the plot and the words are drawn as the grammar draws them.
    pub fn draw(seed: u64, index: u64) -> Self {
        Self::drawn(None, &mut random::stream(random::derive(seed, &[index]), "wishes"))
    }

    /// The `index`-th of the wishes that no training sees under any seed.
    pub fn held_out(index: u64) -> Self {
        Self::drawn(None, &mut random::stream(random::derive(0, &[index]), "held-out wishes"))
    }

    /// A wish for this alternative of the rule `plot`, counted from 0, or for any.
    pub(in super::super) fn drawn(plot: Option<usize>, rng: &mut ChaCha8Rng) -> Self {
        let mut open = GRAMMAR.open();
        open.set("plot", plot);
        Self::of(&wished(&open, rng.next_u64(), 0).1)
    }

    /// The wish that a tale of this world fulfils.
    pub fn of(world: &World) -> Self {
        let plot = world.get("plot");
        let text = &TEXTS[plot.unwrap_or(0)];
        let mut asked = GRAMMAR.open();
        asked.set("plot", plot);
        for piece in text {
            if let Piece::Slot { slot, .. } = piece {
                asked.slots[*slot] = world.slots[*slot];
            }
        }
        let nats = wished(&asked, 0, 0).0.wish_nats;
        Self { text: GRAMMAR.say(text, world).unwrap_or_default(), asked, nats }
    }

    /// The wish in words.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The wish as what a user says first.
    pub fn prompt(&self) -> Vec<Message> {
        vec![Message::new(Role::User, self.text.as_str())]
    }

    /// -ln of the probability that a tale of the grammar is as wished.
    pub fn nats(&self) -> f64 {
        self.nats
    }

    /// A tale as wished, drawn from (`seed`, `index`), with -ln of its probability given the wish.
    pub fn tale(&self, seed: u64, index: u64) -> Story {
        let told = wished(&self.asked, seed, index).0.told;
        Story { text: told.text, nats: told.nats }
    }

    /// -ln p(`tale` | wish). `None`: the grammar cannot make it, or it is not as wished.
    pub fn nats_of(&self, tale: &str) -> Option<f64> {
        if self.is_fulfilled(&read(tale)?) { Some(nats(tale)? - self.nats) } else { None }
    }

    /// Whether a tale of this world is as wished.
    pub fn is_fulfilled(&self, world: &World) -> bool {
        world.fits(&self.asked)
    }
}

/// The reward of a model's words: 1 if they are a tale as wished from the first letter to the last, else 0.
///
/// White space around them is left out. There is no credit for a part, so what earns the most is exactly what was
/// asked for. A model that earns nothing yet can be helped by [`partial_reward`].
pub fn reward(words: &str, wish: &Wish) -> f64 {
    let is_earned = read(words.trim()).is_some_and(|world| wish.is_fulfilled(&world));
    f64::from(u8::from(is_earned))
}

/// A reward with credit for parts: half of it for how far the words can be read as a tale, half for [`reward`].
///
/// How far: bytes up to the first choice that nothing fits, as a share of all bytes, or of the shortest tale's, so
/// that a few right words and an early end earn little. What the words were asked for does not count in this half: a
/// tale that reads, but is not as wished, earns 0.5.
pub fn partial_reward(words: &str, wish: &Wish) -> f64 {
    let trimmed = words.trim();
    let share = bytes_read(trimmed) as f64 / trimmed.len().max(SHORTEST_TALE_BYTES) as f64;
    f64::midpoint(share, reward(words, wish))
}

#[cfg(test)]
mod tests {
    use super::super::super::{story, worlds};
    use super::*;

    #[test]
    fn a_tale_costs_its_wish_and_the_rest() {
        let mut mean = [0.0; 3];
        for (story, world) in worlds(12, 500) {
            let wish = Wish::of(&world);
            let rest = wish.nats_of(&story.text).unwrap();
            assert!((story.nats - wish.nats() - rest).abs() < 1e-9);
            for (mean, nats) in mean.iter_mut().zip([story.nats, wish.nats(), rest]) {
                *mean += nats / 500.0;
            }
            // The same price, added up choice by choice while a tale is told.
            let told = wish.tale(12, 0);
            assert!((nats(&told.text).unwrap() - wish.nats() - told.nats).abs() < 1e-9, "{}", told.text);
            // 24 names, 32 kinds, 7 plots, and what the plot is about: 49 things, 14 fruits, 12 shells, 20 skills, 12
            // flavours of 10 dishes, 23 other names.
            let words: f64 = [49.0, 49.0, 14.0, 12.0, 20.0, 120.0, 23.0][world.told("plot").unwrap() - 1];
            assert!((wish.nats() - (24.0 * 32.0 * 7.0 * words).ln()).abs() < 1e-9, "{wish:?}");
        }
        for (mean, expected) in mean.into_iter().zip([62.2, 12.0, 50.2]) {
            assert!((mean - expected).abs() < 0.7, "{mean} nats on average, not {expected}");
        }
    }

    #[test]
    fn a_wished_tale_reads_and_is_as_wished_and_others_are_not() {
        for index in 0..2_000 {
            let wish = Wish::draw(13, index);
            let tale = wish.tale(13, index).text;
            assert!(wish.is_fulfilled(&read(&tale).unwrap()), "{}: {tale}", wish.text());
            assert_eq!(Wish::of(&read(&tale).unwrap()), wish);
            let other = story(13, index).text;
            assert!(!wish.is_fulfilled(&read(&other).unwrap()), "{}: {other}", wish.text());
            assert_eq!((reward(&tale, &wish), reward(&other, &wish)), (1.0, 0.0));
            assert_eq!((partial_reward(&tale, &wish), partial_reward(&other, &wish)), (1.0, 0.5));
        }
        assert_ne!(Wish::draw(0, 5), Wish::held_out(5));
    }

    #[test]
    fn a_wished_tale_is_drawn_as_the_grammar_draws_it() {
        // Tales for a wish about fruit, and all tales about fruit: the hero eats alone in a third of both.
        let selfish = |world: &World| world.told("share_choice").map(|choice| choice == 3);
        let wish = (0..100).map(|index| Wish::draw(14, index)).find(|wish| wish.text().contains(" picks ")).unwrap();
        let wished: Vec<_> = (0..9_000).filter_map(|i| selfish(&read(&wish.tale(14, i).text).unwrap())).collect();
        let all: Vec<_> = worlds(14, 63_000).filter_map(|(_, world)| selfish(&world)).collect();
        for told in [wished, all] {
            let share = told.iter().filter(|&&is_selfish| is_selfish).count() as f64 / told.len() as f64;
            assert!((share - 1.0 / 3.0).abs() < 0.02, "{share} of {}", told.len()); // four standard deviations
        }
    }

    #[test]
    fn rewards_are_for_whole_tales() {
        let wish = Wish::draw(1, 1);
        let tale = wish.tale(0, 0).text;
        let rewards = |words: &str| (reward(words, &wish), partial_reward(words, &wish));
        assert_eq!(rewards(&format!(" {tale}\n")), (1.0, 1.0));
        for broken in [&format!("{tale} The end."), &tale[1..], &tale[..tale.len() - 1], ""] {
            let (whole, partial) = rewards(broken);
            assert!((whole, partial <= 0.5) == (0.0, true), "{partial} for {broken}");
        }
        // Read are "Once upon a time there was ", 27 bytes; the shortest tale has about 350.
        assert_eq!(rewards("Once upon a time there was a zebra."), (0.0, 27.0 / 350.0 / 2.0));
        let shortest = worlds(2, 20_000).map(|(story, _)| story.text.len()).min().unwrap();
        assert!((350..360).contains(&shortest), "{shortest} bytes");
    }
}

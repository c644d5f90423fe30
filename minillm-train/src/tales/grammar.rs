//! A probabilistic grammar in which every tale has exactly one derivation.
//!
//! `words.txt` lists the words, `plots.txt` the rules; both open with how they are written, and `notation`
//! reads them. A rule tells one of its alternatives, drawn by weight. A slot draws a word at its first mention in a tale
//! and copies it at every later one: the copy follows with certainty, so it costs a perfect model nothing, but only a
//! model that looks back can know it.
//!
//! To be read as well as told, a choice must show in the text at once. So an alternative is chosen by its *head*: its
//! beginning, with the words known by then, up to the first thing that is drawn. No head may begin with another one.
//!
//! ```text
//! {hero.He} looked {spot}, but ...      head: "She looked "          if the hero is Fern, and `spot` not yet drawn
//! First {hero.he} looked {spot}, ...    head: "First she looked "
//! ```

use std::collections::BTreeMap;

use super::choices::{Choices, Decision};
use super::world::{Name, World};

/// Words that can fill the same slots.
pub struct List {
    /// The names of the forms, in the order of each word's.
    pub forms: Vec<String>,
    /// The words, each in all its forms.
    pub words: Vec<Vec<String>>,
}

/// One of the texts that a rule can tell.
pub struct Alternative {
    /// Its share among the rule's alternatives.
    pub weight: u32,
    /// Its text.
    pub pieces: Vec<Piece>,
}

/// A part of a text. Lists, slots, forms and rules are numbered by their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A text as it stands.
    Text(String),
    /// A word in a form: drawn if it is the slot's first mention, else copied.
    Slot { slot: usize, form: usize },
    /// What the rule tells.
    Rule(usize),
}

/// Words and rules.
#[derive(Default)]
pub struct Grammar {
    /// What the slots and the rules are called.
    pub names: BTreeMap<String, Name>,
    /// The words.
    pub lists: Vec<List>,
    /// The list that fills each slot.
    pub slots: Vec<usize>,
    /// Each rule's alternatives. A tale is what the first rule tells, and a rule calls only later ones, so tales end.
    pub rules: Vec<Vec<Alternative>>,
}

impl Grammar {
    /// Tells a tale as `choices` has it. `None`: a reader's text fits no tale.
    pub fn tell(&self, choices: &mut impl Choices) -> Option<World> {
        let mut world = self.open();
        self.tell_rule(0, &mut world, choices)?;
        Some(world)
    }

    /// A world in which nothing is decided.
    pub fn open(&self) -> World {
        World { slots: vec![None; self.slots.len()], path: vec![None; self.rules.len()] }
    }

    /// What a text without rules says about a world. `None`: it mentions what the world leaves open.
    pub fn say(&self, text: &[Piece], world: &World) -> Option<String> {
        text.iter().map(|piece| self.certain(piece, &world.slots)).collect()
    }

    /// Tells what a rule tells. `world` holds what is decided so far.
    fn tell_rule(&self, rule: usize, world: &mut World, choices: &mut impl Choices) -> Option<()> {
        let alternatives = &self.rules[rule];
        let heads: Vec<(String, &[Piece])> = alternatives.iter().map(|a| self.head(&a.pieces, &world.slots)).collect();
        let options: Vec<_> = alternatives.iter().zip(&heads).map(|(a, (head, _))| (a.weight, head.as_str())).collect();
        let chosen = choices.choose(Decision::Rule(rule), &options)?;
        world.path[rule] = Some(chosen);
        for piece in heads[chosen].1 {
            match piece {
                Piece::Rule(rule) => self.tell_rule(*rule, world, choices)?,
                Piece::Slot { slot, form } if world.slots[*slot].is_none() => {
                    world.slots[*slot] = Some(self.draw(*slot, *form, &world.slots, choices)?);
                }
                _ => {
                    choices.choose(Decision::Certain, &[(1, self.certain(piece, &world.slots)?)])?;
                }
            }
        }
        Some(())
    }

    /// The beginning of a text that is certain, and the pieces that follow.
    fn head<'a>(&'a self, pieces: &'a [Piece], known: &[Option<usize>]) -> (String, &'a [Piece]) {
        let certain: Vec<&str> = pieces.iter().map_while(|piece| self.certain(piece, known)).collect();
        (certain.concat(), &pieces[certain.len()..])
    }

    /// What a piece says, if no choice is needed.
    fn certain<'a>(&'a self, piece: &'a Piece, known: &[Option<usize>]) -> Option<&'a str> {
        match piece {
            Piece::Text(text) => Some(text),
            Piece::Slot { slot, form } => known[*slot].map(|word| self.words(*slot)[word][*form].as_str()),
            Piece::Rule(_) => None,
        }
    }

    /// Draws a slot's word. All are equally likely, but for those of the same list that the tale has used.
    fn draw(&self, slot: usize, form: usize, known: &[Option<usize>], choices: &mut impl Choices) -> Option<usize> {
        let (words, free) = (self.words(slot), self.free(slot, known));
        let options: Vec<_> = free.iter().map(|&word| (1, words[word][form].as_str())).collect();
        Some(free[choices.choose(Decision::Slot(slot, &free), &options)?])
    }

    /// The words of a slot's list that no slot holds.
    pub fn free(&self, slot: usize, known: &[Option<usize>]) -> Vec<usize> {
        let same_list = (0..known.len()).filter(|&other| self.slots[other] == self.slots[slot]);
        let used: Vec<usize> = same_list.filter_map(|other| known[other]).collect();
        (0..self.words(slot).len()).filter(|word| !used.contains(word)).collect()
    }

    /// The words that can fill a slot, each in all its forms.
    pub fn words(&self, slot: usize) -> &[Vec<String>] {
        &self.lists[self.slots[slot]].words
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::choices::Reader;
    use super::super::notation;
    use super::*;

    const WORDS: &str = "pet other (many)\n  owl/owls; cat/cats; cow/cows\nname (he)\n  Ann; Eve | she\n  Bob | he\n";
    const PLOTS: &str = "[tale]
3 My friend {name} has {pet.a}. {end}
1 No, {name} has two {pet.many} and {other.a}. {end}
[end]
2 Now {name.he} {name} is glad.
1 {name.He} likes the {pet}.
1 The {pet} likes {name}, {colour}
[colour]
1 red {other.A}.
5 blue {other}.
";

    /// Walks through all derivations in order: `path` holds, for every choice so far, the option and their number.
    #[derive(Default)]
    struct Walker {
        path: Vec<(usize, usize)>,
        depth: usize,
        text: String,
        probability: f64,
    }

    impl Walker {
        /// Goes on to the next derivation. `false`: there is none.
        fn advance(&mut self) -> bool {
            while self.path.pop_if(|(option, count)| *option + 1 == *count).is_some() {}
            self.path.last_mut().map(|(option, _)| *option += 1).is_some()
        }
    }

    impl Choices for Walker {
        fn choose(&mut self, _: Decision<'_>, options: &[(u32, &str)]) -> Option<usize> {
            if self.depth == self.path.len() {
                self.path.push((0, options.len()));
            }
            let chosen = self.path[self.depth].0;
            self.depth += 1;
            self.text.push_str(options[chosen].1);
            let total: u32 = options.iter().map(|(weight, _)| weight).sum();
            self.probability *= f64::from(options[chosen].0) / f64::from(total);
            Some(chosen)
        }
    }

    #[test]
    fn the_probabilities_of_all_tales_sum_to_one_and_no_tale_is_made_twice() {
        let grammar = notation::read(WORDS, PLOTS).unwrap();
        let mut tales = BTreeMap::new();
        let mut walker = Walker { probability: 1.0, ..Walker::default() };
        loop {
            grammar.tell(&mut walker).unwrap();
            let mut reader = Reader::new(&walker.text);
            grammar.tell(&mut reader).unwrap();
            assert!(reader.rest.is_empty() && ((-reader.nats).exp() - walker.probability).abs() < 1e-12);
            assert!(tales.insert(std::mem::take(&mut walker.text), walker.probability).is_none());
            (walker.depth, walker.probability) = (0, 1.0);
            if !walker.advance() {
                break;
            }
        }
        // 3 names, 3 pets, 1 + 1 + 2 * 2 ends, the last with another pet; or that is drawn before the end.
        assert_eq!(tales.len(), 3 * 3 * (1 + 1 + 2 * 2) + 3 * 3 * 2 * (1 + 1 + 2));
        assert!((tales.values().sum::<f64>() - 1.0).abs() < 1e-12);
        for (text, probability) in [
            ("My friend Ann has an owl. She likes the owl.", 3.0 / 4.0 / 9.0 / 4.0),
            ("No, Bob has two cows and a cat. The cow likes Bob, red A cat.", 1.0 / 4.0 / 18.0 / 4.0 / 6.0),
        ] {
            assert!((tales[text] - probability).abs() < 1e-12, "{text}");
        }
    }
}

//! What a tale is about and what happens in it, apart from its words.

use super::GRAMMAR;

/// What a name in the notation stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A slot, by its number.
    Slot(usize),
    /// A rule, by its number.
    Rule(usize),
}

/// Everything that is decided in a tale, or, with gaps, what is asked of one. A tale's world tells it again, word by
/// word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The word of each slot, by its number in its list. `None`: open, or not mentioned.
    pub(super) slots: Vec<Option<usize>>,
    /// The alternative that each rule told; none tells twice in a tale. `None`: open, or not told.
    pub(super) path: Vec<Option<usize>>,
}

impl World {
    /// Whether this world has everything that `wish` asks for.
    pub fn fits(&self, wish: &Self) -> bool {
        let fits = |(had, asked): (&Option<usize>, &Option<usize>)| asked.is_none() || had == asked;
        self.slots.iter().zip(&wish.slots).all(fits) && self.path.iter().zip(&wish.path).all(fits)
    }

    /// The plain form of a slot's word (`hero`, `thing`, see `words.txt`). `None`: the tale does not mention it, or
    /// there is no such slot.
    pub fn word(&self, slot: &str) -> Option<&'static str> {
        let Some(&Name::Slot(number)) = GRAMMAR.names.get(slot) else { return None };
        Some(&GRAMMAR.words(number)[self.slots[number]?][0])
    }

    /// Which alternative a rule told (`plot`, `share_choice`, see `plots.txt`), counted from 1. `None`: the tale does
    /// not come by that rule, or there is no such rule.
    pub fn told(&self, rule: &str) -> Option<usize> {
        let Some(&Name::Rule(_)) = GRAMMAR.names.get(rule) else { return None };
        self.get(rule).map(|alternative| alternative + 1)
    }

    /// What is decided about a slot or a rule: the number of its word or alternative.
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        match *GRAMMAR.names.get(name)? {
            Name::Slot(slot) => self.slots[slot],
            Name::Rule(rule) => self.path[rule],
        }
    }

    /// Decides about a slot or a rule. A name that is neither changes nothing.
    pub(super) fn set(&mut self, name: &str, value: Option<usize>) {
        match GRAMMAR.names.get(name) {
            Some(&Name::Slot(slot)) => self.slots[slot] = value,
            Some(&Name::Rule(rule)) => self.path[rule] = value,
            None => {}
        }
    }
}

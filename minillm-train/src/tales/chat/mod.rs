//! `tales-chat`: conversations about tales in which every answer is known.
//!
//! A user shows a tale and asks about it, wishes for a tale, or wants one again with another hero. A tale has exactly
//! one derivation, so a program finds what is in it ([`super::read`]): answers are graded by equality, told tales by
//! reading them. Each [`Skill`] has the best score 1.0.
//!
//! The loss has a floor as well. Answers are determined by what was said before, so they cost a perfect model nothing.
//! A tale as wished costs what the wish leaves to chance, -ln p(tale | wish), and
//! -ln p(tale) = -ln p(wish) - ln p(tale | wish): see [`Wish`].
//!
//! Everything is a pure function of (seed, index); the held-out conversations are a stream of their own.

mod dialogue;
mod exam;
mod message;
mod questions;
mod sheet;
mod skill;
#[cfg(test)]
mod tests;
mod wish;

use minillm_model::random;
use rand::Rng;

use dialogue::Dialogue;
pub use exam::Exam;
pub use message::{Message, Role, as_conversation};
pub use skill::Skill;
pub use wish::{Wish, partial_reward, reward};

/// A conversation to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// A system prompt, or none, and then the user's and the assistant's turns by turns.
    pub messages: Vec<Message>,
    /// For each turn of the assistant, -ln of the probability of its words given all before: what a perfect model pays.
    pub nats: Vec<f64>,
}

/// Conversations that a tokenizer is trained on.
const FOR_TOKENIZER: u64 = 20_000;

/// What a tokenizer is trained on: the same for every seed of a run.
pub fn tokenizer_texts() -> impl Iterator<Item = String> {
    let seed = random::stream(0, "tales-chat for a tokenizer").next_u64();
    (0..FOR_TOKENIZER).flat_map(move |index| conversation(seed, index).messages).map(|message| message.content)
}

/// The `index`-th conversation of `seed`: a pure function of both.
pub fn conversation(seed: u64, index: u64) -> Told {
    let mut dialogue = Dialogue::begin(random::stream(random::derive(seed, &[index]), "tales-chat"));
    let mut nats = Vec::new();
    while let Some((words, price)) = dialogue.right_words() {
        dialogue.answer(&words);
        nats.push(price);
    }
    Told { messages: dialogue.messages().to_vec(), nats }
}

//! Held-out conversations in which a model answers for itself.

use minillm_model::random;

use super::dialogue::Dialogue;
use super::message::Message;
use super::skill::Skill;

/// A conversation that a model is asked to carry on. What the model said stays said: the next question comes after
/// its own words.
pub struct Exam {
    dialogue: Dialogue,
    grades: Vec<(Skill, bool)>,
}

impl Exam {
    /// The `index`-th of the held-out conversations, which no training sees under any seed.
    pub fn new(index: u64) -> Self {
        let rng = random::stream(random::derive(0, &[index]), "held-out tales-chat");
        Self { dialogue: Dialogue::begin(rng), grades: Vec::new() }
    }

    /// The messages that the model is to answer next; a user's is the last. `None`: the exam is over. It is over
    /// early if the model was to tell a tale and told none that reads, because nothing can be asked about it.
    pub fn messages(&self) -> Option<&[Message]> {
        (!self.dialogue.is_over()).then(|| self.dialogue.messages())
    }

    /// Whether what is to be answered is a wish for a tale: many answers are right.
    pub fn wants_tale(&self) -> bool {
        self.dialogue.wants_tale()
    }

    /// Takes the model's words as the next answer and grades them. White space at their ends is left out, nothing else.
    pub fn answer(&mut self, words: &str) {
        self.grades.extend(self.dialogue.answer(words));
    }

    /// What the answers so far have shown, in their order.
    pub fn grades(&self) -> &[(Skill, bool)] {
        &self.grades
    }

    /// Words that pass here, to be shown beside the model's. `None`: the exam is over.
    pub fn right_words(&self) -> Option<String> {
        self.dialogue.right_words().map(|(words, _)| words)
    }
}

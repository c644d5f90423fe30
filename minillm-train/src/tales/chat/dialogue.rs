//! A conversation as it goes: what the user says next, whoever answers.
//!
//! Training lets the known right words answer, an exam the model. So both ask the same, and the known words pass
//! every exam.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::super::world::World;
use super::super::{GRAMMAR, read, wished};
use super::message::{Message, Role};
use super::questions::{self, Style};
use super::skill::Skill;
use super::wish::Wish;

/// Words of the longest tale that is told again: with both tales a conversation fits 256 tokens. More than half are
/// shorter.
const WORDS_TOLD_AGAIN: usize = 85;

/// What the last message of the user asks for.
enum Task {
    /// Exactly these words.
    Words { right: String, skill: Skill },
    /// Any tale that is as wished. One is drawn from `seed`.
    Tale { wish: Wish, seed: u64 },
}

/// A conversation so far.
pub struct Dialogue {
    messages: Vec<Message>,
    /// What is to be answered. `None`: the conversation is over.
    task: Option<Task>,
    /// The world of the tale that questions are about.
    world: Option<World>,
    style: Style,
    /// Whether the assistant told the tale.
    is_own: bool,
    /// Numbers of the questions asked so far.
    asked: Vec<usize>,
    /// Questions still to be asked.
    left: usize,
    rng: ChaCha8Rng,
}

impl Dialogue {
    /// Begins a conversation. Of 20, 8 ask about the user's tale; 4 do so after a system prompt says in which form,
    /// half of them in one word; 5 wish for a tale and then ask about it; 3 want the user's tale again with another
    /// hero.
    ///
    /// Tales have far more tokens than answers. With these shares, about a quarter of all trained tokens belong to
    /// answers.
    pub fn begin(rng: ChaCha8Rng) -> Self {
        let (messages, asked) = (Vec::new(), Vec::new());
        let mut dialogue =
            Self { messages, task: None, world: None, style: Style::Phrase, is_own: false, asked, left: 0, rng };
        match dialogue.rng.random_range(0..20) {
            0..8 => dialogue.ask_about_tale(Style::Phrase),
            8..10 => dialogue.ask_about_tale(Style::Word),
            10..12 => dialogue.ask_about_tale(Style::Sentence),
            12..17 => dialogue.wish(),
            _ => dialogue.want_again(),
        }
        dialogue
    }

    fn ask_about_tale(&mut self, style: Style) {
        self.style = style;
        self.messages.extend(style.prompt().map(|prompt| Message::new(Role::System, prompt)));
        let (tale, world) = self.tale();
        self.world = Some(world);
        // Three sentences take as much room as four short answers.
        self.left = self.rng.random_range(2..=if style == Style::Sentence { 3 } else { 4 });
        self.ask(&(tale + "\n"));
    }

    fn wish(&mut self) {
        let wish = Wish::drawn(None, &mut self.rng);
        self.left = self.rng.random_range(1..=3);
        self.is_own = true;
        self.messages.extend(wish.prompt());
        self.task = Some(Task::Tale { wish, seed: self.rng.next_u64() });
    }

    fn want_again(&mut self) {
        let (tale, world) = loop {
            let (tale, world) = self.tale();
            if tale.split(' ').count() <= WORDS_TOLD_AGAIN {
                break (tale, world);
            }
        };
        let mut world = questions::with_strangers(&world, &mut self.rng);
        let (name, kind) = (world.word("stranger"), world.word("stranger_kind"));
        let wanted = format!("Tell it again with {} the {}.", name.unwrap_or_default(), kind.unwrap_or_default());
        for (role, stranger) in [("hero", "stranger"), ("kind", "stranger_kind")] {
            world.set(role, world.get(stranger));
        }
        self.messages.push(Message::new(Role::User, format!("{tale}\n{wanted}")));
        self.task = Some(Task::Words { right: wished(&world, 0, 0).0.told.text, skill: Skill::Again });
    }

    /// A tale of the user's.
    fn tale(&mut self) -> (String, World) {
        let open = GRAMMAR.open();
        let (choices, world) = wished(&open, self.rng.next_u64(), 0);
        (choices.told.text, world)
    }

    /// Asks the next question, if one is left, behind the text `before`.
    fn ask(&mut self, before: &str) {
        let Some(world) = self.world.as_ref().filter(|_| self.left > 0) else { return };
        let Some(question) = questions::draw(world, self.style, &self.asked, &mut self.rng) else { return };
        self.left -= 1;
        self.asked.push(question.number);
        self.messages.push(Message::new(Role::User, format!("{before}{}", question.text)));
        let skill = match (self.is_own, self.style) {
            (true, _) => Skill::OwnTale,
            (false, Style::Word | Style::Sentence) => Skill::Form,
            (false, Style::Phrase) if question.is_answered => Skill::Ask,
            (false, Style::Phrase) => Skill::DoesNotSay,
        };
        self.task = Some(Task::Words { right: question.answer, skill });
    }

    /// What has been said.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Whether nothing more is asked.
    pub fn is_over(&self) -> bool {
        self.task.is_none()
    }

    /// Whether a tale is to be told.
    pub fn wants_tale(&self) -> bool {
        matches!(self.task, Some(Task::Tale { .. }))
    }

    /// Right words for the next answer, and -ln of their probability given all before. `None`: nothing more is asked.
    pub fn right_words(&self) -> Option<(String, f64)> {
        match self.task.as_ref()? {
            Task::Words { right, .. } => Some((right.clone(), 0.0)),
            Task::Tale { wish, seed } => {
                let tale = wish.tale(*seed, 0);
                Some((tale.text, tale.nats))
            }
        }
    }

    /// Takes `words` as the assistant's answer, without white space around them, and goes on. Returns what they show.
    pub fn answer(&mut self, words: &str) -> Vec<(Skill, bool)> {
        let words = words.trim();
        let Some(task) = self.task.take() else { return Vec::new() };
        self.messages.push(Message::new(Role::Assistant, words));
        let grades = match task {
            Task::Words { right, skill } => vec![(skill, words == right)],
            Task::Tale { wish, .. } => {
                self.world = read(words);
                let as_wished = self.world.as_ref().map(|world| (Skill::TaleAsWished, wish.is_fulfilled(world)));
                [(Skill::TaleReads, as_wished.is_some())].into_iter().chain(as_wished).collect()
            }
        };
        self.ask("");
        grades
    }
}

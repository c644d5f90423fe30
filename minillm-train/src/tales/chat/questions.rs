//! Questions about a tale, each with one right answer that its reader can check by hand.

use std::sync::LazyLock;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::GRAMMAR;
use super::super::notation::capitalised;
use super::super::world::{Name, World};
use super::sheet::{self, Question};

static SHEET: LazyLock<Vec<Question>> = LazyLock::new(|| {
    // Cannot fail: the text is compiled in, and every test of `chat` reads it.
    sheet::read(include_str!("questions.txt"), &GRAMMAR).expect("the built-in questions are well-formed")
});

/// One question in this many has no answer in the tale.
const ASKED_TO_ONE_UNANSWERED: u32 = 5;

/// How questions are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// In a few words. This is how it is done if nothing is said about it.
    Phrase,
    /// In one word.
    Word,
    /// In a whole sentence.
    Sentence,
}

impl Style {
    /// The system prompt that asks for it.
    pub fn prompt(self) -> Option<&'static str> {
        match self {
            Self::Phrase => None,
            Self::Word => Some("Answer in one word."),
            Self::Sentence => Some("Answer in a sentence."),
        }
    }

    /// The answer where the tale has none.
    pub fn does_not_say(self) -> &'static str {
        if self == Self::Word { "Unknown." } else { "The tale does not say." }
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its number on the sheet.
    pub number: usize,
    /// The question.
    pub text: String,
    /// The one right answer.
    pub answer: String,
    /// Whether the tale has an answer.
    pub is_answered: bool,
}

/// Every question that can be asked of a tale in this style. Strangers are asked for if the world has them.
pub fn all(world: &World, style: Style) -> Vec<Asked> {
    let ask = |(number, question): (usize, &Question)| {
        if !question.is_for(world) {
            return None;
        }
        let text = GRAMMAR.say(&question.text, world)?;
        let Some(answer) = &question.answer else {
            return Some(Asked { number, text, answer: style.does_not_say().to_owned(), is_answered: false });
        };
        let form = match style {
            Style::Phrase => &answer.phrase,
            Style::Word => answer.word.as_ref()?,
            Style::Sentence => &answer.sentence,
        };
        let words = GRAMMAR.say(form, world)?;
        if style == Style::Word && words.contains(' ') {
            return None; // a town hall
        }
        Some(Asked { number, text, answer: capitalised(&words) + ".", is_answered: true })
    };
    SHEET.iter().enumerate().filter_map(ask).collect()
}

/// Draws a question about a tale that is not among those `asked` already. `None`: there is none left.
pub fn draw(world: &World, style: Style, asked: &[usize], rng: &mut ChaCha8Rng) -> Option<Asked> {
    let is_answered = !rng.random_ratio(1, ASKED_TO_ONE_UNANSWERED);
    let mut left = all(&with_strangers(world, rng), style);
    left.retain(|question| !asked.contains(&question.number));
    if left.iter().any(|question| question.is_answered == is_answered) {
        left.retain(|question| question.is_answered == is_answered);
    }
    if left.is_empty() { None } else { Some(left.swap_remove(rng.random_range(0..left.len()))) }
}

/// The world with a name and a kind of animal that are not in the tale.
pub fn with_strangers(world: &World, rng: &mut ChaCha8Rng) -> World {
    let mut world = world.clone();
    for name in ["stranger", "stranger_kind"] {
        if let Some(&Name::Slot(slot)) = GRAMMAR.names.get(name) {
            let free = GRAMMAR.free(slot, &world.slots);
            world.slots[slot] = Some(free[rng.random_range(0..free.len())]);
        }
    }
    world
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use minillm_model::random;

    use super::super::super::{read, wished, worlds};
    use super::*;

    const STYLES: [Style; 3] = [Style::Phrase, Style::Word, Style::Sentence];

    /// Words, without punctuation.
    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty())
    }

    fn answer_to<'a>(asked: &'a [Asked], question: &str) -> &'a str {
        let found = asked.iter().find(|asked| asked.text == question);
        found.map_or_else(|| panic!("`{question}` is not among {asked:#?}"), |asked| &asked.answer)
    }

    #[test]
    fn questions_have_the_answers_that_a_reader_finds() {
        let (_, mut world) = worlds(0, 1).next().unwrap(); // the tale that `tales::tests` shows in full
        world.set("stranger", Some(0));
        let [phrases, single, sentences] = STYLES.map(|style| all(&world, style));
        for (question, phrase, word, sentence) in [
            ("What animal was Felix?", "A fox.", "Fox.", "Felix was a fox."),
            ("Who was lively?", "Oscar.", "Oscar.", "Oscar was lively."),
            ("Where did Felix live?", "Next to a school.", "", "Felix lived next to a school."),
            ("Who was Leo?", "A stubborn turtle.", "", "Leo was a stubborn turtle."),
            ("Which day was it?", "Sunday.", "Sunday.", "It was Sunday."),
            ("Which month was it?", "The tale does not say.", "Unknown.", "The tale does not say."),
            ("What did Felix bake?", "A mint bun.", "Bun.", "Felix baked a mint bun."),
            ("What was missing?", "Oats.", "Oats.", "Felix had no oats."),
            ("Who gave Felix the oats?", "Leo.", "Leo.", "Leo gave Felix the oats."),
            ("Where did Felix meet Leo?", "Near the station.", "Station.", "Felix met Leo near the station."),
            ("What did Felix lose?", "The tale does not say.", "Unknown.", "The tale does not say."),
            ("Who was Anna?", "The tale does not say.", "Unknown.", "The tale does not say."),
        ] {
            assert_eq!((answer_to(&phrases, question), answer_to(&sentences, question)), (phrase, sentence));
            match word {
                "" => assert!(single.iter().all(|asked| asked.text != question)),
                _ => assert_eq!(answer_to(&single, question), word),
            }
        }
    }

    #[test]
    fn what_was_left_depends_on_what_happened() {
        let mut seen = BTreeSet::new();
        for (story, world) in worlds(15, 2_000) {
            let asked = all(&world, Style::Phrase);
            let Some(fruit) = world.word("fruit") else { continue };
            let many =
                asked.iter().find(|asked| asked.text.starts_with("What did") && asked.text.ends_with("pick?")).unwrap();
            let many = many.answer.trim_end_matches('.').to_lowercase();
            let hero = world.word("hero").unwrap();
            let left = answer_to(&asked, &format!("How many {many} did {hero} have left?"));
            let count = answer_to(&asked, &format!("How many {many} did {hero} pick at first?"));
            let shared = answer_to(&asked, &format!("Did {hero} share the {many} at once?"));
            let numbers = ["One.", "Two.", "Three.", "Four.", "Five.", "Six.", "Seven."];
            let picked = numbers.iter().position(|number| *number == count).unwrap();
            let is_alone = story.text.contains(&format!("ate every {fruit} alone"));
            assert_eq!((left, shared), if is_alone { ("None.", "No.") } else { (numbers[picked - 1], "Yes.") });
            seen.insert((count.to_owned(), is_alone));
        }
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn every_question_has_one_answer_and_the_tale_has_its_words() {
        let mut used = BTreeSet::new();
        let mut kinds: BTreeMap<usize, usize> = BTreeMap::new();
        for (index, (story, world)) in worlds(16, 3_000).enumerate() {
            let world = with_strangers(&world, &mut random::stream(index as u64, "test"));
            let tale: BTreeSet<String> = words(&story.text).map(str::to_lowercase).collect();
            for style in STYLES {
                let asked = all(&world, style);
                let texts: BTreeSet<&str> = asked.iter().map(|asked| asked.text.as_str()).collect();
                assert_eq!(texts.len(), asked.len(), "a question is asked twice: {asked:#?}");
                let count = |is_answered| asked.iter().filter(|asked| asked.is_answered == is_answered).count();
                assert!(count(true) >= 5 && count(false) >= 4, "{}\n{asked:#?}", story.text);
                for Asked { number, text, answer, is_answered } in asked {
                    *kinds.entry(number).or_default() += 1;
                    assert_eq!(style == Style::Word, words(&answer).count() == 1 && style != Style::Phrase);
                    let said = words(&text).chain(words(&answer)).map(str::to_lowercase);
                    used.extend(said.filter(|word| !tale.contains(word)));
                    // Who answers in a few words says nothing but the tale's, or one of the words for what it does
                    // not say.
                    let new: Vec<_> = words(&answer).filter(|word| !tale.contains(&word.to_lowercase())).collect();
                    let is_known =
                        new.iter().all(|word| ["A", "An", "At", "On", "Into", "Near", "To", "the"].contains(word));
                    let is_other = ["Yes.", "No.", "None."].contains(&answer.as_str()) || !is_answered;
                    assert!(style == Style::Sentence || is_known || is_other, "{answer} in {}", story.text);
                }
            }
        }
        let names: BTreeSet<String> = GRAMMAR.lists[0].words.iter().map(|name| name[0].to_lowercase()).collect();
        let others: Vec<_> = used.difference(&names).cloned().collect();
        assert!(others.len() <= 70, "{others:?}");
        assert_eq!(kinds.len(), kinds.keys().max().unwrap() + 1, "some question is never asked");
    }

    #[test]
    fn another_word_in_the_tale_is_another_answer() {
        let (_, world) = worlds(0, 1).next().unwrap();
        for (slot, question) in
            [("bit_three", "What was missing?"), ("friend", "Who was lively?"), ("day", "Which day was it?")]
        {
            let mut other = world.clone();
            other.set(slot, Some(if slot == "friend" { 0 } else { 5 }));
            let [before, after] = [&world, &other].map(|world| {
                let asked = all(world, Style::Phrase);
                answer_to(&asked, question).to_owned()
            });
            assert_ne!(before, after);
            assert_eq!(read(&wished(&other, 0, 0).0.told.text).unwrap(), other);
        }
    }
}

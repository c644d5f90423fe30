//! Reads the sheet of questions, `questions.txt`, which opens with how it is written.
//!
//! The file is part of the program, so an error here is a mistake of who edits it; a test reads it.

use super::super::grammar::{Grammar, Piece};
use super::super::notation::{Result, lines, read_pieces};
use super::super::world::{Name, World};

/// A question, asked of the tales that meet all conditions.
pub struct Question {
    conditions: Vec<Condition>,
    /// What is asked.
    pub text: Vec<Piece>,
    /// The right answer. `None`: the tale has none.
    pub answer: Option<Answer>,
}

/// A right answer in its forms, without capital and full stop.
pub struct Answer {
    /// A few words.
    pub phrase: Vec<Piece>,
    /// One word. `None`: one is not enough.
    pub word: Option<Vec<Piece>>,
    /// A whole sentence.
    pub sentence: Vec<Piece>,
}

/// Something that is so in a tale, or is not.
struct Condition {
    /// Whether it is so.
    is: bool,
    name: Name,
    /// One of these words or alternatives; empty: any.
    values: Vec<usize>,
}

impl Question {
    /// Whether it is asked of this tale, as far as the conditions go.
    pub fn is_for(&self, world: &World) -> bool {
        self.conditions.iter().all(|condition| {
            let value = match condition.name {
                Name::Slot(slot) => world.slots[slot],
                Name::Rule(rule) => world.path[rule],
            };
            let is = value.is_some_and(|value| condition.values.is_empty() || condition.values.contains(&value));
            is == condition.is
        })
    }
}

/// Reads all questions. The error names the offending line.
pub fn read(source: &str, grammar: &Grammar) -> Result<Vec<Question>> {
    let (mut questions, mut header) = (Vec::new(), None);
    for line in lines(source) {
        if let Some(conditions) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            header = Some(conditions);
            continue;
        }
        let header = header.ok_or_else(|| format!("stands below no condition: {line}"))?;
        let conditions = header.split(',').map(|condition| read_condition(condition.trim(), grammar));
        let conditions = conditions.collect::<Result<_>>()?;
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let read = |part: &str| read_pieces(part, grammar);
        let answer = match parts[1..] {
            [] => None,
            [phrase, word, sentence] => {
                let word = if word.is_empty() { None } else { Some(read(word)?) };
                Some(Answer { phrase: read(phrase)?, word, sentence: read(sentence)? })
            }
            _ => return Err(format!("has not three forms of an answer: {line}")),
        };
        questions.push(Question { conditions, text: read(parts[0])?, answer });
    }
    Ok(questions)
}

fn read_condition(text: &str, grammar: &Grammar) -> Result<Condition> {
    let (is, text) = text.strip_prefix("no ").map_or((true, text), |rest| (false, rest));
    let mut words = text.split_whitespace();
    let name = words.next().and_then(|name| grammar.names.get(name));
    let name = *name.ok_or_else(|| format!("neither a slot nor a rule: {text}"))?;
    let value = |word: &str| {
        let place = match name {
            Name::Slot(slot) => grammar.words(slot).iter().position(|forms| forms[0] == word),
            Name::Rule(rule) => (1..=grammar.rules[rule].len()).position(|number| number.to_string() == word),
        };
        place.ok_or_else(|| format!("`{word}` is not one of its words or alternatives: {text}"))
    };
    Ok(Condition { is, name, values: words.map(value).collect::<Result<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::super::super::notation;
    use super::*;

    const WORDS: &str = "pet\n  owl; cat; cow\nname\n  Ann; Bob\n";
    const PLOTS: &str = "[tale]\n1 {name} has {pet.a}. {end}\n1 Hm. {end}\n[end]\n1 Yes.\n1 No.\n";

    fn asked(sheet: &str, slots: [Option<usize>; 2], path: [Option<usize>; 2]) -> usize {
        let grammar = notation::read(WORDS, PLOTS).unwrap();
        let world = World { slots: slots.to_vec(), path: path.to_vec() };
        read(sheet, &grammar).unwrap().iter().filter(|question| question.is_for(&world)).count()
    }

    #[test]
    fn conditions_say_which_tales_are_meant() {
        let ann_and_cow = ([Some(2), Some(0)], [Some(0), Some(1)]);
        let nobody = ([None, None], [Some(1), Some(0)]);
        for (condition, expected) in [
            ("tale 1 2", (1, 1)),
            ("tale 2", (0, 1)),
            ("end 2, pet", (1, 0)),
            ("no pet", (0, 1)),
            ("no pet owl cat", (1, 1)),
            ("no pet owl cow", (0, 1)),
            ("pet cow, name Bob", (0, 0)),
            ("pet cow, name Ann", (1, 0)),
        ] {
            let sheet = format!("[{condition}]\nWho?\n");
            let found = (asked(&sheet, ann_and_cow.0, ann_and_cow.1), asked(&sheet, nobody.0, nobody.1));
            assert_eq!(found, expected, "{condition}");
        }
    }

    #[test]
    fn answers_have_three_forms() {
        let grammar = notation::read(WORDS, PLOTS).unwrap();
        let questions = read("[tale 1]\nWho? | {name} | | It was {name}\nWhat?\n", &grammar).unwrap();
        let answer = questions[0].answer.as_ref().unwrap();
        let world = World { slots: vec![None, Some(1)], path: vec![Some(0), None] };
        assert_eq!(grammar.say(&answer.phrase, &world).unwrap(), "Bob");
        assert_eq!(grammar.say(&answer.sentence, &world).unwrap(), "It was Bob");
        assert!(answer.word.is_none() && questions[1].answer.is_none());
    }

    #[test]
    fn mistakes_are_named() {
        let grammar = notation::read(WORDS, PLOTS).unwrap();
        for (sheet, message) in [
            ("Who?", "stands below no condition: Who?"),
            ("[dog]\nWho?", "neither a slot nor a rule: dog"),
            ("[pet dog]\nWho?", "`dog` is not one of"),
            ("[end 3]\nWho?", "`3` is not one of"),
            ("[end]\nWho? | a | b", "has not three forms of an answer: Who?"),
            ("[end]\nWho is {dog}?", "`dog` is neither"),
        ] {
            let error = read(sheet, &grammar).err().unwrap();
            assert!(error.contains(message), "{error}");
        }
    }
}

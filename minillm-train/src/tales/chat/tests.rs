use std::collections::{BTreeMap, BTreeSet};

use minillm_model::chat::{CHATML, ChatTemplate, RenderOptions, TemplateTokens};

use super::super::{read, story};
use super::questions::{self, Style};
use super::*;

/// Words, without punctuation.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty())
}

#[test]
fn known_answers_pass_every_exam_and_others_do_not() {
    let mut passed: BTreeMap<Skill, usize> = BTreeMap::new();
    for index in 0..2_000 {
        let (mut exam, mut wrong) = (Exam::new(index), 0);
        while let Some(right) = exam.right_words() {
            let messages = exam.messages().unwrap().to_vec();
            assert_eq!(messages.last().map(|message| message.role), Some(Role::User));
            // The same exam up to here, and then answered wrongly.
            for bad in
                [format!("{right} Yes."), right.to_uppercase(), right[..right.len() - 1].to_owned(), String::new()]
            {
                let mut other = Exam::new(index);
                for said in messages.iter().filter(|message| message.role == Role::Assistant) {
                    other.answer(&said.content);
                }
                let before = other.grades().len();
                other.answer(&bad);
                assert_eq!(other.grades().len(), before + 1);
                assert!(!other.grades()[before].1, "`{bad}` passes for `{right}`");
                wrong += 1;
            }
            exam.answer(&format!("\n {right} "));
            assert_eq!(exam.messages().map_or(&right, |messages| &messages[messages.len() - 2].content), &right);
        }
        assert!(wrong > 0 && exam.messages().is_none());
        let before = exam.grades().len();
        exam.answer("And then?");
        assert_eq!(exam.grades().len(), before);
        for &(skill, is_passed) in exam.grades() {
            assert!(is_passed, "{skill:?} in exam {index}");
            *passed.entry(skill).or_default() += 1;
        }
    }
    assert!(Skill::ALL.iter().all(|skill| passed[skill] > 200), "{passed:?}");
    let (says, says_not) = (passed[&Skill::Ask] as f64, passed[&Skill::DoesNotSay] as f64);
    assert!((says_not / (says + says_not) - 0.2).abs() < 0.03);
}

#[test]
fn a_tale_that_does_not_read_ends_the_exam() {
    let index =
        (0..100).find(|&index| Exam::new(index).messages().unwrap()[0].content.starts_with("Tell a tale")).unwrap();
    let mut exam = Exam::new(index);
    exam.answer("Once upon a time there was a goat.");
    assert_eq!((exam.grades(), exam.messages()), (&[(Skill::TaleReads, false)][..], None));
    // A tale of the grammar, but not the one wished for: questions are about what was told.
    let mut exam = Exam::new(index);
    exam.answer(&story(0, 0).text);
    assert_eq!(exam.grades(), [(Skill::TaleReads, true), (Skill::TaleAsWished, false)]);
    let question = exam.messages().unwrap().last().unwrap().content.clone();
    let right = exam.right_words().unwrap();
    let asked = questions::all(&read(&story(0, 0).text).unwrap(), Style::Phrase);
    let found = asked.iter().find(|asked| asked.text == question);
    // A stranger is not in the tale's world.
    assert_eq!(right, found.map_or("The tale does not say.", |asked| &asked.answer), "{question}");
    exam.answer(&right);
    assert_eq!(exam.grades()[2], (Skill::OwnTale, true));
}

#[test]
fn a_tale_told_again_has_the_same_path_and_another_hero() {
    let mut again = 0;
    for index in 0..4_000 {
        let told = conversation(17, index);
        let Some((tale, wanted)) = told.messages[0].content.split_once("\nTell it again with ") else { continue };
        let (name, kind) = wanted.trim_end_matches('.').split_once(" the ").unwrap();
        let (before, after) = (read(tale).unwrap(), read(&told.messages[1].content).unwrap());
        assert_eq!((after.word("hero"), after.word("kind")), (Some(name), Some(kind)));
        assert!(words(tale).all(|word| word != name), "{name} is in {tale}");
        let mut expected = before.clone();
        expected.set("hero", after.get("hero"));
        expected.set("kind", after.get("kind"));
        assert!(expected == after && before.path == after.path, "{tale}");
        again += 1;
    }
    assert!((450..750).contains(&again), "{again}"); // 3 of 20
}

#[test]
fn conversations_take_turns_and_fit_a_row() {
    let (mut lengths, mut answered, mut trained) = (Vec::new(), 0_u32, 0_u32);
    for index in 0..2_000 {
        let Told { messages, nats } = conversation(18, index);
        let turns = &messages[usize::from(messages[0].role == Role::System)..];
        for turn in turns.chunks(2) {
            assert_eq!((turn[0].role, turn[1].role), (Role::User, Role::Assistant));
        }
        assert_eq!(nats.len(), turns.len() / 2);
        let is_wish = turns[0].content.starts_with("Tell a tale");
        assert!(nats.iter().enumerate().all(|(turn, &nats)| (nats > 20.0) == (is_wish && turn == 0) && nats >= 0.0));
        lengths.push(messages.iter().map(|message| words(&message.content).count()).sum::<usize>());
        let said: Vec<u32> = turns.iter().skip(1).step_by(2).map(|turn| words(&turn.content).count() as u32).collect();
        trained += said.iter().sum::<u32>();
        answered += said.iter().filter(|&&said| said < 30).sum::<u32>();
    }
    lengths.sort_unstable();
    let at = |share: usize| lengths[(lengths.len() - 1) * share / 100];
    // With a BPE of 2,048 tokens trained on tales, and ChatML's tokens, 3,000 conversations had 129 to 252 tokens,
    // 194 at the median.
    assert!((80..90).contains(&at(0)) && (105..120).contains(&at(50)) && at(100) < 185, "{lengths:?}");
    let share = f64::from(answered) / f64::from(trained);
    assert!((0.11..0.16).contains(&share), "{share} of the words that are trained on are in answers");
}

#[test]
fn conversations_depend_on_seed_and_index_alone_and_exams_are_apart() {
    assert_eq!(conversation(3, u64::MAX), conversation(3, u64::MAX));
    let told: BTreeSet<String> = (0..2_000).map(|index| conversation(0, index).messages[0].content.clone()).collect();
    let starts = (0..2_000).map(Exam::new).map(|exam| exam.messages().unwrap()[0].content.clone());
    let shared: BTreeSet<_> = starts.filter(|start| told.contains(start) && !start.starts_with("Answer ")).collect();
    // There are only 24 * 32 * 287 wishes, so some come twice; a tale that the user shows does not.
    assert!(shared.len() < 20 && shared.iter().all(|start| start.starts_with("Tell a tale")), "{shared:?}");
    // Reported scores and floors belong to these conversations: whoever changes them must know.
    let Told { messages, nats } = conversation(0, 0);
    let shown: Vec<String> = messages.iter().map(|m| format!("{}: {}", m.role.name(), m.content)).collect();
    let expected = "user: Tell a tale in which Mia the turtle visits Toby.\n\
                    assistant: There once was a curious turtle called Mia. She lived behind a waterfall. Mia had not \
                    seen Toby the silly wolf for a month. So one warm Monday she packed a strange pink hat and set off \
                    for the distant beach, where Toby lived. \"Go east,\" said Jack the noisy badger at the \
                    crossroads, and Mia went east. Toby was miserable that day. But the pink hat made him smile. \"Stay for \
                    lunch,\" said Toby, and Mia stayed.\n\
                    user: What animal was Mia?\n\
                    assistant: A turtle.";
    assert_eq!(shown.join("\n"), expected);
    assert!((nats[0] - 56.220_410_380_779).abs() < 1e-9 && nats[1..] == [0.0], "{nats:?}");
}

#[test]
fn a_chat_template_takes_the_messages() {
    let messages = [Message::new(Role::System, "Answer in one word."), Message::new(Role::User, "Who?")];
    let template = ChatTemplate::new(CHATML, TemplateTokens::default()).unwrap();
    let text = template.render(&as_conversation(&messages), &RenderOptions::default()).unwrap().text();
    assert!(text.contains("system\nAnswer in one word.<") && text.contains("user\nWho?<"), "{text}");
}

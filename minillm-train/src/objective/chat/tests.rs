use super::*;
use crate::data::{IGNORED, Silent};

fn tales(context: usize) -> Chat {
    let text = format!(
        "[objective]\nkind = \"chat\"\n[tokenizer]\nkind = \"bpe\"\nvocab_size = 500\n[train]\nbatch_size = 3\ncontext = {context}"
    );
    let config = RunConfig::parse(&text, std::path::Path::new("chat.toml"), &[]).unwrap();
    Chat::prepare(&config, &Silent).unwrap()
}

#[test]
fn rows_of_tales_chat_are_full_of_whole_conversations_and_depend_on_the_step_alone() {
    let chat = tales(900);
    let batches: Vec<Batch> = (0..70).map(|step| chat.batch(step).unwrap()).collect();
    assert_eq!(chat.batch(3).unwrap(), batches[3]);
    assert_eq!(chat.batch(69).unwrap(), batches[69]);
    let filled: usize = batches.iter().map(Batch::tokens).sum();
    assert!(filled > 70 * 3 * 900 * 8 / 10, "{filled}");
    let learned: usize = batches.iter().map(Batch::predicted).sum();
    assert!(filled / 5 < learned && learned < filled / 2, "{learned} of {filled}");
    // Every conversation begins with the token that begins a turn, wherever in a row it stands.
    let start = chat.tokenizer().control_tokens().iter().find(|token| token.text == "<|im_start|>").unwrap().id as i32;
    for batch in &batches {
        assert_eq!((batch.rows, batch.inputs.len()), (3, 3 * 900));
        for (row, (inputs, starts)) in batch.inputs.chunks(900).zip(batch.starts.chunks(900)).enumerate() {
            let begins = starts.iter().enumerate().filter(|(place, start)| **start as usize == *place);
            let has_targets =
                |place: usize| batch.targets[row * 900 + place..(row + 1) * 900].iter().any(|id| *id != IGNORED);
            assert!(begins.into_iter().all(|(place, _)| inputs[place] == start || !has_targets(place)));
        }
    }
}

#[test]
fn the_floor_is_known_only_of_whole_conversations() {
    let chat = tales(900);
    assert_eq!((chat.held_out.cut, chat.held_out.conversations), (0, 400));
    let floor = chat.floor_nats.unwrap() / chat.validation.targets().count() as f64;
    assert!((0.1..0.6).contains(&floor), "{floor}");
    let text = chat.summary().unwrap();
    assert!(text.starts_with("conversations about tales without end; held out: 400 conversations, "), "{text}");
    let short = tales(200);
    assert!(short.held_out.cut > 0 && short.floor_nats.is_none());
    assert!(short.summary().unwrap().contains(" cut to train.context, "));
}

#[test]
fn a_context_without_an_answer_is_refused() {
    let text = "[objective]\nkind = \"chat\"\n[tokenizer]\nkind = \"bpe\"\nvocab_size = 500\n[train]\ncontext = 6";
    let config = RunConfig::parse(text, std::path::Path::new("chat.toml"), &[]).unwrap();
    let error = Chat::prepare(&config, &Silent).unwrap_err().to_string();
    assert!(error.contains("`train.context` is 6, and no conversation"), "{error}");
}

#[test]
fn a_sample_begins_with_a_question() {
    let chat = tales(900);
    let Prompt { ids, shown, end_ids } = chat.prompt().unwrap();
    assert_eq!(chat.tokenizer().decode(&ids), shown);
    assert!(shown.ends_with("assistant\n"), "{shown}");
    assert_eq!(end_ids.len(), 2); // the end of a turn, and of a text
}

use minillm_model::chat::TemplateTokens;
use minillm_model::tokenizer::Tokenizer;

use super::*;
use crate::data::{Batch, IGNORED, Silent};
use crate::error::Result;

fn records(lines: &str) -> Result<(Kind, Vec<Record>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.jsonl");
    fs_err::write(&path, lines).unwrap();
    let mut records = Vec::new();
    let kind = read(&[path], &Silent, |_, _, record| {
        records.push(record);
        Ok(())
    })?;
    Ok((kind, records))
}

fn format(train_on: TrainOn) -> Format {
    let tokenizer = Tokenizer::train_bpe(300, std::iter::once("a cat and a dog".to_owned())).unwrap();
    let control = tokenizer.control_tokens().into_iter().map(|token| token.text).collect();
    Format::new(&tokenizer, None, TemplateTokens { control, ..TemplateTokens::default() }, train_on).unwrap()
}

/// What is learned of a line, as text.
fn learned(format: &Format, line: &str) -> String {
    let example = format.example(&records(line).unwrap().1[0]).unwrap();
    let names = example.target_ids().map(|id| match format.tokenizer().decode(&[id]) {
        text if text.is_empty() => format.tokenizer().name(id).unwrap(),
        text => text,
    });
    names.collect()
}

#[test]
fn five_kinds_of_lines_are_known_by_their_keys() {
    let format = format(TrainOn::Assistant);
    for (line, kind, expected) in [
        (
            r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a cat"}]}"#,
            Kind::Messages,
            "a cat<|im_end|>",
        ),
        (
            r#"{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "a dog"}]}"#,
            Kind::ShareGpt,
            "a dog<|im_end|>",
        ),
        (r#"{"instruction": "say", "input": "", "output": "yes"}"#, Kind::Alpaca, "yes<|im_end|>"),
        (
            r#"{"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a c"}, {"type": "text", "text": "at"}]}]}"#,
            Kind::Messages,
            "a cat<|im_end|>",
        ),
        (r#"{"prompt": "a cat", "completion": " and"}"#, Kind::PromptCompletion, " and<|endoftext|>"),
        (
            r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "no"}, {"role": "user", "content": "b"}],
                "completion": [{"role": "assistant", "content": "yes"}]}"#,
            Kind::PromptCompletion,
            "yes<|im_end|>",
        ),
    ] {
        let line = line.replace('\n', " ");
        assert_eq!(records(&line).unwrap().0, kind);
        assert_eq!(learned(&format, &line), expected, "{line}");
    }
    let alpaca = r#"{"instruction": "add", "input": "1 2", "output": "3"}"#;
    let whole = learned(&self::format(TrainOn::All), alpaca);
    assert_eq!(whole, "user\nadd\n\n1 2<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n");
}

#[test]
fn a_turn_ends_with_its_token_whether_the_template_marks_it_or_not() {
    let marked = format(TrainOn::Assistant);
    let tokenizer = marked.tokenizer();
    let control: Vec<String> = tokenizer.control_tokens().into_iter().map(|token| token.text).collect();
    let plain = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    // One that wants a system's message first.
    let strict =
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}".to_owned() + plain;
    for template in [plain, &strict] {
        let tokens = TemplateTokens { control: control.clone(), ..TemplateTokens::default() };
        let other = Format::new(tokenizer, Some(template), tokens, TrainOn::All).unwrap();
        let names: Vec<_> = other.end_ids().into_iter().map(|id| tokenizer.name(id).unwrap()).collect();
        assert_eq!(names, ["<|im_end|>", "<|endoftext|>"]);
        assert_eq!(other.end_ids(), marked.end_ids());
    }
}

#[test]
fn a_line_that_cannot_be_learned_is_named() {
    let good = r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a cat"}]}"#;
    for (line, part) in [
        ("{", "is not an object in JSON"),
        ("[]", "is not an object in JSON"),
        (r#"{"text": "a"}"#, "has the keys `text`"),
        (r#"{"instruction": "a", "output": "b"}"#, "is of the kind Alpaca, the lines before are messages"),
        (r#"{"messages": []}"#, "there are no messages"),
        (r#"{"messages": 3}"#, "not a list"),
        (r#"{"messages": [{"role": "user", "content": "hi"}]}"#, "no message of the assistant"),
        (r#"{"messages": [{"role": "king", "content": "hi"}]}"#, "of the role `king`"),
        (r#"{"messages": [{"role": "assistant", "content": null}]}"#, "its `content` is null"),
        (r#"{"messages": [{"role": "assistant"}]}"#, "null or missing"),
        (r#"{"messages": [{"role": "assistant", "content": 7}]}"#, "neither a text nor a list"),
        (r#"{"chosen": "a", "rejected": "b"}"#, "is of the kind preferences"),
    ] {
        let error = records(&format!("{good}\n\n{line}\n")).unwrap_err();
        assert!(error.to_string().contains("chat.jsonl`: line 3 "), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.hint().is_some());
    }
    let turns = |turn: &str| records(&format!(r#"{{"conversations": [{turn}]}}"#)).unwrap_err().to_string();
    assert!(turns(r#"{"from": "robot", "value": "a"}"#).contains("from `robot`; there are system, human"));
    assert!(turns(r#"{"value": "a"}"#).contains("without `from`"));
    assert!(turns(r#"{"from": "gpt"}"#).contains("without a text as `value`"));
    assert!(records(r#"{"prompt": "a", "completion": []}"#).unwrap_err().to_string().contains("neither two texts"));
    assert!(records("\n\n").unwrap_err().to_string().contains("holds no conversation"));
    let (kind, preferences) = records("{\"chosen\": \"a\", \"rejected\": \"b\"}").unwrap();
    assert_eq!(kind, Kind::Preferences);
    let error = format(TrainOn::Assistant).example(&preferences[0]).unwrap_err();
    assert!(error.to_string().contains("`objective.kind` is `chat`, and the data are preferences"), "{error}");
}

#[test]
fn preferences_have_their_prompt_or_what_the_answers_have_in_common() {
    let format = format(TrainOn::Assistant);
    let user = r#"{"role": "user", "content": "hi"}"#;
    let says = |words: &str| format!(r#"{{"role": "assistant", "content": "{words}"}}"#);
    let (cat, dog) = (says("a cat"), says("a dog"));
    for line in [
        format!(r#"{{"prompt": [{user}], "chosen": [{cat}], "rejected": [{dog}]}}"#),
        format!(r#"{{"chosen": [{user}, {cat}], "rejected": [{user}, {dog}]}}"#),
        // UltraFeedback: the prompt as a text, and again in both answers.
        format!(r#"{{"prompt": "hi", "chosen": [{user}, {cat}], "rejected": [{user}, {dog}]}}"#),
    ] {
        let Record::Preference { chosen, rejected } = records(&line).unwrap().1.remove(0) else { panic!("{line}") };
        let [chosen, rejected] = [chosen, rejected].map(|record| format.example(&record).unwrap());
        let words = |example: &Example| format.tokenizer().decode(&example.target_ids().collect::<Vec<_>>());
        assert_eq!((words(&chosen), words(&rejected)), ("a cat".to_owned(), "a dog".to_owned()), "{line}");
    }
    let Record::Preference { chosen, .. } =
        records(r#"{"chosen": "say: \u00e4", "rejected": "say: \u00f6"}"#).unwrap().1.remove(0)
    else {
        panic!()
    };
    assert!(matches!(*chosen, Record::Texts { prompt, completion } if prompt == "say: " && completion == "\u{e4}"));
    for (line, part) in [
        (r#"{"chosen": "a", "rejected": 3}"#.to_owned(), "neither two texts nor two lists"),
        (format!(r#"{{"chosen": [{cat}], "rejected": [{dog}]}}"#), "has no prompt"),
        (format!(r#"{{"chosen": [{user}], "rejected": [{user}, {dog}]}}"#), "no message of the assistant"),
    ] {
        let error = records(&line).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn rows_hold_whole_conversations_that_do_not_see_each_other() {
    let example = |ids: &[u32], learned: &[bool]| Example { ids: ids.to_vec(), is_trained: learned.to_vec() };
    let first = example(&[1, 2, 3], &[false, false, true]);
    let second = example(&[4, 5, 6, 7], &[true, true, false, true]);
    let mut batch = Batch { context: 7, ..Batch::default() };
    push_row(&mut batch, [&first, &second]);
    push_row(&mut batch, [&second]);
    let i = IGNORED;
    assert_eq!(batch.inputs, [1, 2, 4, 5, 6, 0, 0, 4, 5, 6, 0, 0, 0, 0]);
    assert_eq!(batch.targets, [i, 3, 5, i, 7, i, i, 5, i, 7, i, i, i, i]);
    assert_eq!(batch.starts, [0, 0, 2, 2, 2, 5, 5, 0, 0, 0, 3, 3, 3, 3]);
    assert_eq!((batch.rows, batch.predicted(), batch.tokens()), (2, 5, 8));
}

#[test]
fn what_does_not_fit_a_row_is_cut_and_counted() {
    let mut summary = Summary::default();
    let example = |length: u32, first_learned: u32| Example {
        ids: (0..length).collect(),
        is_trained: (0..length).map(|place| place >= first_learned).collect(),
    };
    assert_eq!(summary.admit(example(5, 2), 4), Some(example(5, 2)));
    assert_eq!(summary.admit(example(6, 2), 4), Some(example(5, 2)));
    assert_eq!(summary.admit(example(9, 5), 4), None);
    let question = Example { is_trained: vec![false, true, false, false, false, false], ..example(6, 0) };
    assert_eq!(summary.admit(question, 4).unwrap().targets(), 1);
    let expected = Summary { conversations: 3, tokens: 15, targets: 7, cut: 3, without_end: 2, left_out: 1 };
    assert_eq!(summary, expected);
}

#[test]
fn best_fit_leaves_no_conversation_out() {
    let lengths = [3, 7, 2, 5, 5, 1, 8, 4];
    let rows = best_fit(&lengths, 8);
    let mut all: Vec<usize> = rows.concat();
    all.sort_unstable();
    assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
    let fill = |row: &Vec<usize>| row.iter().map(|&item| lengths[item]).sum::<usize>();
    assert!(rows.iter().all(|row| fill(row) <= 8));
    assert_eq!(rows.len(), 5); // 35 places in rows of 8
    let items = || lengths.iter().map(|&length| Ok::<_, ()>((length, length)));
    assert_eq!(best_fit_until_full(2, 8, items()).unwrap(), [vec![7], vec![3, 2]]);
    assert_eq!(best_fit_until_full(1, 99, items()).unwrap(), [lengths.to_vec()]);
}

/// Values by transformers, where they are present.
fn golden(name: &str) -> Option<std::path::PathBuf> {
    let path = std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden-post")).join(name);
    path.exists().then_some(path)
}

#[test]
fn loss_and_gradients_of_conversations_are_those_of_transformers() {
    use minillm_model::checkpoint;
    use serde_json::Value;

    use crate::gradients::Gradients;

    let (Some(base), Some(expected)) = (golden("lora/llama/base"), golden("loss/sft.json")) else { return };
    let expected: Value = serde_json::from_str(&fs_err::read_to_string(expected).unwrap()).unwrap();
    let device = burn::tensor::Device::flex().autodiff();
    let model = checkpoint::load(&base, &device).unwrap().model;
    let example = |conversation: &Value| {
        let numbers = |key: &str| {
            conversation[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect::<Vec<_>>()
        };
        Example { ids: numbers("ids"), is_trained: numbers("mask").into_iter().map(|mark| mark == 1).collect() }
    };
    let examples: Vec<Example> = expected["conversations"].as_array().unwrap().iter().map(example).collect();
    let loss = |rows: &[Vec<usize>]| {
        let context = 128;
        let mut batch = Batch { context, ..Batch::default() };
        for row in rows {
            push_row(&mut batch, row.iter().map(|&index| &examples[index]));
        }
        let shape = [batch.rows, context];
        let ids = |ids: &[i32]| {
            let data = burn::tensor::TensorData::new(ids.to_vec(), shape);
            burn::tensor::Tensor::<2, burn::tensor::Int>::from_data(data, &device)
        };
        let drop = minillm_model::layers::dropout::Dropout::default();
        let hidden = model.hidden_states_of(ids(&batch.inputs), batch.documents(0..batch.rows), drop);
        (model.summed_loss(hidden, ids(&batch.targets)), batch.predicted())
    };
    // f32 over float64: relative.
    let assert_close = |found: f64, expected: &Value, what: &str| {
        let expected = expected.as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4 * expected, "{what}: {found} {expected}");
    };
    for (index, conversation) in expected["conversations"].as_array().unwrap().iter().enumerate() {
        let (nats, tokens) = loss(&[vec![index]]);
        assert_eq!(tokens as u64, conversation["tokens"].as_u64().unwrap());
        assert_close(nats.into_scalar::<f64>(), &conversation["nats"], "alone");
    }
    for packed in expected["packed"].as_array().unwrap() {
        let row = packed["conversations"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        let (nats, tokens) = loss(&[row]);
        assert_eq!(tokens as u64, packed["tokens"].as_u64().unwrap());
        assert_close(nats.into_scalar::<f64>(), &packed["nats_apart"], "packed");
    }
    let lengths: Vec<usize> = examples.iter().map(Example::places).collect();
    let rows = best_fit(&lengths, 128);
    assert!(rows.len() < examples.len());
    let (nats, tokens) = loss(&rows);
    assert_eq!(tokens as u64, expected["tokens"].as_u64().unwrap());
    let mean = nats / tokens as f64;
    assert_close(mean.clone().into_scalar::<f64>(), &expected["mean_nats_per_token"], "mean");
    let mut gradients = Gradients::collect(&model, mean.backward());
    assert_close(gradients.norm(model.compute()).into_scalar::<f64>(), &expected["grad_norm"], "norm");
    for (name, norm) in expected["grad_norm_of"].as_object().unwrap() {
        let gradient = gradients.take(name).unwrap();
        assert_close(gradient.powi_scalar(2).sum().sqrt().into_scalar::<f64>(), norm, name);
    }
}

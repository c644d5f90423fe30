//! How a text is read and in which windows it is scored.

#![allow(missing_docs, clippy::unwrap_used)]

use std::iter::once;

use burn::tensor::Device;
use minillm_infer::generate::logits;
use minillm_infer::score::{EncodedText, Window, Windows, score, window_nats};
use minillm_model::config::ModelOptions;
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::tokenizer::Tokenizer;

/// A model that sees 16 tokens at once.
fn model() -> LanguageModel {
    let options = ModelOptions { hidden_size: Some(16), num_hidden_layers: Some(2), ..ModelOptions::default() };
    let config = options.resolve(11, 16);
    init::initialize(LanguageModel::new(&config, &Device::flex()).unwrap(), 1)
}

fn text() -> EncodedText {
    EncodedText { ids: (0..50).map(|i| (i * i + 3 * i) % 11).collect(), bytes: 49 }
}

/// Minus the logarithm of the probability of `ids[target]` from the `given` tokens before it, from its logits.
fn nats(model: &LanguageModel, ids: &[u32], target: usize, given: usize) -> f64 {
    let logits = logits(model, &ids[target - given..target]).unwrap();
    let last: Vec<f64> =
        logits[logits.len() - model.config().vocab_size..].iter().map(|&logit| f64::from(logit)).collect();
    last.iter().map(|logit| logit.exp()).sum::<f64>().ln() - last[ids[target] as usize]
}

#[test]
fn windows_that_overlap_score_only_the_new_tokens() {
    let model = model();
    let text = text();
    for (context, stride) in [(16, 16), (16, 4), (16, 1), (7, 7), (7, 3), (5, 4), (1, 1)] {
        let windows = Windows::new(model.config(), Some(context), Some(stride)).unwrap();
        let score = score(&model, &text, windows).unwrap();
        // By hand: the first window predicts `context` tokens, each from all before it; of each further window the last
        // `stride` are new, with `context - stride` tokens or more before them. (The last window may be shorter.)
        let by_hand = (1..50).map(|target| {
            let start = if target <= context { 0 } else { (target - context).div_ceil(stride) * stride };
            nats(&model, &text.ids, target, target - start)
        });
        let expected: f64 = by_hand.sum();
        assert_eq!((score.tokens, score.bytes), (49, 49));
        assert!((score.nats - expected).abs() < 1e-3, "{context} {stride}: {} {expected}", score.nats);
    }
}

/// The number that there was before these options, to the bit.
#[test]
fn the_default_is_side_by_side_and_as_long_as_the_model_sees() {
    let model = model();
    let all = |context, stride| {
        let windows = Windows::new(model.config(), context, stride).unwrap();
        score(&model, &text(), windows).unwrap().nats
    };
    let ids: Vec<i32> = text().ids.iter().map(|&id| id as i32).collect();
    let mut side_by_side = 0.0;
    for (inputs, targets) in ids[..49].chunks(16).zip(ids[1..].chunks(16)) {
        side_by_side += window_nats(&model, Window { inputs, targets, rows: 1, documents: None }).unwrap();
    }
    assert_eq!(all(None, None).to_bits(), side_by_side.to_bits());
    assert_eq!(all(None, None).to_bits(), all(Some(16), Some(16)).to_bits());
    assert_ne!(all(None, None).to_bits(), all(None, Some(8)).to_bits());
    assert_eq!(all(Some(8), None).to_bits(), all(Some(8), Some(8)).to_bits());
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let model = model();
    for (context, stride, expected) in [
        (Some(17), None, "`--context` is 17, and the model sees 16 tokens at once"),
        (Some(0), None, "`--context` is 0"),
        (None, Some(0), "`--stride` is 0, and a window has 16 tokens"),
        (None, Some(17), "`--stride` is 17"),
        (Some(4), Some(5), "`--stride` is 5, and a window has 4 tokens"),
    ] {
        let error = Windows::new(model.config(), context, stride).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(error.hint().is_some() && error.exit_code() == 2);
    }
}

#[test]
fn a_token_that_the_model_lacks_is_refused() {
    let model = model();
    let text = EncodedText { ids: vec![1, 11, 2], bytes: 3 };
    let error = score(&model, &text, Windows::new(model.config(), None, None).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the text has token id 11, past the model's vocabulary of 11");
}

#[test]
fn documents_are_joined_as_in_training() {
    let encode = |tokenizer: &Tokenizer, documents: &[&str]| {
        let documents = documents.iter().map(|document| Ok((*document).to_owned()));
        let EncodedText { ids, bytes } = EncodedText::new(tokenizer, documents).unwrap();
        (ids, bytes)
    };
    let characters = "abé".chars().collect();
    let with_end = Tokenizer::char_level(&characters, true).unwrap(); // a b é, and 3 for the end
    assert_eq!(encode(&with_end, &["ab"]), (vec![3, 0, 1], 2));
    assert_eq!(encode(&with_end, &["ab", "é"]), (vec![3, 0, 1, 3, 2, 3], 4));
    let without = Tokenizer::char_level(&characters, false).unwrap();
    assert_eq!(encode(&without, &["éa"]), (vec![2, 0], 1), "the first character is given");
    assert_eq!(encode(&without, &["ab", "é"]), (vec![0, 1, 2], 3));
    let broken = || once(Err(minillm_infer::error::Error::NotFinite { what: "nothing is" }));
    assert!(EncodedText::new(&without, broken()).is_err());
}

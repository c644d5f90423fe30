//! What `inspect` shows is what the model computes, and a page holds a hostile text harmlessly.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use minillm_infer::generate::logits;
use minillm_infer::inspect::{Internals, Summary, page};
use minillm_model::checkpoint::{self, Checkpoint};
use minillm_model::config::{ModelConfig, ModelOptions, Position, Preset};
use minillm_model::decoder::LanguageModel;
use minillm_model::init;
use minillm_model::ops::ComputeOptions;
use minillm_model::tokenizer::Tokenizer;

/// Sums and softmax of f32 numbers.
const TOLERANCE: f64 = 1e-5;

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let mut models: Vec<_> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.sort();
    assert!(models.len() >= 12, "{models:?}");
    models
}

/// Tokens that differ, as many as the model sees, up to 40.
fn some_ids(config: &ModelConfig) -> Vec<u32> {
    (0..config.context().min(40) as u32).map(|i| (7 * i * i + 3 * i + 1) % config.vocab_size as u32).collect()
}

fn look(loaded: &Checkpoint, ids: &[u32]) -> Internals {
    Internals::new(&loaded.model, loaded.tokenizer.as_ref(), ids).unwrap()
}

#[test]
fn attention_is_shared_out_among_what_may_be_seen() {
    let device = Device::flex();
    let mut windowed_rows = 0;
    for path in models() {
        let loaded = checkpoint::load(&path, &device).unwrap();
        let config = loaded.model.config();
        let ids = some_ids(config);
        let internals = look(&loaded, &ids);
        assert_eq!(internals.attention.len(), config.num_hidden_layers);
        for (block, heads) in internals.attention.iter().enumerate() {
            assert_eq!(heads.len(), config.num_attention_heads);
            for rows in heads {
                assert_eq!(rows.len(), ids.len());
                for (query, row) in rows.iter().enumerate() {
                    assert_eq!(row.len(), query + 1, "no key after the query");
                    let sum: f64 = row.iter().map(|&weight| f64::from(weight)).sum();
                    assert!((sum - 1.0).abs() < TOLERANCE, "{}: {sum}", path.display());
                    let hidden = config.window(block).map_or(0, |window| (query + 1).saturating_sub(window));
                    assert!(row[..hidden].iter().all(|&weight| weight == 0.0), "{}, block {block}", path.display());
                    assert!(row[hidden..].iter().all(|&weight| weight > 0.0), "{}, block {block}", path.display());
                    windowed_rows += usize::from(hidden > 0);
                }
            }
        }
    }
    assert!(windowed_rows > 100, "windows were seen at work: {windowed_rows}");
}

/// Nothing that comes later changes what was computed before.
#[test]
fn earlier_tokens_do_not_see_later_ones() {
    let device = Device::flex();
    for path in models() {
        let loaded = checkpoint::load(&path, &device).unwrap();
        let mut ids = some_ids(loaded.model.config());
        ids.truncate(loaded.model.config().max_position_embeddings); // beyond, dynamic scaling changes all angles with the length
        let half = ids.len() / 2;
        let (whole, part) = (look(&loaded, &ids), look(&loaded, &ids[..half]));
        let near = |a: f32, b: f32| f64::from((a - b).abs()) < TOLERANCE * f64::from(b.abs().max(1.0));
        for (whole, part) in whole.norms.iter().zip(&part.norms) {
            assert!(whole.iter().zip(part).all(|(a, b)| near(*a, *b)), "{}", path.display());
        }
        for (whole, part) in whole.attention.iter().flatten().zip(part.attention.iter().flatten()) {
            let pairs = whole.iter().zip(part).flat_map(|(whole, part)| whole.iter().zip(part));
            assert!({ pairs }.all(|(a, b)| near(*a, *b)), "{}", path.display());
        }
    }
}

/// At the top, the lens is the model.
#[test]
fn the_last_row_of_the_lens_is_the_models_own_prediction() {
    let device = Device::flex();
    for path in models() {
        let loaded = checkpoint::load(&path, &device).unwrap();
        let ids = some_ids(loaded.model.config());
        let internals = look(&loaded, &ids);
        assert_eq!(internals.logit_lens.len(), loaded.model.config().num_hidden_layers + 1);
        let logits = logits(&loaded.model, &ids).unwrap();
        for (at, row) in logits.chunks(loaded.model.config().vocab_size).enumerate() {
            let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            let softmax: Vec<f64> = row.iter().map(|&logit| f64::from(logit).exp() / sum).collect();
            let prediction = &internals.logit_lens.last().unwrap()[at];
            for choice in &prediction.top {
                assert!((choice.probability - softmax[choice.id as usize]).abs() < TOLERANCE, "{}", path.display());
            }
            let largest = softmax.iter().copied().fold(0.0, f64::max);
            assert!((prediction.top[0].probability - largest).abs() < TOLERANCE);
            assert!(prediction.top.is_sorted_by(|a, b| a.probability >= b.probability));
            match ids.get(at + 1) {
                Some(&next) => {
                    let there = prediction.next.unwrap();
                    assert!((there.probability - softmax[next as usize]).abs() < TOLERANCE);
                    assert_eq!(internals.probabilities[at + 1], Some(there.probability));
                }
                None => assert_eq!(prediction.next, None),
            }
        }
        assert_eq!((internals.probabilities.len(), internals.probabilities[0]), (ids.len(), None));
        let nats = internals.probabilities.iter().flatten().map(|p| -p.ln()).sum::<f64>() / (ids.len() - 1) as f64;
        assert!((internals.nats_per_token().unwrap() - nats).abs() < 1e-12);
    }
}

/// The fast forms have no weights to show; what is shown is what they computed.
#[test]
fn fast_and_readable_forms_show_the_same() {
    let device = Device::flex();
    let loaded = checkpoint::load(&models()[0], &device).unwrap();
    let ids = some_ids(loaded.model.config());
    let fast = look(&loaded, &ids);
    let model = loaded.model.with_compute(ComputeOptions::READABLE);
    let readable = Internals::new(&model, None, &ids).unwrap();
    let numbers = |internals: &Internals| -> Vec<f32> {
        let weights = internals.attention.iter().flatten().flatten().flatten();
        let choices = internals.probabilities.iter().flatten().map(|p| *p as f32);
        weights.copied().chain(choices).chain(internals.norms.iter().flatten().copied()).collect()
    };
    for (a, b) in numbers(&fast).iter().zip(numbers(&readable)) {
        assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let device = Device::flex();
    let loaded = checkpoint::load(&models()[0], &device).unwrap();
    let vocabulary = loaded.model.config().vocab_size as u32;
    for (ids, part) in [
        (Vec::new(), "the prompt is empty"),
        (vec![vocabulary], "past the vocabulary"),
        (vec![0; loaded.model.config().context() + 1], "context"),
    ] {
        let error = Internals::new(&loaded.model, None, &ids).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// Markup as a tokenizer's tokens and as the model's name.
const HOSTILE: [&str; 5] = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "\u{2028}\u{202e}\"'&",
    "\\u003c",
];

fn hostile_page(preset: Preset, position: Position, left_out: usize) -> String {
    let vocabulary: serde_json::Map<_, _> =
        HOSTILE.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    let json = serde_json::json!({
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": HOSTILE[0]},
        "decoder": {"type": "Fuse"},
    });
    let tokenizer = Tokenizer::from_json(&json.to_string()).unwrap();
    let options = ModelOptions { preset, position: Some(position), hidden_size: Some(16), ..ModelOptions::default() };
    let config = options.resolve(HOSTILE.len(), 12);
    let device = Device::flex();
    let model = init::initialize(LanguageModel::new(&config, &device).unwrap(), 1);
    let internals = Internals::new(&model, Some(&tokenizer), &[0, 1, 2, 3, 4]).unwrap();
    page(HOSTILE[2], &Summary::new(&config), &internals, left_out)
}

#[test]
fn a_page_needs_nothing_and_lets_nothing_out() {
    for (preset, position) in
        [(Preset::Llama, Position::Rope), (Preset::Gpt2, Position::Learned), (Preset::Qwen3, Position::None)]
    {
        let html = hostile_page(preset, position, 0);
        let lower = html.to_lowercase();
        // One element of data, one program.
        assert_eq!((lower.matches("<script").count(), lower.matches("</script").count()), (2, 2));
        assert!(!lower.contains("<img") && !lower.contains("<!--") && !html.contains('\u{2028}'));
        assert!(html.contains("<h1>&lt;img src=x onerror=alert(1)&gt;</h1>"));
        for outside in ["http:", "https:", "//cdn", "@import", "url(", "<iframe", "import(", "fetch(", "xmlhttprequest"]
        {
            let lower = lower.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
            assert!(!lower.contains(outside), "{outside}");
        }
        // In tags that load something; the icon is the page's own.
        assert_eq!(lower.matches(" src=").count(), 2, "the escaped title and heading");
        assert_eq!((lower.matches("<link").count(), lower.matches("href=\"data:,\"").count()), (1, 1));
        // Tokens become text, never markup.
        for markup in
            ["innerhtml", "outerhtml", "insertadjacenthtml", "document.write", "eval(", "createcontextualfragment"]
        {
            assert!(!lower.contains(markup), "{markup}");
        }

        let start = html.find("id=\"data\">").unwrap() + "id=\"data\">".len();
        let data = &html[start..start + html[start..].find("</script>").unwrap()];
        assert!(!data.contains('<'));
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["labels"]["0"], HOSTILE[0]);
        assert_eq!(data["labels"]["3"], "\\u{2028}\\u{202e}\"'&");
        assert_eq!(data["labels"]["4"], HOSTILE[4], "an escape that was text stays text");
        assert_eq!(data["rope"].is_null(), position != Position::Rope);
        assert_eq!(html.contains("id=\"angles\""), position == Position::Rope);
        let row: Vec<u64> = serde_json::from_value(data["attention"][0][0][4].clone()).unwrap();
        assert_eq!(row.len(), 5);
        assert!((9_997..=10_003).contains(&row.iter().sum::<u64>()), "in steps of 1 / 10,000: {row:?}");
    }
}

#[test]
fn a_page_says_what_it_leaves_out() {
    assert!(hostile_page(Preset::Llama, Position::Rope, 7).contains("The text has 12 tokens. Shown are the first 5."));
    assert!(!hostile_page(Preset::Llama, Position::Rope, 0).contains("Shown are"));
}

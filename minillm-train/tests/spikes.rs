//! `train.skip_spikes` on a text with a damaged place in it.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Bench, stderr};

/// Steps of the run: enough to know what is usual, and then as many again.
const STEPS: usize = 400;

/// A text that is soon known by heart, with 320 characters of noise from the same alphabet in it: 20 of its 1,900 windows.
fn bench() -> Bench {
    let bench = Bench::new();
    let mut text = "the cat sat on the mat and then the dog ate the hat. ".repeat(640);
    let letters = b" .acdeghmnost";
    let noise: String =
        (0..320_usize).map(|i| char::from(letters[(i * i * 7 + i * 3 + i / 5) % letters.len()])).collect();
    text.insert_str(9000, &noise);
    bench.write("text.txt", &text);
    bench
}

fn arguments(skip: bool, steps: usize) -> Vec<String> {
    let set = [
        format!("train.skip_spikes={skip}"),
        format!("train.max_steps={steps}"),
        "train.batch_size=2".to_owned(),
        "schedule.decay_steps=400".to_owned(),
        "model.dropout=0".to_owned(),
    ];
    set.into_iter().flat_map(|change| ["--set".to_owned(), change]).collect()
}

fn train(bench: &Bench, out: &str, arguments: &[String]) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    stderr(&bench.train(out, &arguments))
}

#[test]
fn noise_is_skipped_counted_and_resumed_from() {
    let bench = bench();
    let text = train(&bench, "run", &arguments(true, STEPS));
    let warnings = text.matches("is skipped: loss").count();
    assert!((1..=20).contains(&warnings), "{warnings}: {text}");
    let state = String::from_utf8(bench.state("run", STEPS)[2].1.clone()).unwrap();
    assert!(state.contains(&format!("\"skipped\": {warnings}")), "{state}");
    let metrics = fs_err::read_to_string(bench.path().join("run/metrics.jsonl")).unwrap();
    assert!(metrics.contains(&format!("\"train/skipped\":{warnings}.0")), "the count is logged");

    // The noise has losses that nothing else has, and after it the run with skipping does better.
    let first =
        text.find("is skipped").map(|at| text[..at].rfind("step ").map(|from| &text[from + 5..at - 1])).unwrap();
    let spike: usize = first.unwrap().trim().parse().unwrap();
    train(&bench, "plain", &arguments(false, STEPS));
    let (skipping, plain) = (bench.losses("run"), bench.losses("plain"));
    assert_eq!(skipping[..spike], plain[..spike], "the same until the first spike, step {spike}");
    assert!(skipping[spike - 1] > 1.5 * skipping[spike - 2], "{} after {}", skipping[spike - 1], skipping[spike - 2]);
    assert_ne!(skipping[spike..], plain[spike..]);

    // Stopped before and after it: the same bits, the same counts.
    for stop in [100, spike + 1] {
        let out = format!("stopped-{stop}");
        train(&bench, &out, &arguments(true, stop));
        train(&bench, &out, &[arguments(true, STEPS), vec!["--resume".to_owned()]].concat());
        assert!(bench.state("run", STEPS) == bench.state(&out, STEPS), "stopped after {stop}");
    }
}

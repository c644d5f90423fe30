//! One architecture, any backend: the same losses and the same greedy text wherever it runs.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, all_devices, infer};

#[test]
fn every_backend_trains_and_generates_alike() {
    let bench = Bench::new();
    let devices = all_devices();
    let run = |device: &String| format!("run-{}", device.replace(':', "-"));
    for device in &devices {
        bench.train(
            &run(device),
            &["--device", device, "--set", "train.max_steps=20", "--set", "schedule.decay_steps=60"],
        );
    }
    // `flex` is always there; it is the reference.
    let reference = bench.losses("run-flex");
    assert_eq!(reference.len(), 20);
    assert!(reference[19] < reference[0], "{reference:?}");
    for device in &devices {
        for (step, (got, expected)) in bench.losses(&run(device)).iter().zip(&reference).enumerate() {
            assert!((got / expected - 1.0).abs() < 1e-3, "{device}, step {}: {got}, flex {expected}", step + 1);
        }
    }
    let text = |device: &String| {
        let output = std::process::Command::new(infer())
            .args(["generate", "run-flex", "--prompt", "line ", "--temperature", "0", "--max-new-tokens", "8"])
            .args(["--device", device])
            .current_dir(bench.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{device}: {}", common::stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for device in &devices {
        assert_eq!(text(device), text(&"flex".to_owned()), "{device}");
    }
}

/// Weights, gradients and two moments, 4 bytes each, lie in the device's memory or in the process's.
#[test]
fn bench_reports_the_memory_of_every_device() {
    let bench = Bench::new();
    for device in all_devices() {
        let arguments =
            ["bench", "tiny.toml", "--set", "model.vocab_size=30", "--steps", "1", "--warmup", "1", "--json"];
        let output = bench.run(&[&arguments[..], &["--device", &device]].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let least = 16 * report["parameters"].as_u64().unwrap();
        let bytes = report["device_memory_bytes"].as_u64();
        let is_silent = ["flex", "ndarray", "tch"].contains(&device.split(':').next().unwrap());
        assert_eq!(bytes.is_none(), is_silent, "{device}: {report}");
        assert!(bytes.is_none_or(|bytes| (least..1 << 30).contains(&bytes)), "{device}: {report}");
    }
}

/// What one step asks of a GPU. The numbers are those of the design; a change that needs more of them should know it.
#[test]
fn a_step_is_few_launches() {
    let bench = Bench::new();
    let count = |device: &str, more: &[&str]| {
        let model = ["model.preset=llama", "model.dropout=0.0", "model.vocab_size=30", "train.micro_batch_size=5"];
        let set: Vec<&str> = model.iter().flat_map(|setting| ["--set", setting]).collect();
        let arguments = ["bench", "tiny.toml", "--steps", "1", "--warmup", "2", "--launches", "--json"];
        let output = bench.run(&[&arguments[..], &["--device", device], &set, more].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (report["launches"].as_u64().unwrap(), report.to_string())
    };
    for device in all_devices() {
        if ["flex", "ndarray", "tch"].contains(&device.split(':').next().unwrap()) {
            assert_eq!(count(&device, &[]).0, 0, "{device} launches nothing");
            continue;
        }
        let layers = |n: &'static str| count(&device, &["--set", n]);
        let (one, two) = (layers("model.num_hidden_layers=1"), layers("model.num_hidden_layers=2"));
        assert!((1..=60).contains(&one.0), "{device}, one layer: {}", one.1);
        // A device with few bindings has more launches of the optimiser.
        assert!(two.0 - one.0 <= 32, "{device}, {} for one layer more: {}", two.0 - one.0, two.1);
    }
}

//! `minillm-train doctor` as a program: what it prints, and its exit code. Its checks are tested with planted faults in
//! `src/doctor/tests`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, all_devices, stderr};
use serde_json::Value;

/// A graphics driver that computes on the CPU takes minutes to choose its kernels: only with `MINILLM_DOCTOR=all`.
fn devices() -> Vec<String> {
    let all = std::env::var("MINILLM_DOCTOR").is_ok_and(|value| value == "all");
    let mut names = all_devices();
    names.retain(|name| all || !minillm_infer::device::open(name).unwrap().is_software);
    names
}

#[test]
fn a_sound_device() {
    let bench = Bench::new();
    for device in devices() {
        let output = bench.command(&["doctor", "--device", &device]).output().unwrap();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.success(), "{text}\n{}", stderr(&output));
        if !device.contains(':') {
            assert_eq!(stderr(&output), ""); // a graphics driver may have something to say
        }
        let value =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
        assert!(value("device").trim().starts_with(&device), "{text}");
        assert!(value("computes in").contains("f32"), "{text}");
        for group in ["operations", "training", "gradients", "cache", "memory"] {
            assert!(value(group).trim().starts_with("ok "), "{text}");
        }
        assert!(value("all is well in ").ends_with(" s"), "{text}");
    }
}

#[test]
fn a_sound_device_as_json() {
    let bench = Bench::new();
    let output = bench.command(&["doctor", "--device", "flex", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["device"]["name"], "flex");
    assert_eq!(report["device"]["precisions"], serde_json::json!(["f32"]));
    assert!(report["seconds"].as_f64().unwrap() > 0.0, "{report}");

    let checks = report["checks"].as_array().unwrap();
    for name in ["RMSNorm", "attention (GQA)", "AdamW", "training gpt2", "gradients qwen3", "cache qwen3"] {
        let forms = checks.iter().filter(|check| check["name"] == name).map(|check| check["form"].as_str().unwrap());
        assert_eq!(forms.collect::<Vec<_>>(), ["readable", "fast", "both"], "{name}");
    }
    for check in checks {
        assert_eq!(check["ok"], true, "{check}");
        assert!(check["error"].as_f64().unwrap_or(0.0) <= check["tolerance"].as_f64().unwrap(), "{check}");
    }
    for name in ["training qwen3, readable", "training qwen3, fast", "training gpt2, readable", "training gpt2, fast"] {
        assert_eq!(report["losses"][name].as_array().unwrap().len(), 10, "{name}");
    }
    let resident = &report["memory_bytes"]["resident"];
    assert_eq!(resident.is_array(), cfg!(target_os = "linux"), "{resident}");
}

#[test]
fn a_device_that_is_not_there() {
    let bench = Bench::new();
    let output = bench.command(&["doctor", "--device", "gpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("known backends"), "{}", stderr(&output));
}

/// On a GPU `train` examines the device first, unless told not to; everywhere it trains either way.
#[test]
fn training_goes_on_with_and_without_the_check() {
    let bench = Bench::new();
    for device in devices() {
        for check in ["true", "false"] {
            let run = format!("run-{check}-{}", device.replace(':', "-"));
            let setting = format!("train.check_device={check}");
            bench.train(&run, &["--device", &device, "--set", &setting, "--set", "train.max_steps=2"]);
            let config = fs_err::read_to_string(bench.path().join(run).join("config.toml")).unwrap();
            assert!(config.contains(&format!("check_device = {check}")), "{config}");
        }
    }
}

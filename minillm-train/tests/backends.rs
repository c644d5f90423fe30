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
        // Values are dropped at three places, after the embedding, attention and the MLP, each of which is one launch forward and one
        // backward, and the sum behind it is no longer part of a norm; attention's weights are dropped where they are.
        let dropped = count(&device, &["--set", "model.num_hidden_layers=1", "--set", "model.dropout=0.1"]);
        assert!(dropped.0 <= one.0 + 8, "{device}, with dropout: {}", dropped.1);
    }
}

/// A driver's own errors, planted between Vulkan and the program by a layer of Vulkan's, `common/vulkan_faults.c`.
#[cfg(target_os = "linux")]
mod device_faults {
    use std::io::{Read, Seek};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};
    use std::time::{Duration, Instant};

    use super::common::{Bench, all_devices, files, infer, stderr};

    /// The program says so once and exits with code 1 instead of waiting for ever, and the run's last checkpoint can be resumed.
    #[test]
    fn a_device_that_fails_is_one_error_and_the_checkpoint_stays() {
        if !all_devices().iter().any(|device| device == "wgpu:0") {
            return;
        }
        let bench = Bench::new();
        let layer = compile_vulkan_faults(bench.path());
        // In another process, so that each run meets the fault at the same call.
        let program_with = |program: &Path, arguments: &[&str], fault: Option<&str>| {
            let mut command = Command::new(program);
            command.args(arguments).args(["--device", "wgpu"]).current_dir(bench.path());
            command.env("MINILLM_CACHE", bench.path().join("cache")).env_remove("RUST_LOG");
            command.env("VK_LAYER_PATH", &layer).env("VK_INSTANCE_LAYERS", "VK_LAYER_MINILLM_faults");
            command.envs(fault.map(|fault| ("VULKAN_FAULT", fault)));
            ends_within_two_minutes(&mut command)
        };
        let train = Path::new(env!("CARGO_BIN_EXE_minillm-train"));
        let one_layer = ["train", "tiny.toml", "--out", "run", "--set", "model.num_hidden_layers=1"];
        let first = [&one_layer[..], &["--set", "train.max_steps=2"]].concat();
        let further = [&one_layer[..], &["--set", "train.max_steps=4", "--resume"]].concat();
        assert!(program_with(train, &first, None).status.success());
        let saved = || files(&bench.path().join("run/checkpoint-000002"));
        let (before, copy) = (saved(), bench.path().join("copy"));
        let whole =
            ["train", "tiny.toml", "--out", "copy", "--set", "model.num_hidden_layers=1", "--set", "train.max_steps=4"];
        let counted = program_with(train, &whole, None);
        let said = stderr(&counted);
        assert!(counted.status.success() && copy.exists(), "{said}");
        let calls = |kind: &str| -> usize {
            let line = said.lines().find(|line| line.starts_with("vulkan calls: ")).unwrap_or_else(|| panic!("{said}"));
            line.split(&format!("{kind} ")).nth(1).unwrap().split(',').next().unwrap().trim().parse().unwrap()
        };
        let (buffers, kernels, submissions) = (calls("buffer"), calls("kernel"), calls("submit"));
        let generate = ["generate", "run", "--prompt", "line ", "--max-new-tokens", "8"];
        let faults = [
            (train, &further[..], "memory 1".to_owned()), // while the device is opened
            (train, &further[..], "kernel 1".to_owned()),
            (train, &further[..], format!("buffer {}", buffers / 2)),
            (train, &further[..], format!("kernel {}", kernels / 2)),
            (train, &further[..], format!("submit {}", submissions / 2)), // and all after it
            (&infer(), &generate[..], "submit 3".to_owned()),
        ];
        for (program, arguments, fault) in faults {
            let output = program_with(program, arguments, Some(&fault));
            let said = stderr(&output);
            // (Mesa writes an `error:` of its own where no graphical session is.)
            let errors: Vec<&str> = said.lines().filter(|line| !line.contains("XDG_RUNTIME_DIR")).collect();
            let count = |word: &str| errors.iter().filter(|line| line.to_lowercase().contains(word)).count();
            assert_eq!((output.status.code(), count("error")), (Some(1), 1), "{fault}: {said}");
            assert!(errors.iter().any(|line| line.starts_with("error: the device failed")), "{fault}: {said}");
            assert_eq!(count("warn") + count("panicked"), 0, "{fault}: {said}");
            assert_eq!(saved(), before, "{fault}");
        }
        assert!(program_with(train, &further, None).status.success());
        assert_eq!(bench.newest_step("run"), 4);
    }

    /// The folder with the layer and its description, as the Vulkan loader looks for it.
    fn compile_vulkan_faults(folder: &Path) -> PathBuf {
        let layer = folder.join("layer");
        fs_err::create_dir(&layer).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/vulkan_faults.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(layer.join("libvulkan_faults.so")).arg(source);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let description = serde_json::json!({ "file_format_version": "1.1.0", "layer": {
            "name": "VK_LAYER_MINILLM_faults", "type": "GLOBAL", "library_path": "./libvulkan_faults.so",
            "api_version": "1.3.0", "implementation_version": "1", "description": "errors for tests",
        }});
        fs_err::write(layer.join("vulkan_faults.json"), description.to_string()).unwrap();
        layer
    }

    /// The output of a program that must not wait for ever. (Each of these ends in some ten seconds, nearly all of them for compiling kernels.)
    fn ends_within_two_minutes(command: &mut Command) -> Output {
        let stderr = tempfile::tempfile().unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(stderr.try_clone().unwrap()).spawn().unwrap();
        let limit = Instant::now() + Duration::from_mins(2);
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > limit => {
                    child.kill().unwrap();
                    panic!("{command:?} did not end");
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let mut said = Vec::new();
        (&stderr).rewind().unwrap();
        (&stderr).read_to_end(&mut said).unwrap();
        Output { status, stdout: Vec::new(), stderr: said }
    }
}

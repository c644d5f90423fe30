//! Stored values that are not stale, checks that pass where they should and are not vacuous, what is said of faults.

mod faults;

use std::collections::BTreeSet;
use std::rc::Rc;

use minillm_infer::device::{self, DeviceInfo};
use minillm_model::checkpoint::durable::System;
use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};
use minillm_model::ops::ComputeOptions;

use super::check::ALLOWED_BYTES;
use super::check::{Check, Compute, Computed, Forms, Group, Outcome, Part, Setting};
use super::examine::{catch_panic, examine};
use super::limits::Described;
use super::memory::{self, Growth};
use super::reference::{Reference, key, thinned};
use super::report::Report;
use super::{checks, quick, quick_with};
use crate::config::KernelChoice;

/// The device of the stored values.
fn flex() -> DeviceInfo {
    device::open("flex").unwrap()
}

/// One device of each backend of this build.
fn devices() -> Vec<DeviceInfo> {
    let is_first = |found: &DeviceInfo| !found.name.contains(':') || found.name.ends_with(":0");
    device::list().into_iter().filter(is_first).collect()
}

/// What the readable form of every check gives on `flex`, by check and part.
fn computed() -> Vec<(Check, Vec<Part>)> {
    let setting = Setting::new(&flex(), ComputeOptions::READABLE);
    let parts = |check: Check| {
        let parts = (check.readable)(&setting).unwrap();
        (check, parts)
    };
    checks().into_iter().map(parts).collect()
}

/// Writes `reference.safetensors` and prints the losses that belong into `training.rs`:
/// `cargo test --release -p minillm-train --lib -- --ignored --nocapture write_the_reference`
#[test]
#[ignore = "writes into the source"]
fn write_the_reference() {
    let mut tensors = HostTensors::new();
    for (check, parts) in computed() {
        if check.group == Group::Training {
            let losses: Vec<f32> = parts.iter().flat_map(|part| part.values.iter().copied()).collect();
            println!("{}: {losses:?}", check.name);
            continue;
        }
        for part in parts {
            let values = thinned(&part.values);
            tensors.insert(key(check.name, &part.what), HostTensor { shape: vec![values.len()], values });
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctor/reference.safetensors");
    weights::write(&System, path.as_ref(), &tensors).unwrap();
}

/// On another processor a sum may be rounded differently; the tolerance is that of a check on a CPU.
#[test]
fn the_stored_values_are_what_flex_gives_now() {
    let (reference, found) = (Reference::stored(), flex());
    let mut names = BTreeSet::new();
    for (check, parts) in computed() {
        for part in parts {
            let name = key(check.name, &part.what);
            assert!(reference.get(check.name, &part.what).is_some(), "{name} is not stored");
            assert!(names.insert(name.clone()), "{name} comes twice");
        }
        for outcome in examine(&check, &found, &reference, Forms::Readable) {
            assert_eq!(outcome.finding, None, "{}", check.name);
        }
    }
    let stored: BTreeSet<_> = reference.names().map(str::to_owned).collect();
    assert_eq!(stored, names, "values that no check asks for");
}

/// What a driver that computes on the CPU is tested with: without most of the matrix products, whose kernels take it minutes
/// to choose. `MINILLM_DOCTOR=all` asks for every check there, too.
const ON_SOFTWARE: [&str; 4] = ["RMSNorm", "RoPE", "attention (GQA)", "embedding"];

#[test]
fn every_device_of_this_build_is_sound() {
    let reference = Reference::stored();
    let all = std::env::var("MINILLM_DOCTOR").is_ok_and(|value| value == "all");
    for found in devices() {
        let is_whole = all || !found.is_software;
        for check in checks().into_iter().filter(|check| is_whole || ON_SOFTWARE.contains(&check.name)) {
            let outcomes = examine(&check, &found, &reference, Forms::All);
            for outcome in &outcomes {
                assert_eq!(outcome.finding, None, "{}: {}, {}", found.name, check.name, outcome.form.name());
            }
            let has_fast = (check.has_fast)(&ComputeOptions::fastest(&found.device));
            assert_eq!(outcomes.len(), if has_fast { 3 } else { 1 }, "{}: {}", found.name, check.name);
        }
        for kernels in [KernelChoice::Fast, KernelChoice::Readable].into_iter().filter(|_| is_whole) {
            quick(&found, kernels).unwrap();
        }
    }
}

#[test]
fn on_flex_every_operation_has_a_fast_form_but_two_and_those_of_gpus() {
    let fastest = ComputeOptions::fastest(&flex().device);
    let without = checks().into_iter().filter(|check| !(check.has_fast)(&fastest));
    assert_eq!(
        without.map(|check| check.name).collect::<Vec<_>>(),
        ["attention layer", "embedding", "step of many parameters", "Muon", "dropout"]
    );
}

/// A form whose every number is larger by one percent.
fn perturbed(form: Compute) -> Compute {
    Rc::new(move |setting| {
        let mut parts = form(setting)?;
        parts.iter_mut().flat_map(|part| &mut part.values).for_each(|value| *value *= 1.01);
        Ok(parts)
    })
}

#[test]
fn one_percent_fails_every_check() {
    let (reference, found) = (Reference::stored(), flex());
    for is_gpu in [false, true] {
        let found = DeviceInfo { is_gpu, ..found.clone() }; // with the tolerances of GPUs, too
        for check in checks() {
            let name = check.name;
            let check = Check { readable: perturbed(check.readable), fast: perturbed(check.fast), ..check };
            for outcome in examine(&check, &found, &reference, Forms::All) {
                let finding = outcome.finding.unwrap_or_else(|| panic!("{name}, {}", outcome.form.name()));
                assert!(finding.problem.contains("is off by"), "{name}: {}", finding.problem);
                let error = outcome.error.unwrap();
                assert!((0.005..0.02).contains(&error), "{name}: {error}");
            }
        }
    }
}

#[test]
fn memory_that_grows_is_found() {
    let found = flex();
    let judge = |resident, on_device| memory::judge(&found, Growth { resident, on_device }, None).finding;
    assert_eq!(judge(Some([100 << 20, 100 << 20]), None), None);
    assert_eq!(judge(Some([100 << 20, 90 << 20]), None), None);
    assert_eq!(judge(Some([0, ALLOWED_BYTES]), Some([0, 0])), None);
    assert_eq!(judge(None, None), None);
    let finding = judge(Some([10 << 20, 40 << 20]), None).unwrap();
    assert_eq!(finding.problem, "resident memory grew by 31.5 MB from step 50 to step 200 (allowed 8.4 MB)");
    assert!(finding.hint.contains("--resume"), "{}", finding.hint);
    assert!(judge(Some([0, 1]), Some([0, 1 << 30])).unwrap().problem.starts_with("memory in use on the device"));
    let failed = memory::judge(&found, Growth::default(), Some("step 3: the loss is not finite".to_owned()));
    assert!(failed.finding.unwrap().problem.contains("step 3"));
}

#[test]
fn what_is_not_known_is_said_to_be_so() {
    let outcome = memory::judge(&flex(), Growth::default(), None);
    assert_eq!(outcome.finding, None);
    let report = report_of(vec![outcome]);
    assert!(report.to_text().contains("not known on this system"), "{}", report.to_text());
    assert_eq!(report.to_json()["memory_bytes"]["resident"], serde_json::Value::Null);
}

/// The report on `flex` with these outcomes.
fn report_of(outcomes: Vec<Outcome>) -> Report {
    Report { device: Described::new(&flex()), outcomes, growth: Growth::default(), seconds: 1.0 }
}

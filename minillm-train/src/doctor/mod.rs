//! Whether a device computes rightly, asked before somebody trusts it with a night of training.
//!
//! A GPU's driver, a compiler's bug in one kernel or a flaky memory bank seldom stop a training; they make it worse, and
//! one sees it days later, if at all. So [`examine_all`] computes what is known:
//!
//! | part | what | compared with |
//! |---|---|---|
//! | [`operations`] | each operation forward and backward, readable and fast form | stored values, each other |
//! | [`training`] | ten optimiser steps of two tiny models; every parameter's gradient | stored losses and norms |
//! | [`cache`] | generation token by token, in chunks, after a changed token | stored logits |
//! | [`memory`] | 200 steps | the memory after 50 |
//! | [`limits`] | what the device says it can do | |
//!
//! A [`check::Check`] is data, two functions and a name: the tests plant faults by exchanging one of them. Stored
//! values are those of the readable form on `flex` ([`mod@reference`]). [`quick`] is the short form that `train` runs on a
//! GPU.
//!
//! On a CPU backend it takes half a second. On GPU backends nearly all of the time goes into CubeCL's search for the best
//! kernel of each matrix product, whose result is kept for the next process (`docs/devices.md`).
//!
//! What it does not see: kernels of other sizes than those it runs, products in 16 bits (`train.precision`), Muon, and
//! faults that come and go.

pub mod advice;
pub mod cache;
pub mod check;
mod compare;
pub mod examine;
pub mod limits;
pub mod memory;
pub mod operations;
pub mod reference;
pub mod report;
pub mod training;

#[cfg(test)]
mod tests;

use std::time::Instant;

use minillm_infer::device::DeviceInfo;

use self::check::{Check, Forms, Outcome};
use self::examine::examine;
use self::limits::Described;
use self::reference::Reference;
use self::report::{Report, subject};
use crate::config::KernelChoice;
use crate::error::{Error, Result};

/// Operations of [`quick`]: one of each kind of kernel. The two steps after them run the others.
const QUICK: [&str; 5] = ["RMSNorm", "RoPE", "attention (GQA)", "cross-entropy", "embedding"];

/// Every check that compares with stored values.
pub fn checks() -> Vec<Check> {
    let parts = [operations::checks(), training::checks(), cache::checks()];
    parts.into_iter().flatten().collect()
}

/// Examines a device in every part. What is wrong is in the report.
pub fn examine_all(found: &DeviceInfo) -> Report {
    let start = Instant::now();
    let reference = Reference::stored();
    let device = Described::new(found);
    let mut outcomes: Vec<Outcome> =
        checks().iter().flat_map(|check| examine(check, found, &reference, Forms::All)).collect();
    let (memory, growth) = memory::examine(found);
    outcomes.push(memory);
    Report { device, outcomes, growth, seconds: start.elapsed().as_secs_f64() }
}

/// Examines the forms that a run with `kernels` uses in a few operations and two steps of training: seconds on a GPU
/// whose kernels are compiled. Products in 16 bits are left out.
///
/// # Errors
/// [`Error::Unsound`] with the first check that went wrong and a hint.
pub fn quick(found: &DeviceInfo, kernels: KernelChoice) -> Result<()> {
    let operations = operations::checks().into_iter().filter(|check| QUICK.contains(&check.name));
    let checks: Vec<_> = operations.chain([training::quick_check()]).collect();
    quick_with(&checks, found, kernels)
}

/// [`quick`] with other checks.
fn quick_with(checks: &[Check], found: &DeviceInfo, kernels: KernelChoice) -> Result<()> {
    let reference = Reference::stored();
    let forms = match kernels {
        KernelChoice::Fast => Forms::Fast,
        KernelChoice::Readable => Forms::Readable,
    };
    let wrong = |outcomes: Vec<Outcome>| outcomes.into_iter().find(|outcome| outcome.finding.is_some());
    for check in checks {
        let Some(outcome) = wrong(examine(check, found, &reference, forms)) else { continue };
        // Only the other form tells whether it can be used instead.
        let outcome = wrong(examine(check, found, &reference, Forms::All)).unwrap_or(outcome);
        let Some(finding) = &outcome.finding else { continue };
        return Err(Error::Unsound {
            device: found.name.clone(),
            problem: format!("{}: {}", subject(&outcome), finding.problem),
            hint: format!(
                "{}. `minillm-train doctor --device {}` says more; `--set train.check_device=false` trains all the same",
                finding.hint, found.name
            ),
        });
    }
    Ok(())
}

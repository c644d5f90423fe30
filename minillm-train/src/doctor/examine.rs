//! The examination that every check goes through: both forms are computed, compared with the stored values and with each other.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use minillm_infer::device::DeviceInfo;
use minillm_model::ops::ComputeOptions;

use super::advice::hint_for;
use super::check::{Check, Compute, Finding, Form, Forms, Outcome, Part, Setting};
use super::compare::{Verdict, judge};
use super::reference::{Reference, thinned};

/// Runs the forms of `check` on a device and compares what they give with the stored values and with each other. A
/// panic in a form is a finding like any other.
pub fn examine(check: &Check, found: &DeviceInfo, reference: &Reference, forms: Forms) -> Vec<Outcome> {
    let fastest = ComputeOptions::fastest(&found.device);
    let has_fast = (check.has_fast)(&fastest);
    let tolerance = check.group.tolerance(found.is_gpu);
    let expected = |part: &Part| reference.get(check.name, &part.what).map(<[f32]>::to_vec);
    let attempt = |compute: &Compute, kernels| {
        let start = Instant::now();
        let computed = catch_panic(|| compute(&Setting::new(found, kernels)));
        let seconds = start.elapsed().as_secs_f64();
        let verdict = judge(&computed, tolerance, check.smallest, |part| (thinned(&part.values), expected(part)));
        (computed.unwrap_or_default(), verdict, seconds)
    };
    let readable = (forms != Forms::Fast || !has_fast).then(|| attempt(&check.readable, ComputeOptions::READABLE));
    let fast = (forms != Forms::Readable && has_fast).then(|| attempt(&check.fast, fastest));
    let both = match (&readable, &fast) {
        (Some((expected, Verdict { problem: None, .. }, _)), Some((got, Verdict { problem: None, .. }, _))) => {
            let other = |part: &Part| expected.iter().find(|other| other.what == part.what);
            let pair = |part: &Part| (part.values.clone(), other(part).map(|other| other.values.clone()));
            Some((Vec::new(), judge(&Ok(got.clone()), tolerance, check.smallest, pair), 0.0))
        }
        _ => None,
    };
    let readable_is_sound = readable.as_ref().is_none_or(|(_, verdict, _)| verdict.problem.is_none());
    let outcome = |form, (parts, verdict, seconds): (Vec<Part>, Verdict, f64)| Outcome {
        group: check.group,
        name: check.name,
        form,
        error: verdict.error,
        tolerance,
        finding: verdict.problem.map(|problem| {
            let only_fast = form != Form::Readable && readable_is_sound;
            Finding { problem, hint: hint_for(found, only_fast, check.for_generation) }
        }),
        parts,
        seconds,
    };
    let examined = [(Form::Readable, readable), (Form::Fast, fast), (Form::Both, both)];
    examined.into_iter().filter_map(|(form, result)| result.map(|result| outcome(form, result))).collect()
}

/// Turns a panic into words. (What the panic says also goes to stderr.)
pub fn catch_panic<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(format!("it panicked: {}", message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

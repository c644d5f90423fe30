//! Each operation in its readable and its fast form, forward and backward, on the first CPU backend of the build:
//! `cargo bench -p minillm-infer`. Operations and sizes are those of the project's table of cases.

#![allow(missing_docs)]

use divan::Bencher;
use minillm_infer::device;
use minillm_model::cases::{self, Place};
use minillm_model::ops::ComputeOptions;

/// Burn allocates and frees a tensor for each operation, as in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// Every row of the table that is timed.
fn names() -> Vec<&'static str> {
    cases::all().into_iter().filter(|case| case.bench.is_some()).map(|case| case.name).collect()
}

#[divan::bench(args = names())]
fn readable(bencher: Bencher, name: &str) {
    time(bencher, name, |_| ComputeOptions::READABLE);
}

#[divan::bench(args = names())]
fn fast(bencher: Bencher, name: &str) {
    time(bencher, name, ComputeOptions::fastest);
}

fn time(bencher: Bencher, name: &str, compute: fn(&burn::tensor::Device) -> ComputeOptions) {
    let device = device::open("auto").expect("a device").device;
    let cases = cases::all();
    let prepare = cases.iter().find(|case| case.name == name).and_then(|case| case.bench.as_ref());
    let prepared = prepare.expect("a case to time")(&Place::new(&device, compute(&device)));
    bencher.bench_local(|| prepared.run());
}

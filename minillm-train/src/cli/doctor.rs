//! `minillm-train doctor`: whether a device computes rightly.

use minillm_infer::output::print;
use minillm_train::doctor::examine_all;
use minillm_train::error::Result;

use super::arguments::{DeviceArgs, JsonArgs};

/// Check a device before trusting it with a long training
///
///   minillm-train doctor --device wgpu
///
/// Compares operations, gradients, ten steps of training and generation with stored values, and watches the memory over
/// 200 steps. Exits with 1 if anything is wrong, and says what to do about it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    output: JsonArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let report = examine_all(&args.device.open()?);
    let text = if args.output.json { format!("{}\n", report.to_json()) } else { report.to_text() };
    print(&text)?;
    report.error().map_or(Ok(()), Err)
}

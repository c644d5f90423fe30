//! `minillm-train doctor`: whether a device computes rightly.

use minillm_infer::cli::output::print;
use minillm_infer::device;

use crate::doctor::examine_all;
use crate::error::Result;

/// Check a device before trusting it with a long training
///
///   minillm-train doctor --device wgpu
///
/// Compares operations, gradients, ten steps of training and generation with stored values, and watches the memory over
/// 200 steps. Exits with 1 if anything is wrong, and says what to do about it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What to check: auto, or a name from `minillm-train devices`
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let report = examine_all(&device::open(&args.device)?);
    let text = if args.json { format!("{}\n", report.to_json()) } else { report.to_text() };
    print(&text)?;
    report.error().map_or(Ok(()), Err)
}

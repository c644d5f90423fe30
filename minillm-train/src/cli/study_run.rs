//! `minillm-train study-run`: one run of a study. Started by `study`, not by people.

use std::path::PathBuf;
use std::process::ExitCode;

use minillm_train::error::Result;
use minillm_train::study::run::{RunEnd, run as run_one};
use minillm_train::study::runner::acquire_slot;

use super::cache_dir;
use super::progress::Bars;

/// Do one run of a study
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's directory, with its study-run.json
    run: PathBuf,
    /// What to compute on
    #[arg(long, value_name = "D")]
    device: String,
    /// What the bar is called
    #[arg(long, allow_hyphen_values = true)]
    label: String,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let _slot = acquire_slot(&args.run)?;
    Ok(match run_one(&args.run, &args.device, &args.label, &cache_dir()?, &Bars::default())? {
        RunEnd::Done => ExitCode::SUCCESS,
        RunEnd::Interrupted(signal) => ExitCode::from(signal.exit_code()),
    })
}

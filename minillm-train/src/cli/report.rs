//! `minillm-train report`: a run's page, made again.

use std::path::PathBuf;

use minillm_infer::output::note;
use minillm_train::error::{Error, Result};
use minillm_train::report;
use minillm_train::run_dir::{METRICS_FILE, REPORT_FILE};

/// Write a run's report.html from the run's own files
///
/// `train` does this after an evaluation, for at most 1 % of its time, and at its end.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's directory
    run: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if !args.run.join(METRICS_FILE).is_file() {
        return Err(Error::Run {
            path: args.run.clone(),
            problem: format!("is not a run: it has no {METRICS_FILE}"),
            hint: "give the directory that `train` wrote, runs/NAME".to_owned(),
        });
    }
    report::write(&args.run)?;
    note(args.run.join(REPORT_FILE).display());
    Ok(())
}

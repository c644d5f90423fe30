//! `minillm-train devices`: what there is to compute on.

use minillm_infer::device;
use minillm_infer::output::{note, print};
use minillm_train::error::Result;

/// List the devices that this program can compute on
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_args: &Args) -> Result<()> {
    let auto = device::open("auto").map(|found| found.name).unwrap_or_default();
    for found in device::list() {
        let chosen = if found.name == auto { "  (auto)" } else { "" };
        print(&format!("{:<10} {}{chosen}\n", found.name, found.description))?;
    }
    note(format_args!("backends in this program: {}", device::compiled().join(", ")));
    Ok(())
}

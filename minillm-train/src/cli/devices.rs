//! `minillm-train devices`: what there is to compute on.

use minillm_infer::device;

/// List the devices that this program can compute on
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_args: &Args) {
    let auto = device::open("auto").map(|found| found.name).unwrap_or_default();
    for found in device::list() {
        let chosen = if found.name == auto { "  (auto)" } else { "" };
        println!("{:<10} {}{chosen}", found.name, found.description);
    }
    eprintln!("backends in this program: {}", device::compiled().join(", "));
}

//! `minillm-train`: a model from text.

#![recursion_limit = "256"]

mod cli;

use std::process::ExitCode;

/// Burn allocates and frees a tensor for each operation; mimalloc keeps that cheap.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    minillm_infer::memory::keep_freed_memory();
    minillm_infer::memory::return_drivers_memory();
    cli::main()
}

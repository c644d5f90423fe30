//! The program's verbs, one file each. stdout carries data, stderr everything else.

mod arguments;
pub mod bench;
pub mod export;
pub mod generate;
pub mod inspect;
pub mod logits;
pub mod score;
pub mod tokenize;
pub mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use minillm_infer::error::Error;
use minillm_infer::{logging, output};

/// Generates text with small GPT- and LLaMA-style language models, measures them, and hands them to other programs
#[derive(Debug, Parser)]
#[command(name = "minillm-infer", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Generate(generate::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Score(score::Args),
    Tokenize(tokenize::Args),
    Logits(logits::Args),
    Export(export::Args),
    Verify(verify::Args),
}

/// Parses the command line and runs it; returns the program's exit code.
pub fn main() -> ExitCode {
    logging::start();
    let done = match Cli::parse().verb {
        Verb::Generate(args) => generate::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Score(args) => score::run(&args),
        Verb::Tokenize(args) => tokenize::run(&args),
        Verb::Logits(args) => logits::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Verify(args) => verify::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error, error.hint());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Turns the system's error into ours, which says what was tried.
fn io_error(action: &'static str, what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, what, source }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Values that are looked up, and paths, which can be written as `./-name`.
    const BEGIN_OTHERWISE: [&str; 6] = ["D", "TYPE", "FORMAT", "PATH", "REPORT.html", "FILE.safetensors"];

    #[test]
    fn text_and_numbers_may_begin_with_a_dash() {
        for verb in Cli::command().get_subcommands() {
            for option in verb.get_opts().filter(|option| option.get_action().takes_values()) {
                let name = option.get_value_names().and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
                let may = option.is_allow_hyphen_values_set() || option.is_allow_negative_numbers_set();
                assert!(may || BEGIN_OTHERWISE.contains(&&*name), "{} --{} {name}", verb.get_name(), option.get_id());
            }
        }
    }
}

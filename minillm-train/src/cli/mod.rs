//! The program's verbs, one file each. stdout carries data, stderr everything else.

mod arguments;
pub mod bench;
pub mod data;
pub mod devices;
pub mod doctor;
pub mod plan;
mod progress;
pub mod report;
pub mod study;
pub mod study_run;
pub mod tokenizer;
pub mod train;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};
use minillm_infer::output::note;
use minillm_infer::{logging, output};
use minillm_train::config::suggest;
use minillm_train::error::{Error, Result};
use minillm_train::interrupt::report_limits;

/// Trains small GPT- and LLaMA-style language models
#[derive(Debug, Parser)]
#[command(name = "minillm-train", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Train(train::Args),
    Study(study::Args),
    #[command(hide = true)]
    StudyRun(study_run::Args),
    Tokenizer(tokenizer::Args),
    Data(data::Args),
    Plan(plan::Args),
    Bench(bench::Args),
    Report(report::Args),
    Devices(devices::Args),
    Doctor(doctor::Args),
}

/// Parses the command line and runs it; returns the program's exit code.
pub fn main() -> ExitCode {
    logging::start();
    report_limits();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let done = match cli.verb {
        Verb::Train(args) => train::run(&args),
        Verb::Study(args) => study::run(&args),
        Verb::StudyRun(args) => study_run::run(&args),
        Verb::Tokenizer(args) => tokenizer::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Data(args) => data::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Plan(args) => plan::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Report(args) => report::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Devices(args) => devices::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Doctor(args) => doctor::run(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        output::report(&error, error.hint());
        ExitCode::from(error.exit_code())
    })
}

/// clap's own message; for an unknown flag that names a configuration key, also how it is written here.
fn usage_error(error: &clap::Error) -> ExitCode {
    let _ = error.print(); // nothing can be said where stderr is closed
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        // clap cuts `--batch_size=32` at the `=`; the hint is better with the value.
        let typed = std::env::args().find(|argument| argument.starts_with(flag)).unwrap_or_else(|| flag.clone());
        if let Some(hint) = suggest(&typed) {
            note(format_args!("  hint: {hint}"));
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Where token files and downloads are kept: `MINILLM_CACHE`, else the system's place for caches.
fn cache_dir() -> Result<PathBuf> {
    let from = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let system = || {
        if cfg!(windows) {
            from("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home().map(|home| home.join("Library").join("Caches"))
        } else {
            from("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
        }
    };
    from("MINILLM_CACHE").or_else(|| system().map(|cache| cache.join("minillm"))).ok_or_else(|| Error::Config {
        origin: "environment".to_owned(),
        field: "MINILLM_CACHE".to_owned(),
        problem: "is not set, and there is no home directory to keep caches in".to_owned(),
        hint: "set MINILLM_CACHE to a directory".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Values that are looked up, and paths, which can be written as `./-name`.
    const BEGIN_OTHERWISE: [&str; 5] = ["D", "RUN", "DIR", "FILE", "tokenizer.json"];

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

//! How both programs print, [log](crate::logging) and progress display aside: data to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use crate::error::{Error, Result};

/// Writes to stdout at once. A closed pipe (`| head`) is the reader's decision, not an error: the program ends there.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        done => done.map_err(|source| Error::Io { action: "write", what: "to stdout", source }),
    }
}

/// Writes a line to stderr. Where that is closed or full, the work goes on without it.
pub fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints an error the way both programs do: what, why, and what to do about it.
pub fn report(error: &dyn std::error::Error, hint: Option<&str>) {
    note(format_args!("error: {error}"));
    let mut source = error.source();
    while let Some(cause) = source {
        note(format_args!("  caused by: {cause}"));
        source = cause.source();
    }
    if let Some(hint) = hint {
        note(format_args!("  hint: {hint}"));
    }
}

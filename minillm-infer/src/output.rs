//! How both programs print, log and progress display aside: data to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use super::io_error;
use crate::error::Result;

/// Writes to stdout at once. A closed pipe (`| head`) is the reader's decision, not an error: the program ends there.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        done => done.map_err(io_error("write", "to stdout")),
    }
}

/// Writes a line to stderr. Where that is closed or full, the work goes on without it.
pub fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

//! Work of a device that failed where nobody waited for it.
//!
//! A GPU's work is done by a thread of Burn's. If it fails there, the thread logs a warning and goes on, and what the work was
//! to write holds anything. So this layer of the programs' log keeps the first such warning, and the trainer looks at it after
//! each step. The log is one for the whole process, and so is what it has seen.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::burn_compat::{means_broken_device, means_failed_work, means_lost_device};
use crate::output;

static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Whether this process is one of the programs, and so may be ended.
static IS_PROGRAM: AtomicBool = AtomicBool::new(false);

/// The first failure since the program began.
pub fn first() -> Option<String> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Keeps the first failure that is logged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch;

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return; // less severe is greater
        }
        let mut seen = Seen { source: event.metadata().target().to_owned(), message: String::new() };
        event.record(&mut seen);
        if means_lost_device(&seen.source, *event.metadata().level()) && IS_PROGRAM.load(Ordering::Relaxed) {
            end(&seen.message);
        }
        if means_failed_work(&seen.source, *event.metadata().level()) {
            FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(seen.message);
        }
    }
}

/// From now on the program ends, with one message, as soon as a device can compute nothing more: it was lost, or its own thread panics.
/// The thread that waits for the device would wait for ever, or be told the same again for minutes. Called once, by programs.
pub fn end_with_a_broken_device() {
    IS_PROGRAM.store(true, Ordering::Relaxed);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        let file = panic.location().map_or("", std::panic::Location::file);
        if let Some(problem) = means_broken_device(message, file) {
            end(problem);
        }
        report(panic);
    }));
}

/// Ends the program: the thread that could return an error waits for the device. Checkpoints are published whole or not at all, so
/// nothing that is saved is harmed.
fn end(problem: &str) -> ! {
    let hint = "choose a smaller model, batch or context, or another device (`--device flex` is the CPU); what is saved is intact, and \
                `train --resume` goes on from there";
    output::report(&std::io::Error::other(format!("the device failed: {problem}")), Some(hint));
    std::process::exit(1);
}

/// What an event says.
struct Seen {
    source: String,
    message: String,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Events of the `log` crate carry their source as a field.
        if field.name() == "log.target" {
            value.clone_into(&mut self.source);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_first_failure_of_the_device_is_kept() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Watch), || {
            tracing::warn!(target: "burn_optim", "not of the device");
            tracing::info!(target: "burn_fusion::stream", "not a warning");
            tracing::warn!(target: "cubecl_wgpu::compute::stream", "waiting for a profiled window");
            assert_eq!(first(), None);
            // As the `log` crate's events arrive.
            let source = "cubecl_common::device::handle::channel";
            tracing::event!(target: "log", Level::WARN, { "log.target" = source }, "Task failed: no memory");
            tracing::error!(target: "burn_fusion::stream", "another");
        });
        assert_eq!(first().as_deref(), Some("Task failed: no memory"));
    }
}

//! The log of both programs, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::failures::{Watch, end_with_a_broken_device};

/// What is logged unless `RUST_LOG` says otherwise. The two that are off describe, in several lines, what else a graphics library had in
/// memory when a device failed; the failure itself is reported.
const MESSAGES: &str = "warn,minillm_model=info,minillm_infer=info,minillm_train=info,gpu_allocator=off,wgpu_core::indirect_validation=off";

/// Warnings go to stderr; `RUST_LOG` asks for more or less. Whatever it says, failures of the device are noticed.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(MESSAGES));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let messages = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .without_time()
        .with_target(false)
        .with_filter(filter);
    // The watch comes first: it may end the program with its own message.
    tracing_subscriber::registry().with(Watch.with_filter(LevelFilter::WARN)).with(messages).init();
    end_with_a_broken_device();
}

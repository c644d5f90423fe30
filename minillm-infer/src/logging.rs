//! The log of both programs, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::failures::{Watch, end_with_a_broken_device};

/// Warnings go to stderr; `RUST_LOG` asks for more or less. Whatever it says, failures of the device are noticed.
pub fn start() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,minillm_model=info,minillm_infer=info,minillm_train=info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let messages = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .without_time()
        .with_target(false)
        .with_filter(filter);
    tracing_subscriber::registry().with(messages).with(Watch.with_filter(LevelFilter::WARN)).init();
    end_with_a_broken_device();
}

//! A progress bar for reading and tokenising, on a terminal only.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use minillm_train::data::Progress;

/// Shows one bar at a time on stderr. `indicatif` draws nothing where that is no terminal.
#[derive(Default)]
pub(super) struct Bars {
    current: Mutex<Option<ProgressBar>>,
}

impl Bars {
    fn with(&self, use_slot: impl FnOnce(&mut Option<ProgressBar>)) {
        use_slot(&mut self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Progress for Bars {
    fn start(&self, what: &str, total: u64) {
        // The template is constant; without it there is only indicatif's plainer default.
        let style = ProgressStyle::with_template("{msg} [{bar:24}] {bytes}/{total_bytes}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=>-");
        let bar = ProgressBar::new(total).with_style(style).with_message(what.to_owned());
        self.with(|slot| *slot = Some(bar));
    }

    fn advance(&self, n: u64) {
        self.with(|slot| {
            if let Some(bar) = slot {
                bar.inc(n);
            }
        });
    }

    fn finish(&self) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }
}

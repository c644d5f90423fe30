//! Progress for the person who waits: a bar on a terminal, plain lines otherwise. Only ever on stderr.
//!
//! ```text
//! [=====>--------------] 500/2000  loss 2.104  41,200 tokens/s  1m05s left
//! step 500/2000  loss 2.104  gradient 0.52  rate 9.0e-4  41,200 tokens/s  1m05s left
//! ```
//!
//! On a terminal the bar moves at every step, and evaluations are printed above it. Where stderr is a file or a pipe,
//! each record is one line. Nothing is coloured, and a stderr that was closed does not stop the training.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use minillm_infer::number::{duration, grouped};

use super::{Record, Sink, tag};
use crate::error::Result;

/// In indicatif's words. `wide_msg` is cut off at the edge of the terminal, so the bar never breaks into two lines.
const TEMPLATE: &str = "[{bar:20}] {pos}/{len}{wide_msg}";
/// The same for a run among others.
const LABELLED: &str = "{prefix} [{bar:20}] {pos}/{len}{wide_msg}";

/// The progress display. A clone is another handle to the same display, for text that must not cut through the bar.
#[derive(Clone)]
pub struct Console {
    output: Output,
    /// Nothing but the bar.
    only_bar: bool,
    started: Instant,
    first_step: usize,
    max_steps: usize,
}

#[derive(Clone)]
enum Output {
    Bar(ProgressBar),
    Lines(Arc<Mutex<dyn Write + Send>>),
}

impl Console {
    /// Progress on stderr for a run of `max_steps` steps of which `step` are done.
    pub fn stderr(step: usize, max_steps: usize) -> Self {
        let target = ProgressDrawTarget::stderr();
        if target.is_hidden() {
            return Self::lines(step, max_steps, io::stderr()); // no terminal
        }
        // The template is constant and tested; without it there is only indicatif's plainer default.
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(max_steps as u64), target)
            .with_style(style.progress_chars("=>-"))
            .with_finish(ProgressFinish::Abandon) // the last state stays on the screen
            .with_position(step as u64);
        Self::new(step, max_steps, Output::Bar(bar))
    }

    /// A bar behind `label` that goes when the run ends, and nothing else: for a run among others, about which whoever
    /// started it reports.
    pub fn one_of_several(label: &str, step: usize, max_steps: usize) -> Self {
        let mut console = Self::stderr(step, max_steps);
        if let Output::Bar(bar) = console.output {
            let style = ProgressStyle::with_template(LABELLED).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=>-"));
            bar.set_prefix(label.to_owned());
            console.output = Output::Bar(bar.with_finish(ProgressFinish::AndClear));
        }
        Self { only_bar: true, ..console }
    }

    /// The same as plain lines, to any writer.
    pub fn lines(step: usize, max_steps: usize, writer: impl Write + Send + 'static) -> Self {
        Self::new(step, max_steps, Output::Lines(Arc::new(Mutex::new(writer))))
    }

    fn new(step: usize, max_steps: usize, output: Output) -> Self {
        Self { output, only_bar: false, started: Instant::now(), first_step: step, max_steps }
    }

    /// Prints text, which may have several lines, above the bar; where there is none, at the end.
    pub fn print(&self, text: &str) {
        if self.only_bar {
            return;
        }
        match &self.output {
            Output::Bar(bar) => bar.println(text),
            Output::Lines(writer) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                // One call, so that lines of several threads do not mix. A reader that has gone away is no failure.
                let _ = writer.write_all(format!("{text}\n").as_bytes());
            }
        }
    }

    /// How long the rest will take at the pace so far, evaluations and all; `None` at the start and at the end.
    fn time_left(&self, step: usize) -> Option<Duration> {
        let done = step.checked_sub(self.first_step).filter(|done| *done > 0)?;
        let left = self.max_steps.checked_sub(step).filter(|left| *left > 0)?;
        Duration::try_from_secs_f64(self.started.elapsed().as_secs_f64() / done as f64 * left as f64).ok()
    }
}

impl Sink for Console {
    fn record(&mut self, record: &Record) -> Result<()> {
        let left = self.time_left(record.step).map_or(String::new(), |left| format!("  {} left", duration(left)));
        let is_evaluation = record.get(tag::VAL_LOSS).is_some();
        match &self.output {
            Output::Bar(bar) if !is_evaluation => {
                let brief = describe(record, &[tag::TRAIN_LOSS, tag::TRAIN_TOKENS_PER_SECOND]);
                bar.set_message(format!("{brief}{left}"));
                bar.set_position(record.step as u64);
            }
            _ => {
                let left = if is_evaluation { String::new() } else { left };
                self.print(&format!("step {}/{}{}{left}", record.step, self.max_steps, describe(record, &[])));
            }
        }
        Ok(())
    }

    fn step(&mut self, step: usize) {
        if let Output::Bar(bar) = &self.output {
            bar.set_position(step as u64);
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The record's numbers in few words and digits, each behind two spaces; those in `only`, or all if it is empty.
fn describe(record: &Record, only: &[&str]) -> String {
    let mut text = String::new();
    for &(tag, value) in record.values.iter().filter(|(tag, _)| only.is_empty() || only.contains(tag)) {
        // Writing to a `String` cannot fail.
        let _ = match tag {
            tag::TRAIN_LOSS => write!(text, "  loss {value:.3}"),
            tag::TRAIN_GRAD_NORM => write!(text, "  gradient {value:.2}"),
            tag::TRAIN_LR => write!(text, "  rate {value:.1e}"),
            tag::TRAIN_TOKENS_PER_SECOND => write!(text, "  {} tokens/s", grouped(value, 0)),
            // A pair of answers is no token: it has no perplexity.
            tag::VAL_LOSS if record.get(tag::VAL_BITS_PER_BYTE).is_none() => {
                write!(text, "  validation loss {value:.4}")
            }
            tag::VAL_LOSS => write!(text, "  validation loss {value:.4}  perplexity {:.2}", value.exp()),
            tag::VAL_BITS_PER_BYTE => write!(text, "  bits per byte {value:.4}"),
            tag::VAL_FLOOR => write!(text, "  floor {value:.4}"),
            tag::VAL_GAP => write!(text, "  gap {value:.4}"),
            grade if tag::GRADES.contains(&grade) => {
                let name = grade.trim_start_matches("val/").replace('_', " ");
                write!(text, "  {name} {value:.3}")
            }
            other => write!(text, "  {other} {value:.4}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A stderr that was closed.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn training(step: usize) -> Record {
        Record::new(step, 0)
            .with(tag::TRAIN_LOSS, 2.104_4)
            .with(tag::TRAIN_GRAD_NORM, 0.523)
            .with(tag::TRAIN_LR, 9e-4)
            .with(tag::TRAIN_TOKENS_PER_SECOND, 41_200.4)
    }

    #[test]
    fn one_plain_line_per_record() {
        let buffer = Buffer::default();
        let mut console = Console::lines(0, 2000, buffer.clone());
        console.step(1);
        console.record(&training(2000)).unwrap();
        console
            .record(
                &Record::new(2000, 0)
                    .with(tag::VAL_LOSS, 1.877)
                    .with(tag::VAL_BITS_PER_BYTE, 2.5)
                    .with(tag::VAL_GAP, 0.1),
            )
            .unwrap();
        console.print("ROMEO:\nHail");
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let expected = "step 2000/2000  loss 2.104  gradient 0.52  rate 9.0e-4  41,200 tokens/s\n\
                        step 2000/2000  validation loss 1.8770  perplexity 6.53  bits per byte 2.5000  gap 0.1000\n\
                        ROMEO:\nHail\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn time_left_counts_from_where_the_run_was_resumed() {
        let mut console = Console::lines(100, 200, Buffer::default());
        console.started = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        assert_eq!(console.time_left(110).map(duration).unwrap(), "13m30s"); // 10 of 100 steps in 90 s
        assert_eq!(console.time_left(100), None);
        assert_eq!(console.time_left(200), None);
    }

    #[test]
    fn a_closed_stderr_stops_nothing() {
        Console::lines(0, 10, Closed).record(&training(1)).unwrap();
    }

    #[test]
    fn the_bars_template_is_sound() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
        ProgressStyle::with_template(LABELLED).unwrap();
        let mut console = Console::stderr(0, 10); // a bar in a terminal, lines under `cargo test`'s capture
        console.step(1);
        console.record(&training(1)).unwrap();
    }
}

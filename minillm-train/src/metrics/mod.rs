//! What a run says about itself: records of named numbers, and the places they go to.
//!
//! The trainer makes one [`Record`] per logging interval and one per evaluation and hands it to [`Metrics`], which
//! passes it to every [`Sink`]: a file of JSON lines, `TensorBoard` events, the terminal. Sinks never change a number.

mod append_file;
pub mod console;
pub mod jsonl;
pub mod tensorboard;

use crate::error::Result;

/// The names of the numbers: the same in `metrics.jsonl` and in `TensorBoard`, and part of what users build on.
pub mod tag {
    /// Mean loss of the step's tokens, in nats per token.
    pub const TRAIN_LOSS: &str = "train/loss";
    /// L2 norm of all gradients together, before clipping.
    pub const TRAIN_GRAD_NORM: &str = "train/grad_norm";
    /// Learning rate of the step.
    pub const TRAIN_LR: &str = "train/lr";
    /// Steps of the run so far that were not taken, with `train.skip_spikes`.
    pub const TRAIN_SKIPPED: &str = "train/skipped";
    /// Trained tokens per second since the last record.
    pub const TRAIN_TOKENS_PER_SECOND: &str = "train/tokens_per_second";
    /// Mean loss over the validation split, in nats per token.
    pub const VAL_LOSS: &str = "val/loss";
    /// The same per byte of text, in bits: comparable between tokenizers.
    pub const VAL_BITS_PER_BYTE: &str = "val/bits_per_byte";
    /// For `tales`: the lowest `val/loss` that any model can reach, in nats per token.
    pub const VAL_FLOOR: &str = "val/floor";
    /// For `tales`: `val/loss` - `val/floor`, in nats per token.
    pub const VAL_GAP: &str = "val/gap";

    /// For `tales-chat`: the share of answers about a tale that are right.
    pub const VAL_ASK: &str = "val/ask";
    /// For `tales-chat`: the share of questions without an answer that are answered so.
    pub const VAL_DOES_NOT_SAY: &str = "val/does_not_say";
    /// For `tales-chat`: the share of answers in the form that the system prompt asks for.
    pub const VAL_FORM: &str = "val/form";
    /// For `tales-chat`: the share of told tales that the grammar can make.
    pub const VAL_TALE_READS: &str = "val/tale_reads";
    /// For `tales-chat`: the share of of those, tales as they were wished.
    pub const VAL_TALE_AS_WISHED: &str = "val/tale_as_wished";
    /// For `tales-chat`: the share of answers about the model's own tale that are right.
    pub const VAL_OWN_TALE: &str = "val/own_tale";
    /// For `tales-chat`: the share of tales told again with another hero, word by word.
    pub const VAL_AGAIN: &str = "val/again";
    /// For preferences, as TRL has it: beta times the mean log-ratio of the chosen answers to the reference.
    pub const REWARDS_CHOSEN: &str = "rewards/chosen";
    /// The same of the rejected answers.
    pub const REWARDS_REJECTED: &str = "rewards/rejected";
    /// The difference of the two.
    pub const REWARDS_MARGINS: &str = "rewards/margins";
    /// The share of pairs whose chosen answer has the larger one.
    pub const REWARDS_ACCURACIES: &str = "rewards/accuracies";
    /// The mean log-probability of the chosen answers, in nats.
    pub const LOGPS_CHOSEN: &str = "logps/chosen";
    /// The same of the rejected answers.
    pub const LOGPS_REJECTED: &str = "logps/rejected";
    /// For preferences over tales: the share of heroes who eat alone.
    pub const VAL_SELFISH: &str = "val/selfish";

    /// All of them.
    pub const ALL: [&str; 23] = [
        TRAIN_LOSS,
        TRAIN_GRAD_NORM,
        TRAIN_LR,
        TRAIN_SKIPPED,
        TRAIN_TOKENS_PER_SECOND,
        VAL_LOSS,
        VAL_BITS_PER_BYTE,
        VAL_FLOOR,
        VAL_GAP,
        VAL_ASK,
        VAL_DOES_NOT_SAY,
        VAL_FORM,
        VAL_TALE_READS,
        VAL_TALE_AS_WISHED,
        VAL_OWN_TALE,
        VAL_AGAIN,
        REWARDS_CHOSEN,
        REWARDS_REJECTED,
        REWARDS_MARGINS,
        REWARDS_ACCURACIES,
        LOGPS_CHOSEN,
        LOGPS_REJECTED,
        VAL_SELFISH,
    ];

    /// Those that a program has graded.
    pub const GRADES: [&str; 8] =
        [VAL_ASK, VAL_DOES_NOT_SAY, VAL_FORM, VAL_TALE_READS, VAL_TALE_AS_WISHED, VAL_OWN_TALE, VAL_AGAIN, VAL_SELFISH];
}

/// Named numbers of one moment of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Optimiser steps taken so far.
    pub step: usize,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Names from [`tag`] and their values, in the order they are written.
    pub values: Vec<(&'static str, f64)>,
}

impl Record {
    /// A record without values yet.
    pub fn new(step: usize, tokens: u64) -> Self {
        Self { step, tokens, values: Vec::new() }
    }

    /// Adds a value.
    #[must_use]
    pub fn with(mut self, tag: &'static str, value: f64) -> Self {
        self.values.push((tag, value));
        self
    }

    /// The value under `tag`, if the record has it.
    pub fn get(&self, tag: &str) -> Option<f64> {
        self.values.iter().find(|(name, _)| *name == tag).map(|(_, value)| *value)
    }
}

/// A place that records go to.
pub trait Sink {
    /// Takes one record. Values that are not finite have no place in the files and are left out there.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn record(&mut self, record: &Record) -> Result<()>;

    /// Notes that `step` steps have been taken. Called after each one; only a progress bar has use for it.
    fn step(&mut self, _step: usize) {}

    /// Brings everything taken so far to disk. Called before a checkpoint is published, so that no record of a step up
    /// to the checkpoint's can be missing after a crash.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn flush(&mut self) -> Result<()>;
}

/// Passes every record to several sinks, in order.
#[derive(Default)]
pub struct Metrics {
    sinks: Vec<Box<dyn Sink>>,
}

impl Metrics {
    /// Without sinks yet: records go nowhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sink.
    #[must_use]
    pub fn with(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }
}

impl Sink for Metrics {
    fn record(&mut self, record: &Record) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.record(record))
    }

    fn step(&mut self, step: usize) {
        self.sinks.iter_mut().for_each(|sink| sink.step(step));
    }

    fn flush(&mut self) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.flush())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Rc<RefCell<Vec<String>>>);

    impl Sink for Memory {
        fn record(&mut self, record: &Record) -> Result<()> {
            self.0.borrow_mut().push(format!("record {}", record.step));
            Ok(())
        }

        fn step(&mut self, step: usize) {
            self.0.borrow_mut().push(format!("step {step}"));
        }

        fn flush(&mut self) -> Result<()> {
            self.0.borrow_mut().push("flush".to_owned());
            Ok(())
        }
    }

    #[test]
    fn every_sink_gets_everything() {
        let sinks = [Memory::default(), Memory::default()];
        let mut metrics = Metrics::new().with(sinks[0].clone()).with(sinks[1].clone());
        metrics.step(1);
        let record = Record::new(1, 64).with(tag::TRAIN_LOSS, 2.5);
        metrics.record(&record).unwrap();
        metrics.flush().unwrap();
        for sink in sinks {
            assert_eq!(*sink.0.borrow(), ["step 1", "record 1", "flush"]);
        }
        assert_eq!((record.get(tag::TRAIN_LOSS), record.get(tag::VAL_LOSS)), (Some(2.5), None));
    }
}

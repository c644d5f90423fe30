//! `tales-chat` as examples: without end for training, and always the same 400 to be scored on.

use std::sync::{Arc, Mutex, PoisonError};

use minillm_model::random;
use rand::Rng;
use sha2::{Digest, Sha256};

use super::packed::Packed;
use crate::conversations::{Example, Format, Record, Summary, best_fit_until_full, push_row};
use crate::data::{Batch, Shape, hex};
use crate::error::Result;
use crate::tales::chat::{Told, as_conversation, conversation};

/// Conversations that every run is scored on.
const VALIDATION: u64 = 400;
/// Steps whose rows are filled together. Only the conversation that fits into none of them is left out: of several hundred one, so that the
/// long ones are hardly fewer than they should be.
const STEPS: usize = 64;
/// Conversations set aside for that many steps; none needs nearly as many.
const PER_SEGMENT: u64 = 1 << 24;

/// Conversations without end.
#[derive(Debug)]
pub struct Tales {
    /// The rows of the steps that were asked for last, with the number of their segment.
    last: Mutex<Option<(usize, Rows)>>,
}

type Rows = Arc<Vec<Vec<Example>>>;

/// What is always the same.
pub struct HeldOut {
    /// The conversations.
    pub packed: Packed,
    /// Summed nats that no model can be below on average.
    pub floor_nats: f64,
    /// How they are cut.
    pub summary: Summary,
    /// SHA-256 over their tokens.
    pub fingerprint: String,
}

/// The conversations to be scored on.
pub fn held_out(format: &Format, context: usize) -> Result<HeldOut> {
    let seed = random::stream(0, "held-out tales-chat").next_u64();
    let (mut summary, mut examples, mut floor_nats) = (Summary::default(), Vec::new(), 0.0);
    let mut hash = Sha256::new();
    hash.update(format.tokenizer().fingerprint());
    for index in 0..VALIDATION {
        let told = conversation(seed, index);
        let example = example(format, &told)?;
        example.add_to(&mut hash);
        floor_nats += told.nats.iter().sum::<f64>();
        examples.extend(summary.admit(example, context));
    }
    Ok(HeldOut { packed: Packed::new(examples, context), floor_nats, summary, fingerprint: hex(&hash.finalize()) })
}

fn example(format: &Format, told: &Told) -> Result<Example> {
    format.example(&Record::Conversation(as_conversation(&told.messages)))
}

impl Tales {
    /// None yet.
    pub fn new() -> Self {
        Self { last: Mutex::new(None) }
    }

    /// The rows of step `step`, counted from 0: a pure function of the seed and the step.
    pub fn batch(&self, format: &Format, shape: &Shape, step: usize) -> Result<Batch> {
        let Shape { context, batch_size, seed } = *shape;
        let (segment, place) = (step / STEPS, step % STEPS);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = match &*last {
            Some((known, rows)) if *known == segment => Arc::clone(rows),
            _ => {
                let rows = Arc::new(rows(format, context, batch_size * STEPS, seed, segment as u64)?);
                *last = Some((segment, Arc::clone(&rows)));
                rows
            }
        };
        let mut batch = Batch::with_capacity(batch_size, context);
        // Every STEPS-th row, so that the last rows, which are less full, are not all in one step.
        rows.iter().skip(place).step_by(STEPS).for_each(|row| push_row(&mut batch, row));
        Ok(batch)
    }
}

fn rows(format: &Format, context: usize, count: usize, seed: u64, segment: u64) -> Result<Vec<Vec<Example>>> {
    let mut summary = Summary::default();
    let examples = (0..PER_SEGMENT).filter_map(|index| {
        let example = example(format, &conversation(seed, segment * PER_SEGMENT + index));
        // One that is longer than a row is cut, as those from files are.
        example.map(|example| summary.admit(example, context)).transpose()
    });
    best_fit_until_full(
        count,
        context,
        examples.map(|example| {
            let example = example?;
            let places = example.places();
            Ok((example, places))
        }),
    )
}

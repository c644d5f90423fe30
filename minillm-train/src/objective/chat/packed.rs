//! Examples, and the rows that they share.

use crate::conversations::{Example, best_fit, push_row};
use crate::data::Batch;

/// Examples, and the rows that they share.
#[derive(Debug, Default)]
pub struct Packed {
    /// All of them.
    pub examples: Vec<Example>,
    /// Which are in each row.
    pub rows: Vec<Vec<usize>>,
}

impl Packed {
    /// In as few rows of `context` tokens as best fit makes of them.
    pub fn new(examples: Vec<Example>, context: usize) -> Self {
        let lengths: Vec<_> = examples.iter().map(Example::places).collect();
        Self { rows: best_fit(&lengths, context), examples }
    }

    /// Appends a row to `batch`.
    pub fn push(&self, batch: &mut Batch, row: usize) {
        push_row(batch, self.rows[row].iter().map(|&example| &self.examples[example]));
    }

    /// All targets.
    pub fn targets(&self) -> impl Iterator<Item = u32> {
        self.examples.iter().flat_map(Example::target_ids)
    }
}

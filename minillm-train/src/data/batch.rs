//! Rows of token ids, with what follows each.

pub use minillm_model::loss::IGNORED;

/// Rows of token ids with what follows each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[rows, context]` row by row.
    pub inputs: Vec<i32>,
    /// The token after each input, or [`IGNORED`] where the input is padding; the same shape.
    pub targets: Vec<i32>,
    /// Sequences.
    pub rows: usize,
    /// Tokens in each.
    pub context: usize,
}

impl Batch {
    /// None yet, with room for `rows`.
    pub(super) fn with_capacity(rows: usize, context: usize) -> Self {
        let capacity = rows * context;
        Self { inputs: Vec::with_capacity(capacity), targets: Vec::with_capacity(capacity), rows: 0, context }
    }

    /// Positions that are predicted, padding excluded.
    pub fn predicted(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORED).count()
    }
}

//! Rows of token ids, with what follows each.

use std::ops::Range;

use minillm_model::layers::documents::Documents;
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
    /// For every input the place in its row where its document begins, of documents that do not see each other; empty where each row is
    /// one text.
    pub starts: Vec<u32>,
    /// Of rows of several documents: the inputs that are not padding.
    pub filled: usize,
}

impl Batch {
    /// None yet, with room for `rows`.
    pub(crate) fn with_capacity(rows: usize, context: usize) -> Self {
        let capacity = rows * context;
        let [inputs, targets] = [(); 2].map(|()| Vec::with_capacity(capacity));
        Self { inputs, targets, context, ..Self::default() }
    }

    /// Where the documents of some rows begin.
    pub fn documents(&self, rows: Range<usize>) -> Option<Documents> {
        let tokens = rows.start * self.context..rows.end * self.context;
        (!self.starts.is_empty()).then(|| Documents::new(self.starts[tokens].to_vec(), self.context))
    }

    /// Tokens that are read, padding excluded.
    pub fn tokens(&self) -> usize {
        if self.starts.is_empty() { self.predicted() } else { self.filled }
    }

    /// Positions that are predicted, padding excluded.
    pub fn predicted(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORED).count()
    }
}

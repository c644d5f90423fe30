//! Rows of token ids, with what follows each.

use std::ops::Range;

use minillm_model::layers::documents::Documents;
pub use minillm_model::loss::IGNORED;

/// Rows of token ids with what follows each of them.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// What the loss of each document with targets is multiplied by, in the order of [`Batch::pieces`]; empty where all targets count alike.
    pub weights: Vec<f64>,
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

    /// The documents with targets in some rows: each one's row, counted from the first of `rows`, and its tokens there.
    pub fn pieces(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        rows.clone().flat_map(move |row| {
            let of_row = row * self.context..(row + 1) * self.context;
            let (starts, targets) = (&self.starts[of_row.clone()], &self.targets[of_row]);
            let begins = (0..starts.len()).filter(|&place| starts[place] as usize == place);
            let documents = begins.map(|begin| {
                let length = starts[begin..].iter().take_while(|start| **start as usize == begin).count();
                begin..begin + length
            });
            let has_targets = |tokens: &Range<usize>| targets[tokens.clone()].iter().any(|&target| target != IGNORED);
            documents.filter(has_targets).map(|tokens| (row - rows.start, tokens)).collect::<Vec<_>>()
        })
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

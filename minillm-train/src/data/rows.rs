//! How a stream of tokens is cut into rows of at most `context` predictions.
//!
//! A row is known by its *targets*, a range of the stream. Its inputs are the same range one token earlier; before the
//! stream's first token stands end-of-text, just as it stands before every later document.
//!
//! ```text
//! stream                 a b c # d e # f g h i #        (# is end-of-text)
//! packed, context 6      # a b c # d e . |              inputs;   . is padding
//!                        a b c # d e # . |              targets
//! ```

use std::ops::Range;

use super::batch::{Batch, IGNORED};
use super::token_file::TokenFile;
use crate::error::Result;

/// Tokens in a file or in memory.
#[derive(Debug)]
pub enum Tokens {
    /// Mapped.
    File(TokenFile),
    /// The validation tales.
    Memory(Vec<u32>),
}

impl Tokens {
    /// Number of tokens.
    pub fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.len(),
            Self::Memory(ids) => ids.len() as u64,
        }
    }

    fn copy(&self, range: Range<u64>, ids: &mut Vec<i32>) -> Result<()> {
        match self {
            Self::File(file) => file.copy(range, ids),
            Self::Memory(all) => {
                ids.extend(all[range.start as usize..range.end as usize].iter().map(|&id| id as i32));
                Ok(())
            }
        }
    }
}

/// The rows of a stream, by their targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Windows side by side; the first token is only ever an input.
    Windows {
        /// Tokens that are predicted.
        targets: u64,
        /// The tokens of one row.
        context: u64,
    },
    /// Whole documents: row i predicts the tokens from `bounds[i]` to `bounds[i + 1]`.
    Packed {
        /// One more than there are rows.
        bounds: Vec<u64>,
    },
}

impl Rows {
    /// Windows over a stream of `tokens`. The last may be shorter; where it must not be, see [`Self::full_windows`].
    pub fn windows(tokens: u64, context: usize) -> Self {
        Self::Windows { targets: tokens.saturating_sub(1), context: context as u64 }
    }

    /// [`Self::windows`] without what is left at the end, so that all have the same length.
    pub fn full_windows(tokens: u64, context: usize) -> Self {
        let context = context as u64;
        Self::Windows { targets: tokens.saturating_sub(1) / context * context, context }
    }

    /// Puts as many whole documents into each row as fit. One longer than `context` has rows of its own.
    ///
    /// `starts` are the documents' first tokens, in order and beginning with 0.
    pub fn packed(starts: impl Iterator<Item = u64>, tokens: u64, context: usize) -> Self {
        let context = context as u64;
        let mut bounds = vec![0];
        let mut row = 0; // where the current row starts
        let mut start = 0; // where the current document starts
        for end in starts.skip(1).chain([tokens]) {
            if end - row > context {
                // The document does not fit behind those before it.
                bounds.extend((start > row).then_some(start));
                row = start;
                while end - row > context {
                    row += context;
                    bounds.push(row);
                }
                if row > start {
                    bounds.extend((end > row).then_some(end));
                    row = end;
                }
            }
            start = end;
        }
        bounds.extend((tokens > row).then_some(tokens));
        Self::Packed { bounds }
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        match self {
            Self::Windows { targets, context } => targets.div_ceil(*context),
            Self::Packed { bounds } => bounds.len() as u64 - 1,
        }
    }

    /// The tokens that row `row` predicts.
    pub fn targets(&self, row: u64) -> Range<u64> {
        match self {
            Self::Windows { targets, context } => 1 + row * context..1 + ((row + 1) * context).min(*targets),
            Self::Packed { bounds } => bounds[row as usize]..bounds[row as usize + 1],
        }
    }

    /// Tokens predicted in all rows together.
    pub fn predicted(&self) -> u64 {
        match self {
            Self::Windows { targets, .. } => *targets,
            Self::Packed { bounds } => bounds.last().copied().unwrap_or(0),
        }
    }
}

/// Appends the row that predicts `targets`, padded to the batch's context.
pub fn push_row(batch: &mut Batch, tokens: &Tokens, targets: Range<u64>, end_of_text: Option<u32>) -> Result<()> {
    // Without end-of-text nothing is predicted from it (windows start at token 1), and padding may be any token.
    let end_of_text = end_of_text.unwrap_or(0) as i32;
    if targets.start == 0 {
        batch.inputs.push(end_of_text);
    }
    tokens.copy(targets.start.saturating_sub(1)..targets.end - 1, &mut batch.inputs)?;
    tokens.copy(targets, &mut batch.targets)?;
    batch.rows += 1;
    batch.inputs.resize(batch.rows * batch.context, end_of_text);
    batch.targets.resize(batch.rows * batch.context, IGNORED);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(lengths: &[u64], context: usize) -> Vec<u64> {
        let starts = lengths.iter().scan(0, |end, length| Some(std::mem::replace(end, *end + length)));
        match Rows::packed(starts, lengths.iter().sum(), context) {
            Rows::Packed { bounds } => bounds,
            Rows::Windows { .. } => panic!("not packed"),
        }
    }

    #[test]
    fn documents_are_packed_while_they_fit() {
        assert_eq!(bounds(&[4, 3, 5], 7), [0, 7, 12]);
        assert_eq!(bounds(&[4, 3, 5], 6), [0, 4, 7, 12]);
        assert_eq!(bounds(&[1, 1, 1, 1], 2), [0, 2, 4]);
        assert_eq!(bounds(&[3], 3), [0, 3]);
        assert_eq!(bounds(&[], 3), [0]);
    }

    #[test]
    fn a_long_document_has_rows_of_its_own() {
        assert_eq!(bounds(&[2, 10, 2], 4), [0, 2, 6, 10, 12, 14]);
        assert_eq!(bounds(&[8, 2], 4), [0, 4, 8, 10]);
        assert_eq!(bounds(&[9], 4), [0, 4, 8, 9]);
    }

    #[test]
    fn windows_cover_every_token_but_the_first_once() {
        for tokens in 2..40 {
            for context in 1..9 {
                let rows = Rows::windows(tokens, context);
                let covered: Vec<u64> = (0..rows.len()).flat_map(|row| rows.targets(row)).collect();
                assert_eq!(covered, (1..tokens).collect::<Vec<_>>());
                assert_eq!(rows.predicted(), tokens - 1);
                let full = Rows::full_windows(tokens, context);
                assert!((0..full.len()).all(|row| full.targets(row).count() == context));
                assert_eq!(full.len(), (tokens - 1) / context as u64);
            }
        }
    }

    #[test]
    fn inputs_stand_one_before_their_targets() {
        let tokens = Tokens::Memory(vec![1, 2, 3, 9, 4, 5, 9]);
        let mut batch = Batch { context: 5, ..Batch::default() };
        push_row(&mut batch, &tokens, 0..4, Some(9)).unwrap();
        push_row(&mut batch, &tokens, 4..7, Some(9)).unwrap();
        push_row(&mut batch, &tokens, 1..6, Some(9)).unwrap();
        assert_eq!(batch.inputs, [9, 1, 2, 3, 9, 9, 4, 5, 9, 9, 1, 2, 3, 9, 4]);
        assert_eq!(batch.targets, [1, 2, 3, 9, IGNORED, 4, 5, 9, IGNORED, IGNORED, 2, 3, 9, 4, 5]);
    }
}

//! Rows of token ids to learn from, and all rows to be scored on.

use minillm_model::tokenizer::Tokenizer;

use super::Shape;
use super::batch::Batch;
use super::config::Order;
use super::random::{Permutation, crop};
use super::rows::{Rows, Tokens, push_row};
use super::tale_stream;
use super::token_file::{Counts, TokenFile};
use crate::error::Result;

/// What the model learns from: a batch for every step, a pure function of (seed, step).
#[derive(Debug)]
pub struct TrainingData {
    shape: Shape,
    end_of_text: Option<u32>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Crops at random places.
    Random(Tokens),
    /// Rows in a new order every epoch: windows or packed documents.
    Epochs(Tokens, Rows),
    /// Generated as they are needed.
    Tales(Box<Tokenizer>),
}

impl TrainingData {
    /// From a file with at least one row of text.
    pub(super) fn new(file: TokenFile, end_of_text: Option<u32>, order: Order, shape: &Shape) -> Self {
        let rows = match order {
            Order::Random => None,
            Order::Shuffled => Some(Rows::full_windows(file.len(), shape.context)),
            Order::Documents => Some(Rows::packed(file.document_starts(), file.len(), shape.context)),
        };
        let tokens = Tokens::File(file);
        let kind = match rows {
            None => Kind::Random(tokens),
            Some(rows) => Kind::Epochs(tokens, rows),
        };
        Self { shape: shape.clone(), end_of_text, kind }
    }

    /// From tales without end, as `tokenizer` sees them.
    pub(super) fn tales(tokenizer: Tokenizer, shape: &Shape) -> Self {
        let end_of_text = tokenizer.end_of_text();
        Self { shape: shape.clone(), end_of_text, kind: Kind::Tales(Box::new(tokenizer)) }
    }

    /// The `batch_size` rows of step `step`, counted from 0.
    ///
    /// Fails if the token file is damaged, and for tales if the tokenizer (made for another text) has no token for a
    /// character of theirs.
    pub fn batch(&self, step: usize) -> Result<Batch> {
        let Shape { context, batch_size, seed } = self.shape;
        let mut batch = Batch::with_capacity(batch_size, context);
        for row in 0..batch_size as u64 {
            // Rows are numbered through all steps, so the end of an epoch may fall within a batch.
            let number = step as u64 * batch_size as u64 + row;
            match &self.kind {
                Kind::Random(tokens) => {
                    let first = 1 + crop(seed, step as u64, row, tokens.len() - context as u64);
                    push_row(&mut batch, tokens, first..first + context as u64, self.end_of_text)?;
                }
                Kind::Epochs(tokens, rows) => {
                    let (epoch, place) = (number / rows.len(), number % rows.len());
                    let row = Permutation::new(seed, epoch, rows.len()).at(place);
                    push_row(&mut batch, tokens, rows.targets(row), self.end_of_text)?;
                }
                Kind::Tales(tokenizer) => {
                    let (ids, targets) = tale_stream::training_row(tokenizer, seed, number, context)?;
                    push_row(&mut batch, &Tokens::Memory(ids), targets, self.end_of_text)?;
                }
            }
        }
        Ok(batch)
    }

    /// Tokens in the training text; `None` if it has no end.
    pub fn tokens(&self) -> Option<u64> {
        match &self.kind {
            Kind::Random(tokens) | Kind::Epochs(tokens, _) => Some(tokens.len()),
            Kind::Tales(_) => None,
        }
    }
}

/// What the model is scored on, always the same rows.
///
/// A single document is cut into windows side by side, in which every token but the first is predicted once. Several
/// documents, and tales, are packed whole, so that each is predicted from its first token. Neither depends on
/// `data.order`: runs that only differ in it are scored alike.
#[derive(Debug)]
pub struct ValidationData {
    tokens: Tokens,
    rows: Rows,
    context: usize,
    end_of_text: Option<u32>,
    bytes: u64,
    floor_nats: Option<f64>,
}

impl ValidationData {
    /// From a file with at least one row of text.
    pub(super) fn new(file: TokenFile, end_of_text: Option<u32>, context: usize) -> Self {
        let counts = file.counts;
        let (rows, bytes) = if Self::is_packed(&counts, end_of_text) {
            (Rows::packed(file.document_starts(), file.len(), context), counts.text_bytes)
        } else {
            let unscored = u64::from(counts.first_token_bytes);
            (Rows::windows(file.len(), context), counts.text_bytes.saturating_sub(unscored))
        };
        Self { tokens: Tokens::File(file), rows, context, end_of_text, bytes, floor_nats: None }
    }

    /// Whether documents are scored one by one, from their first tokens.
    pub(super) fn is_packed(counts: &Counts, end_of_text: Option<u32>) -> bool {
        counts.text_documents > 1 && end_of_text.is_some()
    }

    /// The validation tales, as `tokenizer` sees them.
    pub(super) fn tales(tokenizer: &Tokenizer, context: usize) -> Result<Self> {
        let tales = tale_stream::validation(tokenizer)?;
        let rows = Rows::packed(tales.starts.into_iter(), tales.ids.len() as u64, context);
        Ok(Self {
            tokens: Tokens::Memory(tales.ids),
            rows,
            context,
            end_of_text: tokenizer.end_of_text(),
            bytes: tales.bytes,
            floor_nats: Some(tales.nats),
        })
    }

    /// Everything there is to score, `rows` rows at a time; the last batch may have fewer. Fails if the token file is damaged.
    pub fn batches(&self, rows: usize) -> impl Iterator<Item = Result<Batch>> {
        let rows = rows.max(1) as u64;
        (0..self.rows.len().div_ceil(rows)).map(move |index| {
            let mut batch = Batch::with_capacity(rows as usize, self.context);
            for row in index * rows..((index + 1) * rows).min(self.rows.len()) {
                push_row(&mut batch, &self.tokens, self.rows.targets(row), self.end_of_text)?;
            }
            Ok(batch)
        })
    }

    /// Tokens that are predicted, ends of text included.
    pub fn scored_tokens(&self) -> u64 {
        self.rows.predicted()
    }

    /// UTF-8 bytes of the text that those tokens stand for; an end of text stands for none.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Summed nats that no model can go below on average, where they are known: those of all validation tales.
    pub fn floor_nats(&self) -> Option<f64> {
        self.floor_nats
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::batch::IGNORED;
    use super::super::split::Part;
    use super::super::token_file::{Identity, TokenFileWriter};
    use super::*;

    const END: u32 = 99;

    /// A file of the given documents, each with its length as text; with several, [`END`] follows each.
    fn file(dir: &std::path::Path, documents: &[Vec<u32>]) -> TokenFile {
        let identity = Identity { text: [0; 32], tokenizer: [0; 32], validation_fraction: 0.1, part: Part::Training };
        let mut writer = TokenFileWriter::create(dir, identity, 1000, documents.len() as u64).unwrap();
        for document in documents {
            writer.push(document, 10 * document.len()).unwrap();
            writer.end_document((documents.len() > 1).then_some(END)).unwrap();
        }
        writer.set_first_token_bytes(10);
        writer.publish(dir).unwrap()
    }

    fn training(dir: &std::path::Path, documents: &[Vec<u32>], order: Order, shape: &Shape) -> TrainingData {
        TrainingData::new(file(dir, documents), Some(END), order, shape)
    }

    #[test]
    fn random_crops_are_places_of_the_text_and_depend_on_the_step_alone() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape { context: 4, batch_size: 50, seed: 1 };
        let data = training(dir.path(), &[(200..220).collect()], Order::Random, &shape);
        assert_eq!(data.tokens(), Some(20));
        let mut starts = BTreeSet::new();
        for step in [3, 0, 7, 3] {
            let batch = data.batch(step).unwrap();
            assert_eq!((batch.rows, batch.predicted()), (50, 200));
            for (inputs, targets) in batch.inputs.chunks(4).zip(batch.targets.chunks(4)) {
                starts.insert(inputs[0]);
                assert!((0..4).all(|i| inputs[i] == inputs[0] + i as i32 && targets[i] == inputs[i] + 1));
            }
        }
        assert_eq!(starts, (200..216).collect(), "every start, and none too late");
        assert_eq!(data.batch(3).unwrap(), data.batch(3).unwrap());
        assert_ne!(data.batch(3).unwrap(), data.batch(4).unwrap());
        let other = training(dir.path(), &[(200..220).collect()], Order::Random, &Shape { seed: 2, ..shape });
        assert_ne!(data.batch(3).unwrap(), other.batch(3).unwrap());
    }

    /// The rows of the first `steps` steps.
    fn rows(data: &TrainingData, steps: usize) -> Vec<Vec<i32>> {
        let batches = (0..steps).map(|step| data.batch(step).unwrap());
        batches.flat_map(|batch| batch.inputs.chunks(batch.context).map(<[i32]>::to_vec).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn an_epoch_has_each_window_once_and_may_end_within_a_batch() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape { context: 4, batch_size: 3, seed: 1 };
        let data = training(dir.path(), &[(200..231).collect()], Order::Shuffled, &shape);
        // 31 tokens are 7 windows of 4 and a target; 2 tokens are left over. 7 batches are 3 epochs.
        let rows = rows(&data, 7);
        let starts = |epoch: usize| rows[7 * epoch..7 * (epoch + 1)].iter().map(|row| row[0]).collect::<Vec<_>>();
        let sorted = |epoch| BTreeSet::from_iter(starts(epoch)).into_iter().collect::<Vec<_>>();
        let expected: Vec<i32> = (0..7).map(|window| 200 + 4 * window).collect();
        assert!((0..3).all(|epoch| sorted(epoch) == expected));
        assert!(starts(0) != starts(1) && starts(1) != starts(2));
    }

    #[test]
    fn documents_start_rows_and_are_never_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape { context: 6, batch_size: 2, seed: 1 };
        let documents = [vec![1, 2, 3], vec![4], vec![5, 6], (10..24).collect()];
        let data = training(dir.path(), &documents, Order::Documents, &shape);
        let mut rows = rows(&data, 5);
        assert_ne!(rows[..5], rows[5..], "two epochs");
        rows.truncate(5);
        rows.sort_unstable();
        let end = END as i32;
        let expected = [
            vec![15, 16, 17, 18, 19, 20],
            vec![21, 22, 23, end, end, end],
            vec![end, 1, 2, 3, end, 4],
            vec![end, 5, 6, end, end, end],
            vec![end, 10, 11, 12, 13, 14],
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn validation_scores_one_document_in_windows_and_several_from_their_first_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let score = |documents: &[Vec<u32>], rows| {
            let data = ValidationData::new(file(dir.path(), documents), Some(END), 4);
            let batches: Vec<Batch> = data.batches(rows).map(Result::unwrap).collect();
            assert!(batches.iter().all(|batch| batch.inputs.len() == batch.rows * 4 && batch.rows <= rows));
            let targets = batches.iter().flat_map(|batch| batch.targets.clone()).filter(|&target| target != IGNORED);
            let targets: Vec<i32> = targets.collect();
            assert_eq!(targets.len() as u64, data.scored_tokens());
            assert_eq!(data.floor_nats(), None);
            (targets, data.bytes(), batches.len())
        };
        assert_eq!(score(&[(1..12).collect()], 2), ((2..12).collect(), 100, 2));
        assert_eq!(score(&[(1..12).collect()], 1), ((2..12).collect(), 100, 3));
        let end = END as i32;
        assert_eq!(score(&[vec![1, 2], vec![3]], 8), (vec![1, 2, end, 3, end], 30, 1));
    }
}

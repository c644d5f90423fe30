//! A conversation as tokens, in the rows of a batch.

use sha2::{Digest, Sha256};

use crate::data::{Batch, IGNORED};

/// The tokens of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// Ids.
    pub ids: Vec<u32>,
    /// Which of them are learned.
    pub is_trained: Vec<bool>,
}

impl Example {
    /// Places in a row: every token but the last is an input, every token but the first a target.
    pub fn places(&self) -> usize {
        self.ids.len().saturating_sub(1)
    }

    /// Targets that are learned. The first token is nobody's.
    pub fn targets(&self) -> usize {
        self.is_trained.iter().skip(1).filter(|is_trained| **is_trained).count()
    }

    /// Adds all that makes it up to a fingerprint.
    pub fn add_to(&self, hash: &mut Sha256) {
        hash.update((self.ids.len() as u64).to_le_bytes());
        self.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        self.is_trained.iter().for_each(|&is_trained| hash.update([u8::from(is_trained)]));
    }

    /// The tokens before the first that is learned, at least one: what a model is given to go on from.
    pub fn given(&self) -> &[u32] {
        let given = self.is_trained.iter().position(|is_trained| *is_trained).unwrap_or(0);
        &self.ids[..given.max(1)]
    }

    /// The ids of those targets.
    pub fn target_ids(&self) -> impl Iterator<Item = u32> {
        self.ids.iter().zip(&self.is_trained).skip(1).filter(|(_, is_trained)| **is_trained).map(|(id, _)| *id)
    }
}

/// Of `count` examples every n-th is held out, with this: at least one and never all.
pub fn held_out_every(fraction: f64, count: usize) -> usize {
    ((1.0 / fraction).round() as usize).clamp(2, count.max(2))
}

/// What a set of conversations is like, before the first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Those that are learned from.
    pub conversations: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Tokens that are targets.
    pub targets: usize,
    /// Cut at the end because they are longer than a row.
    pub cut: usize,
    /// Of those, the ones whose last learned token was cut off: the model does not see them end.
    pub without_end: usize,
    /// Left out: what remained had nothing to learn.
    pub left_out: usize,
}

impl Summary {
    /// Cuts `example` to a row of `context` and counts it. `None` if nothing to learn remains.
    pub fn admit(&mut self, mut example: Example, context: usize) -> Option<Example> {
        if example.places() > context {
            let last = example.is_trained.iter().rposition(|is_trained| *is_trained);
            self.cut += 1;
            self.without_end += usize::from(last.is_some_and(|last| last > context));
            example.ids.truncate(context + 1);
            example.is_trained.truncate(context + 1);
        }
        if example.targets() == 0 {
            self.left_out += 1;
            return None;
        }
        self.conversations += 1;
        self.tokens += example.ids.len();
        self.targets += example.targets();
        Some(example)
    }
}

/// Appends a row of `examples`, which fit, side by side; none sees another. What is left of the row is padding.
pub fn push_row<'a>(batch: &mut Batch, examples: impl IntoIterator<Item = &'a Example>) {
    let first = batch.rows * batch.context;
    for example in examples {
        let start = (batch.inputs.len() - first) as u32;
        let targets = example.ids.iter().zip(&example.is_trained).skip(1);
        batch.inputs.extend(example.ids[..example.places()].iter().map(|&id| id as i32));
        batch.targets.extend(targets.map(|(&id, &is_trained)| if is_trained { id as i32 } else { IGNORED }));
        batch.starts.resize(batch.inputs.len(), start);
    }
    let padding = (batch.inputs.len() - first) as u32;
    batch.filled += padding as usize;
    batch.rows += 1;
    let end = batch.rows * batch.context;
    batch.inputs.resize(end, 0); // any token: nothing is predicted from it, and nothing that is looks at it
    batch.targets.resize(end, IGNORED);
    batch.starts.resize(end, padding);
}

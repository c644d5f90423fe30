//! The tales that a run trains on, is scored on, and takes its tokenizer from.

use std::collections::BTreeSet;
use std::ops::Range;

use minillm_model::random;
use minillm_model::tokenizer::Tokenizer;
use rand::Rng;
use sha2::{Digest, Sha256};

use super::config::{TokenizerConfig, invalid};
use super::tokenize::read_tokenizer;
use crate::error::Result;
use crate::tales::{Story, story};

/// Tales that every run is scored on.
const VALIDATION_TALES: usize = 400;
/// Tales that a tokenizer is trained on.
const TOKENIZER_TALES: usize = 20_000;
/// Numbers set aside for the tales of one training row; no row needs nearly as many.
const TALES_PER_ROW: u64 = 1 << 20;

/// The validation tales as one stream of tokens, each followed by end-of-text.
pub struct ValidationTales {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The token at which each tale starts.
    pub starts: Vec<u64>,
    /// UTF-8 bytes of their text.
    pub bytes: u64,
    /// Minus the logarithm of their probability, summed.
    pub nats: f64,
}

/// The tokenizer for tales: the same for every seed, so that losses compare.
pub fn tokenizer(config: &TokenizerConfig) -> Result<Tokenizer> {
    let texts = || fixed("tokenizer tales", TOKENIZER_TALES).map(|story| story.text);
    let tokenizer = match config {
        TokenizerConfig::Char => {
            let alphabet: BTreeSet<char> = texts().flat_map(|text| text.chars().collect::<BTreeSet<_>>()).collect();
            Tokenizer::char_level(&alphabet, true)?
        }
        TokenizerConfig::Bpe { vocab_size } => Tokenizer::train_bpe(*vocab_size, texts())?,
        TokenizerConfig::File { path } => read_tokenizer(path)?,
    };
    if tokenizer.end_of_text().is_none() {
        return Err(invalid(
            "tokenizer.path",
            "is a tokenizer without `<|endoftext|>`, which stands between tales".into(),
            "use `tokenizer.kind = \"bpe\"`",
        ));
    }
    Ok(tokenizer)
}

/// Tokenizes the validation tales.
pub fn validation(tokenizer: &Tokenizer) -> Result<ValidationTales> {
    let mut tales = ValidationTales { ids: Vec::new(), starts: Vec::new(), bytes: 0, nats: 0.0 };
    for story in fixed("validation tales", VALIDATION_TALES) {
        tales.starts.push(tales.ids.len() as u64);
        tales.ids.extend(tokenizer.encode(&story.text)?);
        tales.ids.extend(tokenizer.end_of_text());
        tales.bytes += story.text.len() as u64;
        tales.nats += story.nats;
    }
    Ok(tales)
}

/// Tales with end-of-text behind each, and which of their tokens training row `row`, counted through all steps, predicts.
///
/// A row begins with a tale. The last tale is cut where the row ends: leaving it out if it does not fit would leave out
/// the long ones more often than the short ones, and the model would learn other probabilities than those it is scored
/// by. A tale longer than a whole row has rows of its own, as in validation, and `row` is one of those, by its number.
pub fn training_row(tokenizer: &Tokenizer, seed: u64, row: u64, context: usize) -> Result<(Vec<u32>, Range<u64>)> {
    let stream = random::stream(seed, "training tales").next_u64();
    let tale = |index| -> Result<Vec<u32>> {
        let mut ids = tokenizer.encode(&story(stream, index).text)?;
        ids.extend(tokenizer.end_of_text());
        Ok(ids)
    };
    let mut index = row * TALES_PER_ROW;
    let mut ids = tale(index)?;
    let own_rows = ids.len().div_ceil(context) as u64;
    let first = row % own_rows * context as u64;
    let targets = first..first + context as u64;
    while (ids.len() as u64) < targets.end {
        index += 1;
        ids.extend(tale(index)?);
    }
    Ok((ids, targets))
}

/// SHA-256 of the validation tales' text: changes when their grammar does.
pub fn fingerprint() -> [u8; 32] {
    let mut hash = Sha256::new();
    for story in fixed("validation tales", VALIDATION_TALES) {
        hash.update(story.text);
        hash.update([0]);
    }
    hash.finalize().into()
}

/// The first tales of a purpose; they do not depend on a run's seed.
fn fixed(purpose: &str, count: usize) -> impl Iterator<Item = Story> + Send + use<> {
    let stream = random::stream(0, purpose).next_u64();
    (0..count as u64).map(move |index| story(stream, index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Batch, IGNORED, Shape, TrainingData, ValidationData};

    fn tokenizer_of_tales() -> Tokenizer {
        tokenizer(&TokenizerConfig::Char).unwrap()
    }

    #[test]
    fn training_rows_are_full_begin_with_a_tale_and_differ() {
        let tokenizer = tokenizer_of_tales();
        let shape = Shape { context: 900, batch_size: 4, seed: 1 };
        let data = TrainingData::tales(tokenizer.clone(), &shape);
        assert_eq!(data.tokens(), None);
        let batch = data.batch(2).unwrap();
        assert_eq!(batch, data.batch(2).unwrap());
        assert_eq!(batch.predicted(), 4 * 900);
        let end = tokenizer.end_of_text().unwrap() as i32;
        let rows: BTreeSet<&[i32]> = batch.inputs.chunks(900).collect();
        assert!(rows.len() == 4 && rows.iter().all(|row| row[0] == end));
        assert!((0..899).all(|i| batch.targets[i] == batch.inputs[i + 1]));
        let other = TrainingData::tales(tokenizer, &Shape { seed: 2, ..shape });
        assert_ne!(batch, other.batch(2).unwrap());
        assert_ne!(batch, data.batch(3).unwrap());
    }

    #[test]
    fn a_tale_longer_than_the_context_has_rows_of_its_own() {
        let tokenizer = tokenizer_of_tales();
        let context = 64;
        let shape = Shape { context, batch_size: 200, seed: 1 };
        let batch = TrainingData::tales(tokenizer.clone(), &shape).batch(0).unwrap();
        let end = tokenizer.end_of_text().unwrap() as i32;
        let stream = random::stream(1, "training tales").next_u64();
        let mut seen = [0; 4]; // rows from a tale's beginning, middle and end, and with more than one tale
        for (row, (inputs, targets)) in batch.inputs.chunks(context).zip(batch.targets.chunks(context)).enumerate() {
            let first = row as u64 * TALES_PER_ROW;
            let two = [0, 1].map(|next| tokenizer.encode(&story(stream, first + next).text).unwrap());
            let text: Vec<i32> = [&[][..], &two[0], &two[1]].join(&(end as u32)).iter().map(|&id| id as i32).collect();
            let place = text.windows(context + 1).position(|ids| ids[..context] == *inputs && ids[1..] == *targets);
            let place = place.unwrap_or_else(|| panic!("row {row} is not part of its tale"));
            assert_eq!(place % context, 0);
            let last = two[0].len() / context * context;
            seen[if place == 0 { 0 } else { 1 + usize::from(place == last) }] += 1;
            seen[3] += usize::from(place + context > two[0].len());
        }
        // A tale has about ten rows.
        assert!(seen[0] > 10 && seen[1] > 100 && seen[2] > 10 && seen[3] == seen[2], "{seen:?}");
    }

    #[test]
    fn validation_scores_every_tale_from_its_first_token() {
        let tokenizer = tokenizer_of_tales();
        let tales: Vec<Story> = fixed("validation tales", VALIDATION_TALES).collect();
        let data = ValidationData::tales(&tokenizer, 10_000).unwrap();
        let batches: Vec<Batch> = data.batches(8).map(Result::unwrap).collect();
        let ids = |ids: &[i32]| ids.iter().filter(|&&id| id != IGNORED).map(|&id| id as u32).collect::<Vec<_>>();
        let targets: Vec<u32> = batches.iter().flat_map(|batch| ids(&batch.targets)).collect();
        let end = tokenizer.end_of_text().unwrap();
        let scored: Vec<&[u32]> = targets.split(|&id| id == end).collect();
        assert_eq!(scored.len(), VALIDATION_TALES + 1, "each tale ends with end-of-text");
        assert!(tales.iter().zip(&scored).all(|(tale, ids)| tokenizer.encode(&tale.text).unwrap() == *ids));
        assert_eq!(data.scored_tokens(), targets.len() as u64);
        assert_eq!(data.bytes(), tales.iter().map(|tale| tale.text.len() as u64).sum::<u64>());
        let nats: f64 = tales.iter().map(|tale| tale.nats).sum();
        assert_eq!(data.floor_nats(), Some(nats));
    }
}

//! From text to batches of token ids.
//!
//! ```text
//! tales ─────────────────────────────────────┐
//! url ── download ─┐                         ├── batches (rows, random)
//! files ───────────┴ source ── documents ── split ── tokenize ── token_file
//! ```
//!
//! The documents are read by [`minillm_infer::text_files`], as `score` reads them.
//!
//! [`prepare`] does all of it before the first step; what it makes is stored in a cache and is found again by the
//! fingerprints of text and tokenizer. Memory does not grow with the text: it is read in chunks of a megabyte, and
//! tokens are mapped from disk. After that, [`TrainingData::batch`] is a pure function of (seed, step).

mod batch;
mod batches;
mod config;
mod download;
mod random;
mod rows;
mod source;
mod split;
mod tale_stream;
#[doc(hidden)] // for the tests and fuzzers of untrusted files
pub mod token_file;
mod tokenize;

use std::path::Path;

use minillm_infer::text_files::{Cuts, Documents};
use minillm_model::tokenizer::Tokenizer;
use sha2::{Digest, Sha256};

pub use batch::{Batch, IGNORED};
pub use batches::{TrainingData, ValidationData};
pub use config::{DataConfig, Order, Source, TokenizerConfig};
pub use minillm_infer::text_files::{Progress, Silent};

use crate::error::{Error, Result};
use config::invalid;
pub(crate) use random::rows_of_step;
use source::Text;
pub(crate) use source::hex;
use split::CorpusStats;
#[doc(hidden)]
pub use split::Part;
use token_file::TokenFile;
pub(crate) use tokenize::read_tokenizer;
use tokenize::{Preparation, train_bpe};

/// What is fixed about the run that the data needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens in a row.
    pub context: usize,
    /// Rows in a training batch.
    pub batch_size: usize,
    /// The run's seed.
    pub seed: u64,
}

/// Everything training reads.
#[derive(Debug)]
pub struct Corpus {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// The text to learn from.
    pub train: TrainingData,
    /// The text to be scored on.
    pub validation: ValidationData,
    /// SHA-256 of text, tokenizer and split, in hexadecimal: a run may only be resumed on the same.
    pub fingerprint: String,
}

/// Shows `work` as in progress, also if it fails.
fn watch<T>(progress: &dyn Progress, what: &str, total: u64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    progress.start(what, total);
    let result = work();
    progress.finish();
    result
}

/// Finds or downloads the text, makes its tokenizer and tokens or finds them in `cache_dir`, and sets up the batches.
///
/// Writes nothing outside `cache_dir`. Errors name the file or field: text that is missing, empty, not UTF-8 or shorter
/// than one row; a download that failed or brought another file; a tokenizer that does not fit the text or the order.
pub fn prepare(
    data: &DataConfig,
    tokenizer: &TokenizerConfig,
    shape: &Shape,
    cache_dir: &Path,
    progress: &dyn Progress,
) -> Result<Corpus> {
    data.validate()?;
    tokenizer.validate()?;
    for (field, value) in [("train.context", shape.context), ("train.batch_size", shape.batch_size)] {
        if value == 0 {
            return Err(invalid(field, "is 0".into(), "set it to 1 or more"));
        }
    }
    if data.is_tales() {
        prepare_tales(tokenizer, shape)
    } else {
        prepare_text(data, tokenizer, shape, cache_dir, progress)
    }
}

/// Makes a tokenizer as [`prepare`] does, but from all of the text, with nothing held out, and without a cache.
/// A `url` is refused, as there is no place to keep it.
pub fn train_tokenizer(data: &DataConfig, tokenizer: &TokenizerConfig, progress: &dyn Progress) -> Result<Tokenizer> {
    data.validate()?;
    tokenizer.validate()?;
    if data.is_tales() {
        return tale_stream::tokenizer(tokenizer);
    }
    if data.files.is_empty() {
        return Err(invalid("data.url", "cannot be used here".into(), "download the file and name it in `data.files`"));
    }
    let text = Text::new(&data.files, progress)?;
    match tokenizer {
        TokenizerConfig::Bpe { vocab_size } => {
            let chunks =
                Documents::new(&text.files, Cuts::BetweenWords, progress).map(|chunk| chunk.map_err(Error::from));
            train_bpe(&text, chunks, *vocab_size, progress)
        }
        TokenizerConfig::Char => {
            let stats = CorpusStats::new(&text, progress)?;
            Ok(Tokenizer::char_level(&stats.alphabet, stats.documents > 1)?)
        }
        TokenizerConfig::File { path } => read_tokenizer(path),
    }
}

fn prepare_tales(config: &TokenizerConfig, shape: &Shape) -> Result<Corpus> {
    let tokenizer = tale_stream::tokenizer(config)?;
    Ok(Corpus {
        train: TrainingData::tales(tokenizer.clone(), shape),
        validation: ValidationData::tales(&tokenizer, shape.context)?,
        fingerprint: fingerprint(&tale_stream::fingerprint(), &tokenizer, 0.0),
        tokenizer,
    })
}

fn prepare_text(
    data: &DataConfig,
    config: &TokenizerConfig,
    shape: &Shape,
    cache_dir: &Path,
    progress: &dyn Progress,
) -> Result<Corpus> {
    let text = match &data.url {
        Some(url) if data.files.is_empty() => download::text(url, data.sha256.as_deref(), cache_dir, progress)?,
        _ => Text::new(&data.files, progress)?,
    };
    let mut preparation = Preparation::new(&text, data.validation_fraction, cache_dir, progress);
    let tokenizer = preparation.tokenizer(config)?;
    let (training, validation) = preparation.token_files(&tokenizer)?;
    let end_of_text = tokenizer.end_of_text();
    check_tokenizer(&text, data, &tokenizer)?;

    // A crop or window needs a token before its first target; a packed row needs only something in it.
    let window = shape.context as u64 + 1;
    let needed = if data.order() == Order::Documents { 1 } else { window };
    check_length(&text, Part::Training, &training, needed, shape)?;
    let needed = if ValidationData::is_packed(&validation.counts, end_of_text) { 1 } else { window };
    check_length(&text, Part::Validation, &validation, needed, shape)?;

    Ok(Corpus {
        train: TrainingData::new(training, end_of_text, data.order(), shape),
        validation: ValidationData::new(validation, end_of_text, shape.context),
        fingerprint: fingerprint(&text.fingerprint(), &tokenizer, data.validation_fraction),
        tokenizer,
    })
}

fn check_tokenizer(text: &Text, data: &DataConfig, tokenizer: &Tokenizer) -> Result<()> {
    if tokenizer.vocab_size() < 2 {
        return Err(Error::Data {
            path: text.path().to_path_buf(),
            problem: format!("makes a vocabulary of {}, which leaves nothing to predict", tokenizer.vocab_size()),
            hint: "give a text with at least two different characters".into(),
        });
    }
    if data.order() == Order::Documents && tokenizer.end_of_text().is_none() {
        return Err(invalid(
            "data.order",
            "is `documents`, but the tokenizer has no `<|endoftext|>` to stand before a document".into(),
            "use `random` or `shuffled`, or `tokenizer.kind = \"bpe\"` (`char` has it for texts of several documents)",
        ));
    }
    Ok(())
}

fn check_length(text: &Text, part: Part, file: &TokenFile, needed: u64, shape: &Shape) -> Result<()> {
    if file.len() >= needed {
        return Ok(());
    }
    Err(Error::Data {
        path: text.path().to_path_buf(),
        problem: format!(
            "the {} part has {} tokens, and one row of `train.context = {}` needs {needed}",
            part.name(),
            file.len(),
            shape.context
        ),
        hint: "give more text, lower `train.context`, or change `data.validation_fraction`".into(),
    })
}

/// SHA-256 of all that decides which token ids there are.
fn fingerprint(text: &[u8; 32], tokenizer: &Tokenizer, validation_fraction: f64) -> String {
    let mut hash = Sha256::new();
    hash.update(text);
    hash.update(tokenizer.fingerprint());
    hash.update(validation_fraction.to_le_bytes());
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const SHAPE: Shape = Shape { context: 8, batch_size: 2, seed: 1 };

    /// Remembers what was started.
    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Progress for Log {
        fn start(&self, what: &str, _total: u64) {
            self.0.lock().unwrap().push(what.into());
        }
        fn advance(&self, _n: u64) {}
        fn finish(&self) {}
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn with(content: &str) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs_err::write(place.0.path().join("text.txt"), content).unwrap();
            place
        }

        fn config(&self) -> DataConfig {
            DataConfig { files: vec![self.0.path().join("text.txt")], ..DataConfig::default() }
        }

        fn prepare(&self, data: &DataConfig, shape: &Shape) -> Result<(Corpus, Vec<String>)> {
            let log = Log::default();
            let corpus = prepare(data, &TokenizerConfig::Char, shape, &self.0.path().join("cache"), &log)?;
            Ok((corpus, log.0.into_inner().unwrap()))
        }
    }

    fn text_of(corpus: &Corpus) -> String {
        let ids: Vec<u32> = (corpus.validation.batches(4))
            .flat_map(|batch| {
                batch.unwrap().targets.into_iter().filter(|&id| id != IGNORED).map(|id| id as u32).collect::<Vec<_>>()
            })
            .collect();
        corpus.tokenizer.decode(&ids)
    }

    #[test]
    fn a_text_becomes_batches_and_the_second_time_comes_from_the_cache() {
        let text = "Ein Text mit Ümläuten, 100 Zeichen. ".repeat(10);
        let place = Place::with(&text);
        let tokens = place.0.path().join("cache").join("tokens");
        fs_err::create_dir_all(&tokens).unwrap();
        fs_err::write(tokens.join("left-by-a-killed-process.part"), "").unwrap();
        let (corpus, did) = place.prepare(&place.config(), &SHAPE).unwrap();
        assert_eq!(did, ["checking the text", "reading the text", "tokenizing the text"]);
        let names = fs_err::read_dir(tokens).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| !name.ends_with(".tokens")).collect::<Vec<_>>(), [".lock"]);
        assert_eq!(corpus.train.tokens(), Some(324));
        assert_eq!(corpus.validation.scored_tokens(), 35);
        let tail: String = text.chars().skip(325).collect();
        assert_eq!(text_of(&corpus), tail);
        assert_eq!(corpus.validation.bytes(), tail.len() as u64);

        let (again, did) = place.prepare(&place.config(), &SHAPE).unwrap();
        assert_eq!(did, ["checking the text"]);
        assert_eq!(again.fingerprint, corpus.fingerprint);
        assert_eq!(again.train.batch(5).unwrap(), corpus.train.batch(5).unwrap());

        fs_err::write(&place.config().files[0], text + "more").unwrap();
        let (changed, did) = place.prepare(&place.config(), &SHAPE).unwrap();
        assert_eq!(did.len(), 3);
        assert_ne!(changed.fingerprint, corpus.fingerprint);
        let data = DataConfig { validation_fraction: 0.2, ..place.config() };
        assert_ne!(place.prepare(&data, &SHAPE).unwrap().0.fingerprint, changed.fingerprint);
    }

    #[test]
    fn a_broken_cache_is_made_again() {
        let place = Place::with(&"abc def ".repeat(50));
        let (corpus, _) = place.prepare(&place.config(), &SHAPE).unwrap();
        let expected = corpus.train.batch(0).unwrap();
        drop(corpus); // Windows does not let a mapped file be written
        for folder in ["tokens", "tokenizers"] {
            for entry in fs_err::read_dir(place.0.path().join("cache").join(folder)).unwrap() {
                fs_err::write(entry.unwrap().path(), "broken").unwrap();
            }
            let (corpus, did) = place.prepare(&place.config(), &SHAPE).unwrap();
            assert!(did.contains(&"reading the text".to_owned()), "{folder}: {did:?}");
            assert_eq!(corpus.train.batch(0).unwrap(), expected);
        }
    }

    #[test]
    fn several_documents_end_with_end_of_text_and_every_nth_is_held_out() {
        let tales: Vec<_> = (0..20).map(|i| format!("tale {i}\n<|endoftext|>\n")).collect();
        let place = Place::with(&tales.concat());
        let data = DataConfig { order: Some(Order::Documents), validation_fraction: 0.25, ..place.config() };
        let (corpus, _) = place.prepare(&data, &SHAPE).unwrap();
        let end = corpus.tokenizer.end_of_text().unwrap() as i32;
        assert!(corpus.train.batch(3).unwrap().inputs.chunks(8).all(|row| row[0] == end));
        let ends =
            corpus.validation.batches(1).flat_map(|batch| batch.unwrap().targets).filter(|&id| id == end).count();
        assert_eq!(ends, 5);
        assert_eq!(corpus.validation.bytes(), "tale 3tale 7tale 11tale 15tale 19".len() as u64);
        assert_eq!(corpus.validation.scored_tokens(), corpus.validation.bytes() + 5);
    }

    #[test]
    fn what_cannot_work_is_said_with_the_numbers() {
        let refusal = |content: &str, change: fn(&mut DataConfig), context| {
            let place = Place::with(content);
            let mut data = place.config();
            change(&mut data);
            let error = place.prepare(&data, &Shape { context, ..SHAPE }).unwrap_err();
            assert!(error.hint().is_some(), "{error}");
            error.to_string()
        };
        let text = "0123456789".repeat(10);
        let short = refusal(&text, |_| {}, 90);
        assert!(short.contains("text.txt") && short.contains("training part has 90 tokens"), "{short}");
        assert!(short.contains("train.context = 90") && short.contains("needs 91"), "{short}");
        assert!(refusal(&text, |_| {}, 10).contains("validation part has 10 tokens"));
        assert!(refusal("", |_| {}, 8).contains("holds no text"));
        assert!(refusal("aaaaaaaaaa", |_| {}, 2).contains("vocabulary of 1"));
        assert!(refusal("ab", |_| {}, 8).contains("training part has 1 tokens"));
        assert!(refusal(&text, |data| data.order = Some(Order::Documents), 8).contains("data.order"));
        assert!(refusal(&text, |data| data.validation_fraction = 2.0, 8).contains("data.validation_fraction"));
        assert!(refusal(&text, |_| {}, 0).contains("train.context"));
    }

    #[test]
    fn tiny_shakespeare_is_split_as_by_nanogpt() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/tinyshakespeare/input.txt"));
        if !path.exists() {
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        let data = DataConfig { files: vec![path.to_path_buf()], ..DataConfig::default() };
        let shape = Shape { context: 64, batch_size: 12, seed: 1337 };
        let corpus = prepare(&data, &TokenizerConfig::Char, &shape, cache.path(), &Silent).unwrap();
        assert_eq!(corpus.tokenizer.vocab_size(), 65);
        assert_eq!(corpus.train.tokens(), Some(1_003_854));
        assert_eq!(corpus.validation.scored_tokens(), 111_539);
        assert_eq!(corpus.validation.bytes(), 111_539);
        assert_eq!(corpus.validation.batches(12).map(|batch| batch.unwrap().predicted()).sum::<usize>(), 111_539);
    }

    #[test]
    fn a_tokenizer_by_itself_sees_all_of_the_text() {
        let place = Place::with("all of it, to the last character: Z");
        let tokenizer = train_tokenizer(&place.config(), &TokenizerConfig::Bpe { vocab_size: 259 }, &Silent).unwrap();
        assert!(tokenizer.end_of_text().is_some());
        assert!(train_tokenizer(&place.config(), &TokenizerConfig::Char, &Silent).unwrap().encode("Z").is_ok());
        let place = Place::with(" \n");
        assert!(train_tokenizer(&place.config(), &TokenizerConfig::Bpe { vocab_size: 300 }, &Silent).is_err());
    }
}

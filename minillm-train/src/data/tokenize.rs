//! From text to a tokenizer and two token files (training, validation), each made once and kept in the cache.

use std::path::{Path, PathBuf};

use minillm_infer::text_files::{Cuts, TextChunk};
use minillm_model::checkpoint;
use minillm_model::tokenizer::Tokenizer;
use sha2::{Digest, Sha256};

use super::config::TokenizerConfig;
use super::source::{Text, hex};
use super::split::{CorpusStats, Part, Parts, Split, empty};
use super::token_file::{Identity, TokenFile, TokenFileWriter};
use super::{Progress, watch};
use crate::error::{Error, Result};
use crate::file_lock::FileLock;

/// Text tokenized at a time by one thread.
const BYTES_PER_THREAD: usize = 1 << 20;
/// A tokenizer needs some fifty megabytes for a megabyte of text, which bounds how many threads fit in a gigabyte.
const MAX_THREADS: usize = 4;

/// Makes, or finds in the cache, what training needs of one text.
pub struct Preparation<'a> {
    text: &'a Text,
    validation_fraction: f64,
    cache_dir: &'a Path,
    progress: &'a dyn Progress,
    /// Filled on first use: with a full cache the text is hashed but not read as text.
    stats: Option<CorpusStats>,
}

/// The tokenizer in a `tokenizer.json`, or of a model: a directory, a run, or a GGUF file.
pub fn read_tokenizer(path: &Path) -> Result<Tokenizer> {
    let has_ending = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if !(path.is_dir() || has_ending || checkpoint::locate::is_gguf(path)) {
        return Ok(checkpoint::read_tokenizer(path)?);
    }
    let (model, _) = checkpoint::locate::model_dir(path)?;
    let Some(tokenizer) = checkpoint::load_tokenizer(&model)? else {
        return Err(Error::Config {
            origin: "configuration".to_owned(),
            field: "tokenizer.path".to_owned(),
            problem: format!("is `{}`, a model without a tokenizer", path.display()),
            hint: "put the model's tokenizer.json there, or name another file".to_owned(),
        });
    };
    for warning in tokenizer.warnings() {
        tracing::warn!("{warning}");
    }
    if !tokenizer.follows_llama_cpp() {
        return Ok(tokenizer);
    }
    // A checkpoint keeps its tokenizer as tokenizer.json: the run sees the text as those will who read that file.
    if let Some(problem) = tokenizer.json_problem(true) {
        tracing::warn!("{problem}");
    }
    Ok(Tokenizer::from_json(&tokenizer.to_json())?)
}

impl<'a> Preparation<'a> {
    /// Reads nothing yet.
    pub fn new(text: &'a Text, validation_fraction: f64, cache_dir: &'a Path, progress: &'a dyn Progress) -> Self {
        Self { text, validation_fraction, cache_dir, progress, stats: None }
    }

    /// The tokenizer that the configuration asks for. One made from the text is kept as `tokenizers/*.json`.
    pub fn tokenizer(&mut self, config: &TokenizerConfig) -> Result<Tokenizer> {
        let recipe = match config {
            TokenizerConfig::File { path } => return read_tokenizer(path),
            TokenizerConfig::Char => "char 1".to_owned(),
            TokenizerConfig::Bpe { vocab_size } => format!("bpe 2 {vocab_size} {}", self.validation_fraction),
        };
        let path = self.cached_tokenizer(&recipe);
        if path.exists() {
            match Tokenizer::from_file(&path) {
                Ok(tokenizer) => return Ok(tokenizer),
                Err(error) => tracing::warn!("making `{}` again: {error}", path.display()),
            }
        }
        let tokenizer = if let TokenizerConfig::Bpe { vocab_size } = config {
            self.train_bpe(*vocab_size)?
        } else {
            // All characters of the text, the held-out ones too: there is no token for a character never seen.
            let stats = self.stats()?;
            Tokenizer::char_level(&stats.alphabet, stats.documents > 1)?
        };
        save(&tokenizer, &path)?;
        Ok(tokenizer)
    }

    /// The two parts of the text as tokens, from the cache if they are there and whole.
    pub fn token_files(&mut self, tokenizer: &Tokenizer) -> Result<(TokenFile, TokenFile)> {
        let dir = self.cache_dir.join("tokens");
        let identities = [Part::Training, Part::Validation].map(|part| Identity {
            text: self.text.fingerprint(),
            tokenizer: Sha256::digest(tokenizer.fingerprint()).into(),
            validation_fraction: self.validation_fraction,
            part,
        });
        let vocab_size = tokenizer.vocab_size();
        let opened = identities.map(|identity| TokenFile::open(&identity.path(&dir), &identity, vocab_size).ok());
        if let [Some(training), Some(validation)] = opened {
            return Ok((training, validation));
        }
        let _lock = lock(&dir)?;
        // While this process waited, another may have written them.
        if let [Some(training), Some(validation)] = identities.map(|identity| open_cached(&dir, &identity, vocab_size))
        {
            return Ok((training, validation));
        }
        let documents = self.stats()?.documents;
        let [training, validation] =
            identities.map(|identity| TokenFileWriter::create(&dir, identity, vocab_size, documents));
        let mut writers = Writers { tokenizer, training: training?, validation: validation? };
        let end_of_text = tokenizer.end_of_text().filter(|_| documents > 1);
        if documents > 1 && end_of_text.is_none() {
            tracing::warn!("the tokenizer has no `<|endoftext|>`: {documents} documents are joined without a mark");
        }
        watch(self.progress, "tokenizing the text", self.text.size_bytes(), || self.write(&mut writers, end_of_text))?;
        Ok((writers.training.publish(&dir)?, writers.validation.publish(&dir)?))
    }

    fn stats(&mut self) -> Result<&CorpusStats> {
        let stats = match self.stats.take() {
            Some(stats) => stats,
            None => CorpusStats::new(self.text, self.progress)?,
        };
        Ok(self.stats.insert(stats))
    }

    fn split(&mut self) -> Result<Split> {
        let fraction = self.validation_fraction;
        Ok(Split::new(self.stats()?, fraction))
    }

    /// Learns the merges from the training part alone, so that the held-out text stays unseen.
    fn train_bpe(&mut self, vocab_size: usize) -> Result<Tokenizer> {
        let parts = Parts::new(self.text, self.split()?, Cuts::BetweenWords, self.progress);
        let training = parts.filter_map(|item| match item {
            Ok((Part::Training, chunk)) => Some(Ok(chunk)),
            Ok((Part::Validation, _)) => None,
            Err(error) => Some(Err(error)),
        });
        train_bpe(self.text, training, vocab_size, self.progress)
    }

    /// Tokenizes the text in groups of chunks, a few threads side by side, and writes them in order.
    fn write(&mut self, writers: &mut Writers<'_>, end_of_text: Option<u32>) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let cuts = if writers.tokenizer.is_character_level() { Cuts::Anywhere } else { Cuts::BetweenWords };
        let mut chunks = Parts::new(self.text, self.split()?, cuts, self.progress);
        loop {
            let (mut group, mut bytes) = (Vec::new(), 0);
            while bytes < threads * BYTES_PER_THREAD
                && let Some(chunk) = chunks.next().transpose()?
            {
                bytes += chunk.1.text.len();
                group.push(chunk);
            }
            if group.is_empty() {
                return Ok(());
            }
            let tokens = encode(self.text, writers.tokenizer, &group, threads)?;
            for ((part, chunk), ids) in group.iter().zip(&tokens) {
                writers.write(*part, chunk, ids, end_of_text)?;
            }
        }
    }

    fn cached_tokenizer(&self, recipe: &str) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(self.text.fingerprint());
        hash.update(recipe);
        self.cache_dir.join("tokenizers").join(format!("{}.json", hex(&hash.finalize()[..16])))
    }
}

/// Trains a tokenizer on the `chunks` of a text.
pub fn train_bpe(
    text: &Text,
    chunks: impl Iterator<Item = Result<TextChunk>> + Send,
    vocab_size: usize,
    progress: &dyn Progress,
) -> Result<Tokenizer> {
    let mut failure = Some(empty(text)); // until there is a chunk
    let texts = chunks.map_while(|chunk| match chunk {
        Ok(chunk) => {
            failure = None;
            Some(chunk.text)
        }
        Err(error) => {
            failure = Some(error);
            None
        }
    });
    let tokenizer =
        watch(progress, "training the tokenizer", text.size_bytes(), || Ok(Tokenizer::train_bpe(vocab_size, texts)?));
    // A text that could not be read to its end is the cause of whatever else went wrong.
    failure.map_or(tokenizer, Err)
}

/// Lets one process at a time write to `dir`, until the lock is dropped, and removes what a killed one left.
fn lock(dir: &Path) -> Result<FileLock> {
    let cannot_write = |source| Error::Io { action: "write", what: "to the cache", source };
    fs_err::create_dir_all(dir).map_err(cannot_write)?;
    let waits = || tracing::info!("waiting for another process that writes to `{}`", dir.display());
    let lock = FileLock::wait(&dir.join(".lock"), waits).map_err(cannot_write)?;
    // Files are published whole even without locks; only nothing is cleaned up.
    if lock.is_held() {
        for entry in fs_err::read_dir(dir).map_err(cannot_write)? {
            let path = entry.map_err(cannot_write)?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs_err::remove_file(path).map_err(cannot_write)?;
            }
        }
    }
    Ok(lock)
}

/// Opens a token file that is there. A broken one counts as missing.
fn open_cached(dir: &Path, identity: &Identity, vocab_size: usize) -> Option<TokenFile> {
    let path = identity.path(dir);
    if !path.exists() {
        return None;
    }
    TokenFile::open(&path, identity, vocab_size)
        .inspect_err(|problem| tracing::warn!("tokenizing again, as `{}` cannot be used: {problem}", path.display()))
        .ok()
}

/// Writes beside and renames, so that no half a tokenizer is ever found.
fn save(tokenizer: &Tokenizer, path: &Path) -> Result<()> {
    let cannot_write = |source| Error::Io { action: "write", what: "the tokenizer in the cache", source };
    let dir = path.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(dir).map_err(cannot_write)?;
    let part = tempfile::Builder::new().suffix(".part").tempfile_in(dir).map_err(cannot_write)?.into_temp_path();
    fs_err::write(&part, tokenizer.to_json()).map_err(cannot_write)?;
    part.persist(path).map_err(|error| cannot_write(error.error))
}

/// The ids of each chunk. Threads take runs of chunks, so the result does not depend on their number.
fn encode(text: &Text, tokenizer: &Tokenizer, chunks: &[(Part, TextChunk)], threads: usize) -> Result<Vec<Vec<u32>>> {
    let encode_run = |run: &[(Part, TextChunk)]| -> Result<Vec<Vec<u32>>> {
        run.iter()
            .map(|(_, chunk)| tokenizer.encode(&chunk.text).map_err(|error| in_file(text, chunk, &error)))
            .collect()
    };
    let runs: Result<Vec<_>> = std::thread::scope(|scope| {
        let run_length = chunks.len().div_ceil(threads);
        let workers: Vec<_> = chunks.chunks(run_length).map(|run| scope.spawn(move || encode_run(run))).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().map(join).collect()
    });
    Ok(runs?.into_iter().flatten().collect())
}

fn in_file(text: &Text, chunk: &TextChunk, error: &minillm_model::error::Error) -> Error {
    Error::Data {
        path: text.files[chunk.file].path.clone(),
        problem: format!("cannot be tokenized: {error}"),
        hint: error.hint().unwrap_or("use a tokenizer made for this text: `tokenizer.kind = \"bpe\"`").into(),
    }
}

/// The two files being written.
struct Writers<'a> {
    tokenizer: &'a Tokenizer,
    training: TokenFileWriter,
    validation: TokenFileWriter,
}

impl Writers<'_> {
    fn write(&mut self, part: Part, chunk: &TextChunk, ids: &[u32], end_of_text: Option<u32>) -> Result<()> {
        let writer = match part {
            Part::Training => &mut self.training,
            Part::Validation => &mut self.validation,
        };
        if writer.is_empty()
            && let Some(&first) = ids.first()
        {
            writer.set_first_token_bytes(bytes_of_first(self.tokenizer, first, &chunk.text));
        }
        writer.push(ids, chunk.text.len())?;
        if chunk.ends_document { writer.end_document(end_of_text) } else { Ok(()) }
    }
}

/// UTF-8 bytes of `text` that its first token stands for.
fn bytes_of_first(tokenizer: &Tokenizer, first: u32, text: &str) -> usize {
    let decoded = tokenizer.decode(&[first]);
    // A byte-level token that is only a part of a character decodes to a replacement character. How large a part is not
    // worth knowing: calling it one byte is at most two off, once in a whole text.
    if text.starts_with(&decoded) { decoded.len() } else { 1 }
}

//! What the model thinks of the answers before the first step: two numbers a pair, computed once and kept in the cache.

use std::path::Path;

use fs_err as fs;
use minillm_model::decoder::LanguageModel;
use sha2::{Digest, Sha256};

use super::answers::logps;
use super::pairs::Set;
use crate::conversations::push_row;
use crate::data::{Batch, hex};
use crate::error::{Error, Result};
use crate::workers::Workers;

/// Pairs that are computed together.
const ROWS: usize = 8;

/// `ln p_ref` of the answers of the sets: from the cache where `key` is known, else by the model.
pub fn logps_of(
    cache_dir: &Path,
    key: &str,
    sets: [&Set; 2],
    context: usize,
    model: &dyn Fn() -> Result<LanguageModel>,
    workers: &Workers,
) -> Result<[Vec<[f64; 2]>; 2]> {
    let folder = cache_dir.join("reference");
    let path = folder.join(format!("{}.f64", hex(&Sha256::digest(key))));
    let wanted = sets.map(<[_]>::len);
    let all = if let Some(all) = read(&path, 2 * (wanted[0] + wanted[1])) {
        all
    } else {
        let model = model()?;
        let mut all = Vec::new();
        for pairs in sets.into_iter().flat_map(|set| set.chunks(ROWS)) {
            let mut batch = Batch::with_capacity(pairs.len(), context);
            for pair in pairs {
                push_row(&mut batch, pair);
            }
            all.extend(logps(&model, workers, ROWS, &batch)?);
        }
        write(&folder, &path, &all)?;
        all
    };
    let mut pairs = all.as_chunks::<2>().0.iter().copied();
    Ok(wanted.map(|count| pairs.by_ref().take(count).collect()))
}

/// The numbers in a file of this name, if they are that many and all are finite.
fn read(path: &Path, count: usize) -> Option<Vec<f64>> {
    let bytes = fs::read(path).ok()?;
    let numbers: Vec<f64> = bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    (bytes.len() == 8 * count && numbers.iter().all(|number| number.is_finite())).then_some(numbers)
}

/// Written beside and renamed, so that nobody finds half of it.
fn write(folder: &Path, path: &Path, numbers: &[f64]) -> Result<()> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written =
        fs::create_dir_all(folder).and_then(|()| fs::write(&part, bytes)).and_then(|()| fs::rename(&part, path));
    written.map_err(|source| Error::Io { action: "write", what: "the reference's log-probabilities", source })
}

//! The tensors in a model's weight files: known by name and shape at once, read one at a time.
//!
//! What a file claims is compared with its length before anything is read, and a tensor's memory is allocated only when
//! its bytes are known to be there. So a model of any size loads with one tensor's copy beside it.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::file::damaged;
use super::number_format::NumberFormat;
use crate::encoding::{Encoding, Q8_0_BLOCK};
use crate::error::{Error, Result};

/// Most tensors of one file: GPT-3 has 1,156.
pub const MOST_TENSORS: usize = 65_536;

/// How much of a tensor is read at once; a multiple of every block.
const CHUNK_BYTES: usize = 34 << 15;

/// A tensor on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Its dimensions, slowest first.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// Tensors by name.
pub type HostTensors = BTreeMap<String, HostTensor>;

/// The place where a tensor is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its dimensions, slowest first.
    pub shape: Vec<usize>,
    /// How its numbers are written, or the name of a format that is not read here.
    pub format: Result<NumberFormat, String>,
    /// The position of its first byte in the file.
    pub offset: u64,
}

/// The tensors of one or more files.
#[derive(Debug)]
pub struct TensorFiles {
    files: Vec<fs::File>,
    tensors: BTreeMap<String, (usize, Stored)>,
    /// What an adapter does to a tensor after it was read, in this order.
    changes: BTreeMap<String, Vec<Change>>,
}

/// What an adapter does to a tensor.
#[derive(Debug)]
pub(crate) enum Change {
    /// Takes its place.
    Replace(HostTensor),
    /// Adds `scale B A`, or that transposed.
    Add {
        /// `[r, in]`
        a: HostTensor,
        /// `[out, r]`
        b: HostTensor,
        /// LoRA's s.
        scale: f64,
        /// Whether the tensor is `[in, out]`.
        is_transposed: bool,
    },
}

impl TensorFiles {
    /// No file yet.
    pub fn new() -> Self {
        Self { files: Vec::new(), tensors: BTreeMap::new(), changes: BTreeMap::new() }
    }

    /// Adds a file with tensors that were seen to lie within it. A name that another file has too is an error.
    pub fn add(&mut self, file: fs::File, tensors: BTreeMap<String, Stored>) -> Result<()> {
        let path = file.path().to_owned();
        let index = self.files.len();
        self.files.push(file);
        for (name, stored) in tensors {
            if self.tensors.contains_key(&name) {
                let problem = format!("holds the tensor `{name}`, which another file of the model holds too");
                return Err(damaged(&path, problem));
            }
            self.tensors.insert(name, (index, stored));
        }
        Ok(())
    }

    /// The same tensors under the names that `rename` gives them. Two that get the same are an error.
    pub(super) fn renamed(self, rename: impl Fn(&str) -> String) -> Result<Self> {
        let Self { files, tensors: before, .. } = self; // adapters come after the names are plain
        let mut renamed = Self { files, ..Self::new() };
        for (name, (file, stored)) in before {
            let new = rename(&name);
            if renamed.tensors.contains_key(&new) {
                let problem = format!("`{name}` and another tensor are both `{new}`");
                return Err(damaged(&renamed.path_of(&new), problem));
            }
            renamed.tensors.insert(new, (file, stored));
        }
        Ok(renamed)
    }

    /// All tensors but one.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.tensors.remove(name);
        self
    }

    /// The tensor `name` under another name, too, without what an adapter does to the first.
    pub(crate) fn add_copy(&mut self, name: &str, copy: &str) {
        if let Some(tensor) = self.tensors.get(name).cloned() {
            self.tensors.insert(copy.to_owned(), tensor);
        }
    }

    /// Notes what is done to a tensor when it is read.
    pub(crate) fn change(&mut self, name: String, change: Change) {
        self.changes.entry(name).or_default().push(change);
    }

    /// Names and places, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, (_, stored))| (name.as_str(), stored))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The place of a tensor.
    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name).map(|(_, stored)| stored)
    }

    /// The file that holds a tensor, for messages; the first file for a name that none holds.
    pub fn path_of(&self, name: &str) -> PathBuf {
        let file = self.tensors.get(name).map_or(0, |(file, _)| *file);
        self.files.get(file).map(|file| file.path().to_owned()).unwrap_or_default()
    }

    /// Reads a tensor as f32, as an adapter leaves it.
    pub fn read(&self, name: &str) -> Result<HostTensor> {
        let mut tensor = self.read_stored(name)?;
        for change in self.changes.get(name).into_iter().flatten() {
            match change {
                Change::Replace(new) => tensor = new.clone(),
                Change::Add { a, b, scale, is_transposed } => add_product(&mut tensor, a, b, *scale, *is_transposed),
            }
        }
        Ok(tensor)
    }

    fn read_stored(&self, name: &str) -> Result<HostTensor> {
        let path = self.path_of(name);
        let Some((file, stored)) = self.tensors.get(name) else {
            return Err(damaged(&path, format!("lacks the tensor `{name}`")));
        };
        let format = stored.format.clone().map_err(|format| Error::InvalidFile {
            path: path.clone(),
            problem: format!("the tensor `{name}` is {format}, which is not supported"),
            hint: "supported: F64, F32, F16, BF16, F8_E4M3, F8_E5M2, and in GGUF Q8_0".to_owned(),
        })?;
        let Some(bytes) = format.bytes(&stored.shape) else {
            return Err(damaged(&path, format!("the tensor `{name}` has the impossible shape {:?}", stored.shape)));
        };
        let io = |source| Error::Io { action: "read", what: "the weights", source };
        let mut file = &self.files[*file];
        file.seek(SeekFrom::Start(stored.offset)).map_err(io)?;
        let mut values = Vec::with_capacity(stored.shape.iter().product());
        let mut chunk = vec![0; CHUNK_BYTES.min(bytes as usize)];
        let mut left = bytes as usize;
        while left > 0 {
            let part = &mut chunk[..CHUNK_BYTES.min(left)];
            file.read_exact(part).map_err(io)?;
            format.decode(part, &mut values);
            left -= part.len();
        }
        Ok(HostTensor { shape: stored.shape.clone(), values })
    }

    /// Reads every tensor.
    pub fn read_all(&self) -> Result<HostTensors> {
        self.tensors.keys().map(|name| Ok((name.clone(), self.read(name)?))).collect()
    }
}

impl Default for TensorFiles {
    fn default() -> Self {
        Self::new()
    }
}

/// `tensor + scale B A`, in f64.
///
/// # Shapes
/// - `a`: `[r, in]`, `b`: `[out, r]`, `tensor`: `[out, in]`, or `[in, out]` if it is transposed -> the same
fn add_product(tensor: &mut HostTensor, a: &HostTensor, b: &HostTensor, scale: f64, is_transposed: bool) {
    let (rank, inputs) = (a.shape[0], a.shape[1]);
    let outputs = b.shape[0];
    let mut row = vec![0.0_f64; inputs];
    for out in 0..outputs {
        row.fill(0.0);
        for r in 0..rank {
            let factor = f64::from(b.values[out * rank + r]);
            for (sum, value) in row.iter_mut().zip(&a.values[r * inputs..]) {
                *sum += factor * f64::from(*value);
            }
        }
        for (input, sum) in row.iter().enumerate() {
            let place = if is_transposed { input * outputs + out } else { out * inputs + input };
            tensor.values[place] = (f64::from(tensor.values[place]) + scale * sum) as f32;
        }
    }
}

/// Rows to columns, in tiles that fit a cache.
pub(crate) fn transpose(tensor: HostTensor) -> HostTensor {
    const TILE: usize = 32;
    let &[rows, columns] = &tensor.shape[..] else { return tensor };
    let mut values = vec![0.0; tensor.values.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..(top + TILE).min(rows) {
                for column in left..(left + TILE).min(columns) {
                    values[column * rows + row] = tensor.values[row * columns + column];
                }
            }
        }
    }
    HostTensor { shape: vec![columns, rows], values }
}

/// Refuses a tensor with a value that `encoding` has no number for.
pub(super) fn check_finite(path: &Path, name: &str, tensor: &HostTensor, encoding: Encoding) -> Result<()> {
    if !tensor.values.iter().all(|value| value.is_finite()) {
        return Err(Error::NotFinite { path: path.to_owned(), tensor: name.to_owned() });
    }
    let largest = tensor.values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if !encoding.round(&[largest; Q8_0_BLOCK])[0].is_finite() {
        return Err(Error::InvalidFile {
            path: path.to_owned(),
            problem: format!("`{name}` holds {largest:e}, which {} cannot", encoding.name()),
            hint: "export as bf16 or f32".to_owned(),
        });
    }
    Ok(())
}

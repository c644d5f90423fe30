//! The values that every device is compared with: what the readable forms gave on `flex`.
//!
//! They lie in `reference.safetensors`, which is compiled into the program; the losses of the training steps stand in
//! `training.rs`. On `flex` itself the readable form is therefore compared with what it gave when the file was written.
//! A test asserts that it still gives that, and an ignored test, `write_the_reference`, writes the file anew.

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use super::training::stored_losses;

/// The file: f32, a name each of the form `CHECK/PART`.
const FILE: &[u8] = include_bytes!("reference.safetensors");

/// Values kept of a tensor, at most. A few hundred say whether a kernel is right, and the program carries them around.
const MOST_VALUES: usize = 192;

/// Stored values by check and part.
#[derive(Clone, Debug, Default)]
pub struct Reference(BTreeMap<String, Vec<f32>>);

impl Reference {
    /// What is compiled in. A file that cannot be read would leave no values, and every check would say so.
    pub fn stored() -> Self {
        let mut values = BTreeMap::new();
        if let Ok(file) = SafeTensors::deserialize(FILE) {
            for (name, tensor) in file.iter() {
                let bytes = tensor.data().as_chunks::<4>().0;
                values.insert(name.to_owned(), bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect());
            }
        }
        values.extend(stored_losses().map(|(check, part, loss)| (key(check, &part), vec![loss])));
        Self(values)
    }

    /// All names, `CHECK/PART`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The values of a part.
    pub fn get(&self, check: &str, part: &str) -> Option<&[f32]> {
        self.0.get(&key(check, part)).map(Vec::as_slice)
    }
}

/// A part's name in the file.
pub fn key(check: &str, part: &str) -> String {
    format!("{check}/{part}")
}

/// What is compared with stored values: all of a small tensor; of a large one evenly spaced values, and at the end the
/// root of the mean square of all, so that what is wrong between them shows too.
pub fn thinned(values: &[f32]) -> Vec<f32> {
    let stride = values.len().div_ceil(MOST_VALUES);
    if stride <= 1 {
        return values.to_vec();
    }
    let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    let size = (squares / values.len() as f64).sqrt() as f32;
    values.iter().step_by(stride).copied().chain([size]).collect()
}

//! `trainer/optimizer.safetensors` as it is read.

use std::path::Path;

use minillm_model::checkpoint::weights::{self, HostTensor, HostTensors};
use minillm_model::error::Error as ModelError;

use crate::error::Result;

/// A file of states from which every tensor must be taken, and no other asked for.
pub(super) struct StateFile {
    tensors: HostTensors,
    missing: Vec<String>,
    wrong_shape: Vec<String>,
}

impl StateFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Ok(Self { tensors: weights::read(path)?, missing: Vec::new(), wrong_shape: Vec::new() })
    }

    /// The tensor `suffix` of the parameter `name`, which has the parameter's shape.
    pub(super) fn take(&mut self, name: &str, suffix: &str, shape: &[usize]) -> Option<HostTensor> {
        let full_name = format!("{name}.{suffix}");
        match self.tensors.remove(&full_name) {
            None => self.missing.push(full_name),
            Some(tensor) if tensor.shape != shape => {
                self.wrong_shape.push(format!("{full_name}: file {:?}, model {shape:?}", tensor.shape));
            }
            Some(tensor) => return Some(tensor),
        }
        None
    }

    /// # Errors
    /// A tensor that was asked for and not there, of another shape, or there and not asked for.
    pub(super) fn finish(self, path: &Path) -> Result<()> {
        let Self { tensors, missing, wrong_shape } = self;
        if missing.is_empty() && wrong_shape.is_empty() && tensors.is_empty() {
            return Ok(());
        }
        let unexpected = tensors.into_keys().collect();
        let hint = "the optimiser's state must be that of the model beside it; use another checkpoint";
        Err(ModelError::TensorMismatch { path: path.to_owned(), missing, unexpected, wrong_shape, hint }.into())
    }
}

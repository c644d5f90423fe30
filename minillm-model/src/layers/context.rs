//! What one pass through the model shares: made once, given to every layer.
//!
//! A layer holds parameters and nothing else. How to compute, where the tokens stand, who may look at whom and what is
//! dropped belong to a pass, so they are handed down.

use std::sync::Arc;

use super::causal_mask::CausalMask;
use super::documents::Documents;
use super::dropout::Dropout;
use super::rope::Rotation;
use crate::ops::ComputeOptions;

/// What every layer of one forward pass is given.
#[derive(Debug, Default)]
pub struct ForwardContext {
    /// Which implementation of an operation runs, and in which precision.
    pub compute: ComputeOptions,
    /// The rotation of the positions given, where positions are rotary.
    pub rotation: Option<Rotation>,
    /// What is dropped in training.
    pub dropout: Dropout,
    /// Where documents begin that do not see each other; `None` where each row is one.
    pub documents: Option<Documents>,
    /// How many sequences lie one behind the other in what layers are given, `[1, B T, D]`; `None` where it is `[B, T, D]`.
    pub(crate) sequences: Option<usize>,
    /// For blocks whose queries look at all earlier positions.
    full_mask: CausalMask,
    /// The mask of blocks with a sliding window.
    windowed_mask: CausalMask,
}

impl ForwardContext {
    /// For layers that do not depend on positions: without a rotation and without dropout.
    pub fn new(compute: ComputeOptions) -> Self {
        Self { compute, ..Self::default() }
    }

    /// For tokens with this rotation, in a model of which some blocks look back `window` positions only.
    pub fn at(compute: ComputeOptions, rotation: Option<Rotation>, window: Option<usize>, dropout: Dropout) -> Self {
        let (full_mask, windowed_mask) = (CausalMask::new(None), CausalMask::new(window));
        Self { compute, rotation, dropout, documents: None, sequences: None, full_mask, windowed_mask }
    }

    /// For rows of several documents.
    #[must_use]
    pub fn with_documents(self, documents: Option<Documents>) -> Self {
        let mask = |mask: CausalMask| CausalMask::new(mask.window).with_documents(documents.clone());
        Self { full_mask: mask(self.full_mask), windowed_mask: mask(self.windowed_mask), documents, ..self }
    }

    /// Where documents begin, as the fast form of attention takes it.
    pub(super) fn starts(&self) -> Option<Arc<[u32]>> {
        self.documents.as_ref().map(Documents::starts)
    }

    /// Who may look at whom in a block with this window.
    pub fn mask(&self, window: Option<usize>) -> &CausalMask {
        if window.is_some() { &self.windowed_mask } else { &self.full_mask }
    }
}

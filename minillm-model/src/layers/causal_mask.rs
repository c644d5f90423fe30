//! Who may look at whom: a query at its own key and those before, with a window only at the nearest of them.

use std::cell::OnceCell;

use burn::tensor::{Bool, Device, Tensor};

use super::documents::Documents;

/// Who may look at whom, for all blocks of a kind in one forward pass.
#[derive(Debug, Default)]
pub struct CausalMask {
    /// How many positions back a query may look, its own included; `None` for all.
    pub window: Option<usize>,
    /// Those that do not see each other.
    documents: Option<Documents>,
    /// Made by the first block that asks; the fast form of attention needs no mask in memory.
    tensor: OnceCell<Option<Tensor<4, Bool>>>,
}

impl CausalMask {
    /// For queries that may look `window` positions back, their own included.
    pub fn new(window: Option<usize>) -> Self {
        Self { window, documents: None, tensor: OnceCell::new() }
    }

    /// For rows of several documents.
    pub(super) fn with_documents(self, documents: Option<Documents>) -> Self {
        Self { window: self.window, documents, tensor: OnceCell::new() }
    }

    /// For T queries, the last of S positions. All calls of one pass are for the same T and S.
    ///
    /// # Shapes
    /// - -> `[1 or B, 1, T, S]`, true where a query may not look; `None` if all may be seen
    pub fn tensor(&self, t: usize, s: usize, device: &Device) -> Option<&Tensor<4, Bool>> {
        let mask = self.tensor.get_or_init(|| self.make(t, s, device)).as_ref();
        debug_assert!(mask.is_none_or(|mask| mask.dims()[2..] == [t, s]), "one mask serves one pass");
        mask
    }

    fn make(&self, t: usize, s: usize, device: &Device) -> Option<Tensor<4, Bool>> {
        let causal = attention_mask(t, s, self.window, device).map(|mask| mask.reshape([1, 1, t, s])); // [1, 1, T, S]
        let Some(documents) = &self.documents else { return causal };
        let between = documents.mask(device); // [B, 1, T, S]
        Some(match causal {
            Some(causal) => causal.expand(between.dims()).bool_or(between),
            None => between,
        })
    }
}

/// True where query t, standing at position S - T + t, may not look: at keys after itself, and with a window at those
/// that many positions back or more. `None` if all may be seen, as for a single new token without a window.
///
/// # Shapes
/// - -> `[T, S]`
pub fn attention_mask(t: usize, s: usize, window: Option<usize>, device: &Device) -> Option<Tensor<2, Bool>> {
    let diagonal = (s - t) as i64; // where a query meets its own key
    let after = (t > 1).then(|| Tensor::<2, Bool>::tril_mask([t, s], diagonal, device));
    let Some(window) = window.filter(|&window| window < s) else { return after };
    let before = Tensor::<2, Bool>::triu_mask([t, s], diagonal - window as i64 + 1, device);
    Some(match after {
        Some(after) => after.bool_or(before),
        None => before,
    })
}

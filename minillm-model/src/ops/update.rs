//! What an optimiser's step depends on besides the tensors.

/// When a step is taken as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLimits {
    /// The largest norm of all gradients together: longer ones are scaled down to it. 0: no limit.
    pub grad_clip: f64,
    /// The largest loss of a step that is taken.
    pub loss: f64,
    /// The largest norm, before clipping, of a step that is taken.
    pub grad_norm: f64,
}

impl StepLimits {
    /// No limit but that of f32: what is not finite is beyond it.
    pub fn finite(grad_clip: f64) -> Self {
        Self { grad_clip, loss: f64::from(f32::MAX), grad_norm: f64::from(f32::MAX) }
    }

    /// As f32, with nothing beyond its range.
    pub(super) fn as_f32(self) -> [f32; 3] {
        let largest = f64::from(f32::MAX);
        [self.grad_clip, self.loss, self.grad_norm].map(|limit| limit.min(largest) as f32)
    }
}

/// How far Muon moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonStep {
    /// What is left of each weight after decay.
    pub keep: f64,
    /// How far along the orthogonal direction.
    pub rate: f64,
}

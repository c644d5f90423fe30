//! What every operation with a backward pass of its own needs from Burn's autodiff.

use burn::backend::Backend;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::tensor::FloatTensor;

/// Why no backward pass here is differentiated again.
pub const FIRST_ORDER: &str = "Burn's autodiff is first order: a backward pass is never differentiated";

/// Hands each parent that wants one its gradient.
pub fn register<B: Backend, const N: usize>(
    grads: &mut Gradients,
    parents: [Option<NodeId>; N],
    values: [FloatTensor<B>; N],
) {
    for (parent, value) in parents.into_iter().zip(values) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, value);
        }
    }
}

/// For `use super::autodiff::prelude::*`.
pub mod prelude {
    pub use burn::backend::autodiff::Autodiff;
    pub use burn::backend::autodiff::checkpoint::base::Checkpointer;
    pub use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    pub use burn::backend::autodiff::grads::Gradients;
    pub use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

    pub use super::{FIRST_ORDER, register};
}

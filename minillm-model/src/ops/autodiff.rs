//! How an operation with a backward pass of its own is put on Burn's autodiff tape: once, for all of them.
//!
//! The forward function of an operation is a trait that Burn dispatches to the tensor's backend. Its backward function is
//! only ever called with the backend *inside* autodiff (Burn's autodiff is first order), so it is a second trait, which
//! needs no dispatch.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

pub use burn::backend::Backend;
pub use burn::backend::autodiff::Autodiff;
pub use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;

/// A tensor on the tape.
type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

/// The gradients of the parents, from what the forward pass saved and the gradient of its output.
type BackwardFn<B, S, const N: usize> = fn(S, FloatTensor<B>) -> [FloatTensor<B>; N];

/// Whether nothing that led to a tensor wants a gradient: a parameter that is not trained.
pub fn is_constant<B: Backend, C: CheckpointStrategy>(tensor: &Tracked<B, C>) -> bool {
    let unused: BackwardFn<B, (), 1> = |(), grad| [grad];
    // What the tape would do with an operation of it.
    let step = Recorded::<B, (), 1> { backward: unused }.prepare::<C>([tensor.node()]).compute_bound();
    matches!(step.stateful(), OpsKind::UnTracked(_))
}

/// Computes an operation of `parents`, and records its backward pass if any of them wants a gradient.
///
/// - `infer` computes the output, where nothing is differentiated.
/// - `train` computes it and returns beside it what `backward` is given.
pub fn record<B: Backend, C: CheckpointStrategy, S: Clone + Send + Debug + 'static, const N: usize>(
    parents: [Tracked<B, C>; N],
    infer: impl FnOnce([FloatTensor<B>; N]) -> FloatTensor<B>,
    train: impl FnOnce([FloatTensor<B>; N]) -> (FloatTensor<B>, S),
    backward: BackwardFn<B, S, N>,
) -> Tracked<B, C> {
    let nodes = parents.each_ref().map(Tracked::<B, C>::node);
    let parents = parents.map(Tracked::<B, C>::into_primitive);
    let step = Recorded { backward }.prepare::<C>(nodes).compute_bound();
    match step.stateful() {
        OpsKind::Tracked(prep) => {
            let (out, saved) = train(parents);
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(infer(parents)),
    }
}

/// One operation on the tape.
#[derive(Debug)]
struct Recorded<B: Backend, S, const N: usize> {
    backward: BackwardFn<B, S, N>,
}

impl<B: Backend, S: Clone + Send + Debug + 'static, const N: usize> Backward<B, N> for Recorded<B, S, N> {
    type State = S;

    fn backward(self, ops: Ops<S, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        for (parent, gradient) in ops.parents.into_iter().zip((self.backward)(ops.state, grad)) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

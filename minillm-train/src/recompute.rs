//! Forward and backward with the inputs of the blocks as the only values kept: `train.recompute = true` (Chen et al. 2016,
//! arXiv:1604.06174).
//!
//! A backward pass needs what the forward pass computed inside every block. Kept, that is most of the memory of training;
//! here each block computes it again when its turn comes. That costs a second forward pass, a third of the time, and
//! changes the result by rounding only: gradients are added in another order.
//!
//! ```text
//! forward:    x0 -> block 1 -> x1 -> block 2 -> x2 -> loss         without autodiff; x0, x1, x2 are kept
//! backward:   loss from x2, so dx2;   block 2 from x1 and dx2, so dx1;   block 1 from x0 and dx1, so dx0;   embedding
//! ```

use burn::module::Module;
use burn::tensor::{Gradients as Tape, Int, Tensor};
use minillm_model::decoder::LanguageModel;
use minillm_model::layers::documents::Documents;
use minillm_model::layers::dropout::Dropout;

use crate::gradients::Gradients;

/// The loss that `loss_of` makes of the last hidden states, and all gradients.
///
/// # Shapes
/// - `ids`: `[B, T]` on the device of `model`, which has autodiff; `loss_of` takes `[B, T, D]` to `[1]`
pub fn forward_backward(
    model: &LanguageModel,
    ids: Tensor<2, Int>,
    documents: Option<&Documents>,
    drop: Dropout,
    loss_of: impl Fn(&LanguageModel, Tensor<3>) -> Tensor<1>,
) -> (Tensor<1>, Gradients) {
    let [_, t] = ids.dims();
    let mut gradients = Gradients::default();

    // Forward, keeping what enters each block and what leaves the last.
    let plain = model.valid();
    let context = plain.context(0, t, drop.clone()).with_documents(documents.cloned());
    let mut inputs = vec![plain.model.embed(ids.clone().inner(), 0, &context)]; // [B, T, D] each
    for (index, block) in plain.model.layers.iter().enumerate() {
        inputs.push(block.forward(inputs[index].clone(), None, &context));
    }

    // Backward. Each part of the model starts from a leaf of its own, and hands the leaf's gradient to the part before.
    let mut leaf = || inputs.pop().map(|x| Tensor::from_inner(x).require_grad());
    let mut take = |tape: Tape, x: Option<&Tensor<3>>| {
        let (dx, rest) = Gradients::collect_from(model, tape, x);
        gradients.add(rest);
        dx
    };
    let last = leaf().unwrap_or_else(|| unreachable!("the embedding's output is there"));
    let context = model.context(0, t, drop).with_documents(documents.cloned());
    let loss = loss_of(model, model.model.norm.forward(last.clone(), &context)); // [1]
    let mut grad = take(loss.backward(), Some(&last)); // [B, T, D]
    for block in model.model.layers.iter().rev() {
        let x = leaf().unwrap_or_else(|| unreachable!("one for each block"));
        let out = block.forward(x.clone(), None, &context);
        grad = take(backward_from(out, grad), Some(&x));
    }
    if Gradients::are_required_by(&model.model.embed_tokens) || Gradients::are_required_by(&model.model.embed_positions)
    {
        take(backward_from(model.model.embed(ids, 0, &context), grad), None);
    }
    (loss.inner(), gradients)
}

/// Gradients of everything behind `out`, whose own gradient is `grad`: those of the sum of their products.
fn backward_from(out: Tensor<3>, grad: Option<Tensor<3>>) -> Tape {
    let grad = grad.unwrap_or_else(|| unreachable!("every part depends on the one before"));
    (out * Tensor::from_inner(grad)).sum().backward()
}

//! Fast forms put together from a backend's own operations, where it has no kernel of ours: what they save is memory.
//! Attention and the loss go through their rows a block at a time and keep no scores and no logits.

pub mod attention;
pub mod cross_entropy;

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Slice, TensorMetadata};
use burn::tensor::FloatDType;

/// The product of two batches of matrices, in the precision that `like` has, summed and returned in f32.
fn product<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>, like: FloatDType) -> FloatTensor<B> {
    let [a, b] = [a, b].map(|factor| B::float_cast(factor, like));
    B::float_cast(B::float_matmul(a, b), FloatDType::F32)
}

/// `range` of dimension `dim`, and all of the others.
fn slices(shape: &[usize], dim: usize, range: &Range<usize>) -> Vec<Slice> {
    let all = shape.iter().map(|&size| Slice::from(0..size as isize));
    let part = Slice::from(range.start as isize..range.end as isize);
    all.enumerate().map(|(index, whole)| if index == dim { part } else { whole }).collect()
}

/// A view of `range` in dimension `dim`.
fn narrow<B: Backend>(tensor: &FloatTensor<B>, dim: usize, range: &Range<usize>) -> FloatTensor<B> {
    let shape: Vec<usize> = tensor.shape().iter().copied().collect();
    if range.len() == shape[dim] {
        return tensor.clone(); // a slice would end a fused block on a GPU
    }
    B::float_slice(tensor.clone(), &slices(&shape, dim, range))
}

/// Adds `part` to `range` of dimension `dim`.
fn add_to<B: Backend>(sum: FloatTensor<B>, dim: usize, range: &Range<usize>, part: FloatTensor<B>) -> FloatTensor<B> {
    let shape: Vec<usize> = sum.shape().iter().copied().collect();
    let part = B::float_add(narrow::<B>(&sum, dim, range), part);
    B::float_slice_assign(sum, &slices(&shape, dim, range), part)
}

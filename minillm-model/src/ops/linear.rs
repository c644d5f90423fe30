//! Products with a layer's matrix: of all rows at once, where Burn would multiply each sequence; in generation, where there is
//! one row, a single reading of the matrix; and with matrices in 8 bits, a quarter of one.

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::autodiff::prelude::*;
use crate::checkpoint::encoding::{Encoding, Q8_0_BLOCK};

/// Backends with the fast form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Autodiff
)]
pub trait LinearOp: Backend {
    /// `weight`: `[input, output]`, the same, lying output after output
    fn by_output(weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x`: `[.., input]`, `weight`: `[input, output]` -> `[.., output]`
    fn product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of `x` and of `weight`.
    fn product_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `x`: `[.., input]` -> `[.., output]`
    fn quantized(x: FloatTensor<Self>, matrix: Arc<QuantizedMatrix>) -> FloatTensor<Self>;
}

impl<B: LinearOp, C: CheckpointStrategy> LinearOp for Autodiff<B, C> {
    fn by_output(_: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("generation is not differentiated")
    }

    fn product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl<B: LinearOp> Backward<B, 2> for Step {
            type State = [FloatTensor<B>; 2];

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let [x, weight] = ops.state;
                let (dx, dweight) = B::product_backward(x, weight, grad);
                register::<B, 2>(grads, ops.parents.map(|node| node.map(|node| node.id)), [dx, dweight]);
            }
        }
        let nodes = [x.node(), weight.node()];
        let [x, weight] = [x, weight].map(Self::FloatTensorPrimitive::into_primitive);
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let out = B::product(x.clone(), weight.clone());
                prep.finish([x, weight], out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::product(x, weight)),
        }
    }

    fn product_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("{FIRST_ORDER}")
    }

    fn quantized(_: FloatTensor<Self>, _: Arc<QuantizedMatrix>) -> FloatTensor<Self> {
        unreachable!("generation is not differentiated")
    }
}

/// A matrix as llama.cpp's `Q8_0` keeps it: the numbers that each output sums over in blocks of 32, with a scale each.
/// 8.5 bits a number (ggml rounds the scale to 16 bits; so do we, and keep it in 32).
#[derive(Debug)]
pub struct QuantizedMatrix {
    /// `[output, input]`
    pub quants: Vec<i8>,
    /// `[output, input / 32]`
    pub scales: Vec<f32>,
    /// Numbers in an input vector: whole blocks.
    pub input: usize,
    /// Numbers in an output vector.
    pub output: usize,
}

impl QuantizedMatrix {
    /// `None` if a row is not whole blocks of 32 numbers.
    ///
    /// # Shapes
    /// - `weight`: `[output, input]`, row-major
    pub fn new(weight: &[f32], input: usize) -> Option<Self> {
        if !input.is_multiple_of(Q8_0_BLOCK) {
            return None;
        }
        let (mut quants, mut scales) =
            (Vec::with_capacity(weight.len()), Vec::with_capacity(weight.len() / Q8_0_BLOCK));
        for row in weight.chunks(input) {
            for [low, high, block @ ..] in Encoding::Q8_0.encode(row).as_chunks::<{ 2 + Q8_0_BLOCK }>().0 {
                scales.push(half::f16::from_le_bytes([*low, *high]).to_f32());
                quants.extend(block.iter().map(|quant| quant.cast_signed()));
            }
        }
        Some(Self { quants, scales, input, output: weight.len() / input })
    }

    /// The memory it holds.
    pub fn bytes(&self) -> usize {
        self.quants.len() + size_of_val(&self.scales[..])
    }
}

/// The same matrix, `[input, output]`, with its outputs one after the other in memory, as files have them and as a row at a time is
/// multiplied fastest. Copied only if it lies otherwise; a tensor without autodiff.
pub fn by_output(weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::by_output(weight.into_dispatch()))
}

/// `x W`, with a backward pass.
///
/// # Shapes
/// - `x`: `[B, T, input]`, `weight`: `[input, output]` -> `[B, T, output]`
pub fn product(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::product(x.into_dispatch(), weight.into_dispatch()))
}

/// `x W` with W in 8 bits; a tensor without autodiff.
///
/// # Shapes
/// - `x`: `[B, T, input]` -> `[B, T, output]`
pub fn quantized(x: Tensor<3>, matrix: &Arc<QuantizedMatrix>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::quantized(x.into_dispatch(), matrix.clone()))
}

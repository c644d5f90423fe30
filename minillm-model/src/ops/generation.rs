//! Matrices as generation reads them: output after output, or in 8 bits, a quarter of the memory and of the time to read it.
//! For tensors without autodiff, on Burn's Rust CPU backends ([`ComputeOptions::decode_matvec`](super::ComputeOptions)).

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use crate::encoding::{Encoding, Q8_0_BLOCK};

/// Backends with these forms.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub trait GenerationOp: Backend {
    /// `weight`: `[input, output]`, the same, stored output after output
    fn output_major(weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x`: `[.., input]` -> `[.., output]`
    fn quantized_matmul(x: FloatTensor<Self>, matrix: Arc<QuantizedMatrix>) -> FloatTensor<Self>;
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
/// multiplied fastest. Copied only if it is stored otherwise.
pub fn output_major(weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::output_major(weight.into_dispatch()))
}

/// `x W` with W in 8 bits.
///
/// # Shapes
/// - `x`: `[B, T, input]` -> `[B, T, output]`
pub fn quantized_matmul(x: Tensor<3>, matrix: &Arc<QuantizedMatrix>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::quantized_matmul(x.into_dispatch(), matrix.clone()))
}

//! Matrices in 8 bits, for generation and scoring: a quarter of the memory, and of the time to read it. For tensors without
//! autodiff ([`ComputeOptions::quantized`](super::ComputeOptions)).

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::encoding::{Encoding, Q8_0_BLOCK};

/// Quants in a word. GPUs' shaders have no type of 8 bits, only of 32.
pub(super) const QUANTS_PER_WORD: usize = size_of::<i32>();

/// Backends with this form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube")
)]
pub trait QuantizedMatmulOp: Backend {
    /// `x`: `[B, T, input]`, `words` and `scales` as in [`QuantizedMatrix`] -> `[B, T, output]`
    fn quantized_matmul(x: FloatTensor<Self>, words: IntTensor<Self>, scales: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A matrix as llama.cpp's `Q8_0` keeps it: the numbers that each output sums over in blocks of 32, with a scale each. What
/// a number stands for, `scale * quant`, is exact in f32.
///
/// 9 bits a number: a file's scales have 16 bits, here they have 32. Not every GPU's shaders have numbers of 16 bits, and on
/// the CPU each would have to be converted whenever it is read; that would save a seventeenth.
#[derive(Clone, Debug)]
pub struct QuantizedMatrix {
    /// Four quants each, the first one in the lowest byte: `[output input / 4]`. In one dimension: in two, a device may leave room
    /// between rows, and a kernel would be given a copy.
    words: Tensor<1, Int>,
    /// `[output input / 32]`
    scales: Tensor<1>,
}

impl QuantizedMatrix {
    /// Rounds a matrix and puts it on `device`. `None` if a row is not whole blocks of 32 numbers.
    ///
    /// # Shapes
    /// - `weight`: `[output, input]`, row-major
    pub fn new(weight: &[f32], input: usize, device: &Device) -> Option<Self> {
        if !input.is_multiple_of(Q8_0_BLOCK) {
            return None;
        }
        let mut words = Vec::with_capacity(weight.len() / QUANTS_PER_WORD);
        let mut scales = Vec::with_capacity(weight.len() / Q8_0_BLOCK);
        for row in weight.chunks(input) {
            for [low, high, quants @ ..] in Encoding::Q8_0.encode(row).as_chunks::<{ 2 + Q8_0_BLOCK }>().0 {
                scales.push(half::f16::from_le_bytes([*low, *high]).to_f32());
                // In the order of this machine, where `cpu` reads them as bytes. GPUs' machines have the lowest byte first.
                words.extend(quants.as_chunks().0.iter().map(|&quants| i32::from_ne_bytes(quants)));
            }
        }
        let (words, scales) = (TensorData::from(&words[..]), TensorData::from(&scales[..]));
        Some(Self { words: Tensor::from_data(words, (device, DType::I32)), scales: Tensor::from_data(scales, device) })
    }

    /// The memory it holds.
    pub fn bytes(&self) -> usize {
        let numbers = self.words.shape().num_elements() + self.scales.shape().num_elements();
        numbers * size_of::<f32>() // as large as i32
    }
}

/// `x W` with W in 8 bits.
///
/// # Shapes
/// - `x`: `[B, T, input]` -> `[B, T, output]`
pub fn quantized_matmul(x: Tensor<3>, matrix: &QuantizedMatrix) -> Tensor<3> {
    let QuantizedMatrix { words, scales } = matrix.clone();
    Tensor::from_dispatch(Dispatch::quantized_matmul(x.into_dispatch(), words.into_dispatch(), scales.into_dispatch()))
}

//! Matrices as generation reads them: output after output. For tensors without autodiff, on Burn's Rust CPU backends
//! ([`ComputeOptions::decode_matvec`](super::ComputeOptions)).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

/// Backends with this form.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub trait GenerationOp: Backend {
    /// `weight`: `[input, output]`, the same, stored output after output
    fn output_major(weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The same matrix, `[input, output]`, with its outputs one after the other in memory, as files have them and as a row at a time is
/// multiplied fastest. Copied only if it is stored otherwise.
pub fn output_major(weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::output_major(weight.into_dispatch()))
}

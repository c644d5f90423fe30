//! In how many bits matrix products are computed.
//!
//! Matrix products are nearly all of the work, and GPUs do them several times faster in 16 bits. Everything else stays in
//! f32: the weights that the optimiser moves, the residual stream, norms, softmax, loss, and every sum of gradients.

use burn::tensor::{FloatDType, Tensor};
use serde::{Deserialize, Serialize};

/// What the factors of a matrix product are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits of mantissa: nothing is rounded.
    #[default]
    F32,
    /// f32's range with 8 bits of mantissa.
    Bf16,
    /// 11 bits of mantissa, nothing below 6e-8: gradients have to be scaled up on the way.
    F16,
}

impl Precision {
    /// Burn's name for it.
    pub fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
            Self::F16 => FloatDType::F16,
        }
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Rounds a factor of a product; its gradient comes back in f32.
    pub fn round<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if self == Self::F32 { x } else { x.cast(self.dtype()) }
    }
}

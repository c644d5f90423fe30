//! The MLP of GPT-2: widen, activate, narrow. `swiglu` replaced it.
//!
//! ```text
//! MLP(x) = down( gelu(up(x)) )
//! gelu(z) = z * Phi(z)                                            (Hendrycks & Gimpel 2016, arXiv:1606.08415)
//!         ~ z/2 * (1 + tanh( sqrt(2/pi) * (z + 0.044715 z^3) ))   (the form GPT-2 was trained with)
//! relu2(z) = max(z, 0)^2                                          (So et al. 2021, arXiv:2109.08668)
//! ```

use burn::module::Module;
use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Device, Tensor};

use super::context::ForwardContext;
use super::linear::Linear;
use crate::config::{MlpKind, ModelConfig};

/// Two matrices with one activation between them.
#[derive(Module, Debug)]
pub struct GeluMlp {
    /// D -> F.
    pub up_proj: Linear,
    /// F -> D: back into the residual stream.
    pub down_proj: Linear,
    #[module(skip)]
    pub(super) activation: MlpKind,
}

impl GeluMlp {
    /// The MLP of one block.
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let (d, f, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        Self {
            up_proj: Linear::new(d, f, bias, device),
            down_proj: Linear::new(f, d, bias, device),
            activation: config.mlp,
        }
    }

    /// # Shapes
    /// - `x`: `[B, T, D]` -> `[B, T, D]`
    pub fn forward(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        let up = self.up_proj.forward(x, context); // [B, T, F]
        let activated = match self.activation {
            MlpKind::GeluErf => gelu(up),
            MlpKind::Relu2 => relu(up).square(),
            // SwiGLU has a layer of its own; the config never sends it here.
            MlpKind::Gelu | MlpKind::Swiglu => gelu_tanh(up),
        };
        self.down_proj.forward(activated, context) // [B, T, D]
    }
}

/// GELU in its tanh form. Burn's `gelu_approximate` takes the cube by `powf`, which goes through a logarithm on some
/// backends; products do not.
fn gelu_tanh(z: Tensor<3>) -> Tensor<3> {
    let sqrt_2_over_pi = (2.0 / std::f64::consts::PI).sqrt();
    let inner = (z.clone() + z.clone() * z.clone().square() * 0.044_715) * sqrt_2_over_pi;
    z * (inner.clamp(-10.0, 10.0).tanh() + 1.0) * 0.5 // beyond, tanh is 1, and on some drivers NaN
}

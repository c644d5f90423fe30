//! Which operations run in their fast form.

use burn::backend::DispatchDevice;
use burn::module::Param;
use burn::tensor::Device;

use crate::decoder::{Decoder, LanguageModel};
use crate::layers::attention::Attention;
use crate::layers::linear::Linear;
use crate::layers::{Mlp, Norm};
use crate::ops::Precision;
use crate::ops::linear::by_output;

/// How a model computes: the operations that have a fast form, whether it is used, and the precision of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // a set
pub struct Kernels {
    /// [`rms_norm`](super::rms_norm) and [`layer_norm`](super::layer_norm)
    pub norm: bool,
    /// [`rotary`](super::rotary)
    pub rotary: bool,
    /// What is between the MLP's matrices: [`swiglu`](super::swiglu), [`activation`](super::activation)
    pub activation: bool,
    /// [`attention`](super::attention)
    pub attention: bool,
    /// [`cross_entropy`](super::cross_entropy)
    pub cross_entropy: bool,
    /// [`adam_w`](super::adam_w)
    pub adam_w: bool,
    /// [`linear`](super::linear) for generation: matrices in 8 bits, and otherwise as they lie in files
    pub linear: bool,
    /// [`linear`](super::linear)
    pub product: bool,
    /// Of matrix products.
    pub precision: Precision,
}

impl Kernels {
    /// The layers' own lines, everywhere.
    pub const READABLE: Self = Self {
        norm: false,
        rotary: false,
        activation: false,
        attention: false,
        cross_entropy: false,
        adam_w: false,
        linear: false,
        product: false,
        precision: Precision::F32,
    };

    /// What `portable` has: for every backend.
    const PORTABLE: Self = Self { attention: true, cross_entropy: true, ..Self::READABLE };

    /// What `cpu` has.
    const CPU: Self = Self {
        norm: true,
        rotary: true,
        activation: true,
        adam_w: true,
        linear: true,
        product: true,
        ..Self::PORTABLE
    };

    /// What `libtorch` has: what `cpu` has, but for matrices in 8 bits.
    #[cfg(feature = "tch")]
    const LIBTORCH: Self = Self { linear: false, ..Self::CPU };

    /// What `device` has.
    pub fn fastest(device: &Device) -> Self {
        Self::of(device.as_dispatch())
    }

    #[allow(unreachable_patterns, clippy::match_same_arms)] // in a program without some of the backends
    fn of(device: &DispatchDevice) -> Self {
        match device {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => Self::CPU,
            #[cfg(feature = "ndarray")]
            DispatchDevice::NdArray(_) => Self::CPU,
            #[cfg(feature = "tch")]
            DispatchDevice::LibTorch(_) => Self::LIBTORCH,
            #[cfg(feature = "cube")]
            DispatchDevice::Cube(_) => Self::PORTABLE,
            DispatchDevice::Autodiff(inner) => Self::of(inner),
            _ => Self::READABLE,
        }
    }

    /// Runs `work`, on a CPU inside the pool of threads among which operations share their work: entering it costs as much as
    /// a small operation.
    pub fn run<R: Send>(self, work: impl FnOnce() -> R + Send) -> R {
        #[cfg(feature = "cpu-kernels")]
        if self.linear {
            return rayon::scope(|_| work());
        }
        work()
    }

    /// The fast forms of training, one after the other: each the one before and one operation more.
    pub fn ladder(self) -> Vec<(&'static str, Self)> {
        let mut rungs = vec![("readable", Self { precision: self.precision, ..Self::READABLE })];
        let mut add = |name, has: bool, set: fn(&mut Self)| {
            let mut kernels = rungs.last().map_or(Self::READABLE, |(_, kernels)| *kernels);
            set(&mut kernels);
            if has {
                rungs.push((name, kernels));
            }
        };
        add("+ products", self.product, |kernels| kernels.product = true);
        add("+ attention", self.attention, |kernels| kernels.attention = true);
        add("+ cross-entropy", self.cross_entropy, |kernels| kernels.cross_entropy = true);
        add("+ norms", self.norm, |kernels| kernels.norm = true);
        add("+ activations", self.activation, |kernels| kernels.activation = true);
        add("+ rotary", self.rotary, |kernels| kernels.rotary = true);
        add("+ AdamW", self.adam_w, |kernels| kernels.adam_w = true);
        if let Some((_, whole)) = rungs.last_mut() {
            whole.linear = self.linear; // not of training, but it has a pool of threads
        }
        rungs
    }
}

impl LanguageModel {
    /// The same model with its matrices as generation reads them, and as a model read from a file has them: both then compute
    /// the same bits. For a model without autodiff; a copy of its matrices where they lie as in training.
    #[must_use]
    pub fn for_generation(mut self) -> Self {
        if self.kernels.linear {
            for linear in self.model.linears().chain(&mut self.lm_head).filter(|linear| linear.quantized.is_none()) {
                linear.weight = Param::from_tensor(by_output(linear.weight.val()));
            }
        }
        self
    }

    /// The same model, computing with `kernels`. New models use [`Kernels::fastest`].
    #[must_use]
    pub fn with_kernels(mut self, kernels: Kernels) -> Self {
        self.kernels = kernels;
        self.model.set_kernels(kernels);
        if let Some(lm_head) = &mut self.lm_head {
            lm_head.kernels = kernels;
        }
        self
    }

    /// What it computes with.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }
}

impl Norm {
    fn set_kernels(&mut self, kernels: Kernels) {
        match self {
            Self::Rms(norm) => norm.kernels = kernels,
            Self::Layer(norm) => norm.kernels = kernels,
        }
    }
}

impl Decoder {
    fn set_kernels(&mut self, kernels: Kernels) {
        self.norm.set_kernels(kernels);
        if let Some(rope) = &mut self.rope {
            rope.kernels = kernels;
        }
        for block in &mut self.layers {
            for norm in [&mut block.input_layernorm, &mut block.post_attention_layernorm] {
                norm.set_kernels(kernels);
            }
            block.self_attn.kernels = kernels;
            for norm in [&mut block.self_attn.q_norm, &mut block.self_attn.k_norm].into_iter().flatten() {
                norm.kernels = kernels;
            }
            match &mut block.mlp {
                Mlp::Swiglu(mlp) => mlp.kernels = kernels,
                Mlp::Gelu(mlp) => mlp.kernels = kernels,
            }
        }
        self.linears().for_each(|linear| linear.kernels = kernels);
    }

    /// The matrices of all blocks.
    pub(super) fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(|block| {
            let Attention { q_proj, k_proj, v_proj, o_proj, .. } = &mut block.self_attn;
            let mlp = match &mut block.mlp {
                Mlp::Swiglu(mlp) => vec![&mut mlp.gate_proj, &mut mlp.up_proj, &mut mlp.down_proj],
                Mlp::Gelu(mlp) => vec![&mut mlp.up_proj, &mut mlp.down_proj],
            };
            [q_proj, k_proj, v_proj, o_proj].into_iter().chain(mlp)
        })
    }
}

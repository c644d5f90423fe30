//! Which operations run in their fast form.

use burn::backend::DispatchDevice;
use burn::tensor::Device;

use super::Precision;

/// How a pass computes: the operations that have a fast form, whether it is used, and the precision of matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // a set
pub struct ComputeOptions {
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
    /// [`matmul`](super::matmul)
    pub matmul: bool,
    /// Products of all rows at once, by Burn's own kernels, where Burn would multiply each sequence by itself
    pub flat_products: bool,
    /// [`join`](super::join): one product for queries, keys and values and one for the MLP's first matrices; with
    /// [`joined_attention`](super::joined_attention)
    pub joined: bool,
    /// [`embedding`](super::embedding)
    pub embedding: bool,
    /// [`dropout`](super::dropout)
    pub dropout: bool,
    /// The optimiser's rule for many parameters at once: `cube::multi_tensor`
    pub multi_tensor: bool,
    /// [`generation`](super::generation): matrices as files store them
    pub decode_matvec: bool,
    /// [`quantized`](super::quantized): matrices in 8 bits
    pub quantized: bool,
    /// Operations share their work among the threads of one pool, on the CPU.
    pub thread_pool: bool,
    /// The precision of matrix products.
    pub precision: Precision,
}

impl ComputeOptions {
    /// The layers' own lines, everywhere.
    pub const READABLE: Self = Self {
        norm: false,
        rotary: false,
        activation: false,
        attention: false,
        cross_entropy: false,
        adam_w: false,
        matmul: false,
        flat_products: false,
        joined: false,
        embedding: false,
        dropout: false,
        multi_tensor: false,
        decode_matvec: false,
        quantized: false,
        thread_pool: false,
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
        matmul: true,
        decode_matvec: true,
        quantized: true,
        thread_pool: true,
        ..Self::PORTABLE
    };

    /// What `cube` has.
    #[cfg(feature = "cube")]
    const CUBE: Self = Self {
        norm: true,
        rotary: true,
        activation: true,
        adam_w: true,
        flat_products: true,
        joined: true,
        embedding: true,
        dropout: true,
        multi_tensor: true,
        quantized: true,
        ..Self::PORTABLE
    };

    /// What `libtorch` has: what `cpu` has, but for generation; LibTorch has threads of its own.
    #[cfg(feature = "tch")]
    const LIBTORCH: Self = Self { decode_matvec: false, quantized: false, thread_pool: false, ..Self::CPU };

    /// What `device` has. A device that this crate does not know computes with the readable lines.
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
            DispatchDevice::Cube(_) => Self::CUBE,
            DispatchDevice::Autodiff(inner) => Self::of(inner),
            _ => Self::READABLE,
        }
    }

    /// Runs `work`, on a CPU inside the pool of threads among which operations share their work: entering it costs as much as
    /// a small operation.
    pub fn run<R: Send>(self, work: impl FnOnce() -> R + Send) -> R {
        #[cfg(feature = "cpu-kernels")]
        if self.thread_pool {
            return rayon::scope(|_| work());
        }
        work()
    }

    /// The fast forms of training, one after the other: each the one before and one operation more.
    pub fn cumulative(self) -> Vec<(&'static str, Self)> {
        let mut steps = vec![("readable", Self { precision: self.precision, ..Self::READABLE })];
        let mut add = |name, has: bool, set: fn(&mut Self)| {
            let mut compute = steps.last().map_or(Self::READABLE, |(_, compute)| *compute);
            set(&mut compute);
            if has {
                steps.push((name, compute));
            }
        };
        add("+ products", self.matmul, |compute| compute.matmul = true);
        add("+ flat products", self.flat_products, |compute| compute.flat_products = true);
        add("+ attention", self.attention, |compute| compute.attention = true);
        add("+ cross-entropy", self.cross_entropy, |compute| compute.cross_entropy = true);
        add("+ norms", self.norm, |compute| compute.norm = true);
        add("+ activations", self.activation, |compute| compute.activation = true);
        add("+ rotary", self.rotary, |compute| compute.rotary = true);
        add("+ joined products", self.joined, |compute| compute.joined = true);
        add("+ embedding", self.embedding, |compute| compute.embedding = true);
        add("+ dropout", self.dropout, |compute| compute.dropout = true);
        add("+ AdamW", self.adam_w, |compute| compute.adam_w = true);
        add("+ many tensors at once", self.multi_tensor, |compute| compute.multi_tensor = true);
        if let Some((_, whole)) = steps.last_mut() {
            *whole = self; // with what is not of training
        }
        steps
    }
}

/// Whether `device` has [`joined_attention`](super::joined_attention) for heads of `width` numbers: its fast memory must hold some rows of them.
pub fn fits_joined_attention(device: &Device, width: usize) -> bool {
    fn fits(device: &DispatchDevice, width: usize) -> bool {
        match device {
            #[cfg(feature = "cube")]
            DispatchDevice::Cube(device) => super::cube::attention::fits(device, width),
            DispatchDevice::Autodiff(inner) => fits(inner, width),
            #[allow(unreachable_patterns)] // in a program with GPU backends alone
            _ => false,
        }
    }
    fits(device.as_dispatch(), width)
}

impl Precision {
    /// Whether products of this precision run on `device`. Burn's Rust backends compute in f32 only.
    pub fn runs_on(self, device: &Device) -> bool {
        self == Self::F32 || (!ComputeOptions::fastest(device).thread_pool && device.supports_dtype(self.dtype()))
    }
}

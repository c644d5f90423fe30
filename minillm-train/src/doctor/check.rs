//! A check as data: something computed in a readable and a fast form, and what is found about it.

use std::rc::Rc;

use minillm_infer::device::DeviceInfo;
pub use minillm_model::cases::{Computed, Part, Place};
use minillm_model::ops::ComputeOptions;

/// How much memory may grow between the steps of [`memory::STEPS`](super::memory::STEPS) all the same. An allocator takes from the system in pieces of some megabytes; a tensor that stays
/// behind in each of 150 steps passes this if it has more than 56 kB.
pub const ALLOWED_BYTES: u64 = 8 << 20;

/// What a form computes with.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The device, and which forms the layers choose.
    pub place: Place,
    /// Among which a training batch is split.
    pub threads: usize,
}

impl Setting {
    /// Computing with these options on a device that was found.
    pub fn new(found: &DeviceInfo, compute: ComputeOptions) -> Self {
        Self { place: Place::new(&found.device, compute), threads: found.training_threads() }
    }
}

/// One form.
pub type Compute = Rc<dyn Fn(&Setting) -> Computed>;

/// The line of the report that a check belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Single operations, forward and backward.
    Operations,
    /// The losses of a tiny model's first steps.
    Training,
    /// The gradient of each of its parameters.
    Gradients,
    /// Generation with the cache.
    Cache,
    /// Whether training needs more and more memory.
    Memory,
}

impl Group {
    /// All, in the order in which they are examined and printed.
    pub const ALL: [Self; 5] = [Self::Operations, Self::Training, Self::Gradients, Self::Cache, Self::Memory];

    /// The name as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operations => "operations",
            Self::Training => "training",
            Self::Gradients => "gradients",
            Self::Cache => "cache",
            Self::Memory => "memory",
        }
    }

    /// The largest difference from the stored values, as a share of the largest of them. All are below one percent: a
    /// wrong sign, mask or layout is off by much more.
    ///
    /// CPU backends sum the same f32 products in another order, and each rounds `exp` in its own way: some 1e-6. GPUs
    /// may compute f32 products in TF32, which keeps 11 bits of a factor (2^-11 = 5e-4), and have functions of their
    /// own. Ten steps of `AdamW`, which divides each gradient by its size, amplify both: backends agree there to 1e-3,
    /// as in `tests/backends.rs`. Gradients pass some ten products.
    pub fn tolerance(self, is_gpu: bool) -> f64 {
        match self {
            Self::Operations if !is_gpu => 2e-5,
            Self::Cache if !is_gpu => 1e-4,
            Self::Operations | Self::Cache => 3e-3,
            Self::Training => 1e-3,
            Self::Gradients => 5e-3,
            Self::Memory => ALLOWED_BYTES as f64,
        }
    }
}

/// Something that every sound device computes alike.
pub struct Check {
    /// Its line of the report.
    pub group: Group,
    /// What it is called there, and in the file of stored values.
    pub name: &'static str,
    /// The layers' own lines.
    pub readable: Compute,
    /// The fast form; runs only where `has_fast` says so.
    pub fast: Compute,
    /// Whether the kernels of a device have a fast form of it.
    pub has_fast: fn(&ComputeOptions) -> bool,
    /// Whether only generation uses it.
    pub for_generation: bool,
    /// The size below which a value counts as zero: what cancels to nothing has no digits to agree on.
    pub smallest: f64,
}

impl Check {
    /// A check whose one function computes both forms, by its setting's options.
    pub fn new(
        group: Group,
        name: &'static str,
        has_fast: fn(&ComputeOptions) -> bool,
        compute: impl Fn(&Setting) -> Computed + 'static,
    ) -> Self {
        let compute: Compute = Rc::new(compute);
        Self { group, name, readable: compute.clone(), fast: compute, has_fast, for_generation: false, smallest: 0.01 }
    }

    /// The same, of an operation that training does not use.
    #[must_use]
    pub fn for_generation(self) -> Self {
        Self { for_generation: true, ..self }
    }
}

/// A form, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The layers' own lines.
    Readable,
    /// What is in `minillm-model/src/ops/`.
    Fast,
    /// One compared with the other.
    Both,
}

impl Form {
    /// The name as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Readable => "readable",
            Self::Fast => "fast",
            Self::Both => "both",
        }
    }
}

/// Which forms to examine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// Each, and one beside the other.
    All,
    /// What runs with `train.kernels = "readable"`.
    Readable,
    /// What runs with `train.kernels = "fast"`: readable where the device has no fast form.
    Fast,
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The problem in words, printed after the names of check and form.
    pub problem: String,
    /// What the user can do about it.
    pub hint: String,
}

/// What an examination of one form came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The check's group.
    pub group: Group,
    /// The check's name.
    pub name: &'static str,
    /// The form.
    pub form: Form,
    /// The largest difference as a share of the largest value (memory: bytes); `None` where nothing could be compared.
    pub error: Option<f64>,
    /// What it may be.
    pub tolerance: f64,
    /// `None` if all is well.
    pub finding: Option<Finding>,
    /// What was computed.
    pub parts: Vec<Part>,
    /// Wall time of computing it; the first time a GPU's kernels are compiled too.
    pub seconds: f64,
}

//! Backends: which are in this program, and opening one by name.
//!
//! Which backends exist is decided when the program is compiled, by features (`--features wgpu`); which of them is used
//! is decided when it starts, by `--device NAME[:INDEX]`. Everything else in the project takes the `Device` it is given.

use burn::tensor::{Device, DeviceType};

use crate::burn_compat::computes_on_cpu;
#[cfg(feature = "gpu")]
use crate::burn_compat::{includes_addition, type_in_atomic};
use crate::error::{Error, Result};

/// One backend: its name on the command line and in Cargo, and what it runs on.
struct Backend {
    name: &'static str,
    description: &'static str,
    /// Preferred by `auto`.
    is_gpu: bool,
    /// `None` where the backend is not compiled in.
    kind: Option<fn() -> DeviceType>,
}

/// The value of a feature-gated `DeviceType`, or `None`.
macro_rules! kind {
    ($feature:literal, $variant:ident) => {{
        #[cfg(feature = $feature)]
        let kind: Option<fn() -> DeviceType> = Some(|| DeviceType::$variant);
        #[cfg(not(feature = $feature))]
        let kind: Option<fn() -> DeviceType> = None;
        kind
    }};
}

/// All backends that the project knows, in the order in which `auto` prefers them.
fn backends() -> [Backend; 9] {
    let backend = |name, description, is_gpu, kind| Backend { name, description, is_gpu, kind };
    [
        backend("cuda", "NVIDIA GPU through CUDA", true, kind!("cuda", Cuda)),
        backend("rocm", "AMD GPU through ROCm", true, kind!("rocm", Rocm)),
        backend("metal", "Apple GPU through Metal", true, kind!("metal", Metal)),
        backend("vulkan", "any GPU through Vulkan and SPIR-V", true, kind!("vulkan", Vulkan)),
        backend("wgpu", "any GPU through wgpu and WGSL", true, kind!("wgpu", Wgpu)),
        backend("webgpu", "any GPU through wgpu and WGSL, pinned to WebGPU", true, kind!("webgpu", WebGpu)),
        backend("tch", "LibTorch", false, kind!("tch", LibTorch)),
        backend("flex", "CPU, pure Rust", false, kind!("flex", Flex)),
        backend("ndarray", "CPU, pure Rust, Burn's older backend", false, kind!("ndarray", NdArray)),
    ]
}

/// A device that can be opened.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// What `--device` takes: `wgpu:0`.
    pub name: String,
    /// The hardware as its driver calls it, or the backend in words.
    pub description: String,
    /// A GPU, or what a graphics driver offers as one.
    pub is_gpu: bool,
    /// A graphics driver that computes on the CPU (llvmpipe, WARP).
    pub is_software: bool,
    /// The device that models and tensors are made on.
    pub device: Device,
}

/// What a device says about itself, as far as its backend passes it on: CPU backends say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceLimits {
    /// What its kernels are compiled for, by the runtime's name.
    pub compiles_for: Option<String>,
    /// The most bytes in one buffer, and so in one tensor.
    pub largest_buffer_bytes: Option<u64>,
    /// The most bytes it may be asked to hold.
    pub memory_bytes: Option<u64>,
    /// Types to one number of which several threads can add at once: `f32`, `i32`.
    pub atomic_add: Option<Vec<String>>,
}

impl DeviceInfo {
    /// Asks the device. Opens it.
    pub fn limits(&self) -> DeviceLimits {
        limits(&self.device)
    }

    /// Threads among which a training batch is split. Burn's Rust backends run most operations on one thread, so they
    /// get one for each core; LibTorch and GPUs use what they have by themselves.
    pub fn training_threads(&self) -> usize {
        if self.name == "flex" || self.name == "ndarray" {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        } else {
            1
        }
    }
}

/// Every device of every backend in this program, best first.
pub fn list() -> Vec<DeviceInfo> {
    backends().iter().flat_map(devices_of).collect()
}

/// Names of the backends in this program, best first.
pub fn compiled() -> Vec<&'static str> {
    backends().iter().filter(|backend| backend.kind.is_some()).map(|backend| backend.name).collect()
}

/// Opens `auto`, `NAME` or `NAME:INDEX`. `auto` is the first real GPU, else the first CPU backend, else a graphics driver that
/// computes on the CPU.
pub fn open(name: &str) -> Result<DeviceInfo> {
    if name == "auto" {
        let found = list();
        let best = found
            .iter()
            .find(|found| found.is_gpu && !found.is_software)
            .or_else(|| found.iter().find(|found| !found.is_gpu))
            .or_else(|| found.first());
        return best.cloned().ok_or_else(|| Error::Device {
            name: name.to_owned(),
            problem: format!("found nothing to compute on (backends in this program: {})", compiled().join(", ")),
            hint: "build with the default features to have the CPU backend `flex`".to_owned(),
        });
    }
    let (backend_name, index) = match name.split_once(':') {
        Some((backend, index)) => (backend, index.parse::<usize>().ok()),
        None => (name, Some(0)),
    };
    let backends = backends();
    let Some(backend) = backends.iter().find(|backend| backend.name == backend_name) else {
        let known: Vec<_> = backends.iter().map(|backend| backend.name).collect();
        return Err(Error::Device {
            name: name.to_owned(),
            problem: "is not a backend".to_owned(),
            hint: format!("known backends: {}", known.join(", ")),
        });
    };
    if backend.kind.is_none() {
        return Err(Error::Device {
            name: name.to_owned(),
            problem: "is not compiled into this program".to_owned(),
            hint: format!("build it with `--features {}`; this program has: {}", backend.name, compiled().join(", ")),
        });
    }
    let devices = devices_of(backend);
    let count = devices.len();
    index.and_then(|index| devices.into_iter().nth(index)).ok_or_else(|| Error::Device {
        name: name.to_owned(),
        problem: match count {
            _ if index.is_none() => "has an index that is not a number".to_owned(),
            0 => "found no hardware".to_owned(),
            1 => "does not exist; there is one".to_owned(),
            _ => format!("does not exist; there are {count}"),
        },
        hint: match count {
            0 => "check that the driver is installed, or choose another device".to_owned(),
            1 => format!("choose {backend_name}"),
            _ => format!("choose {backend_name}:0 to {backend_name}:{}", count - 1),
        },
    })
}

fn devices_of(backend: &Backend) -> Vec<DeviceInfo> {
    let Some(kind) = backend.kind else { return Vec::new() };
    let mut devices = Device::enumerate(kind()).into_vec();
    if backend.name == "tch" {
        devices.extend(libtorch_cpu()); // Burn lists only its CUDA devices
    }
    if backend.is_gpu {
        devices.iter().for_each(leave_memory_unmeasured);
    }
    let many = devices.len() > 1 || backend.is_gpu;
    devices
        .into_iter()
        .enumerate()
        .map(|(index, device)| DeviceInfo {
            name: if many { format!("{}:{index}", backend.name) } else { backend.name.to_owned() },
            description: hardware_name(&device).unwrap_or_else(|| backend.description.to_owned()),
            is_gpu: backend.is_gpu,
            is_software: backend.is_gpu && computes_on_cpu(&device),
            device,
        })
        .collect()
}

#[cfg(feature = "tch")]
fn libtorch_cpu() -> Option<Device> {
    Some(Device::libtorch())
}

#[cfg(not(feature = "tch"))]
fn libtorch_cpu() -> Option<Device> {
    None
}

/// Tells `CubeCL` that the bandwidth of the device's memory is unknown. It would measure that before it chooses its first kernel, with buffers
/// of a gigabyte, however little memory the device has: Google's software driver, and so perhaps a small GPU, refuses them, and every error
/// after that is a consequence. Without the number its choice of kernels ends no search early.
#[cfg(feature = "gpu")]
fn leave_memory_unmeasured(device: &Device) {
    use cubecl::throughput::{
        DEFAULT_WORKING_SET_BYTES, MemoryAccess, MemorySpec, ThroughputKey, ThroughputMode, ThroughputValue,
        working_set_sweep,
    };

    let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() else { return };
    let client = device.client();
    let largest = DEFAULT_WORKING_SET_BYTES.min(client.properties().memory.max_page_size / 2).max(1);
    for access in [MemoryAccess::Copy, MemoryAccess::Read, MemoryAccess::Write] {
        let sizes = working_set_sweep(largest * access.buffers());
        for bytes in sizes.into_iter().chain([access.default_working_set()]) {
            let mode = ThroughputMode::Memory(MemorySpec::new(access, bytes));
            // What was measured before stays.
            let _ = client.measure_throughput(ThroughputKey { mode }, || Ok(ThroughputValue::ZERO));
        }
    }
}

#[cfg(not(feature = "gpu"))]
fn leave_memory_unmeasured(_device: &Device) {}

#[cfg(feature = "gpu")]
fn hardware_name(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name.clone())
}

#[cfg(not(feature = "gpu"))]
fn hardware_name(_device: &Device) -> Option<String> {
    None
}

#[cfg(feature = "gpu")]
fn limits(device: &Device) -> DeviceLimits {
    let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() else { return DeviceLimits::default() };
    let client = device.client();
    let properties = client.properties();
    let atomics = properties.features.types.atomic.iter().filter(|(_, uses)| includes_addition(uses));
    DeviceLimits {
        compiles_for: Some(properties.identity.fingerprint.clone()),
        largest_buffer_bytes: Some(properties.memory.max_page_size),
        memory_bytes: properties.memory.max_memory(),
        atomic_add: Some(atomics.map(|(kind, _)| type_in_atomic(&kind.to_string())).collect()),
    }
}

#[cfg(not(feature = "gpu"))]
fn limits(_device: &Device) -> DeviceLimits {
    DeviceLimits::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_backend_of_this_build_opens() {
        for backend in backends().iter().filter(|backend| !backend.is_gpu && backend.kind.is_some()) {
            let found = open(backend.name).unwrap();
            let sum: f32 = burn::tensor::Tensor::<1>::from_data([1.0, 2.0], &found.device).sum().into_scalar();
            assert!((sum - 3.0).abs() < 1e-6, "{}", backend.name);
            assert!(list().iter().any(|other| other.name == found.name));
        }
        assert!(compiled().contains(&"flex"), "the tests compare every backend with flex");
    }

    /// A device that `ComputeOptions` does not know runs the layers' own lines: right, but slow without a word.
    #[test]
    fn every_device_has_fast_forms() {
        use minillm_model::ops::ComputeOptions;
        for found in list() {
            assert_ne!(ComputeOptions::fastest(&found.device), ComputeOptions::READABLE, "{}", found.name);
            let training = found.device.clone().autodiff();
            assert_ne!(ComputeOptions::fastest(&training), ComputeOptions::READABLE, "{}, training", found.name);
        }
    }
}

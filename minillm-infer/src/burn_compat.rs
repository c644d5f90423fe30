//! What depends on a text or a habit of Burn that its types do not promise: the first place to look at when Burn is updated.
//! The tests make the real Burn say what it can say on a CPU.

use burn::tensor::Device;
use tracing::Level;

/// Sources in the log where a warning means that something was not computed: the runner thread, and fused operations.
const WARNINGS: [&str; 2] = ["cubecl_common::device", "burn_fusion"];
/// Where it takes an error: a device that is lost. Their warnings are about what was not measured, or come again as an error when
/// the numbers are read.
const ERRORS: [&str; 3] = ["cubecl_wgpu::compute", "cubecl_cuda::compute", "cubecl_hip::compute"];

/// Whether a message in the log, by the module that it comes from, says that work of a device failed. Work fails on a
/// thread of Burn's, which passes the error on to nobody who is sure to ask.
pub fn means_failed_work(source: &str, level: Level) -> bool {
    let is_from = |sources: &[&str]| sources.iter().any(|start| source.starts_with(start));
    level <= Level::WARN && is_from(&WARNINGS) || level == Level::ERROR && is_from(&ERRORS)
}

/// Whether a message in the log, by the module that it comes from, says that a device computes nothing more.
pub fn means_lost_device(source: &str, level: Level) -> bool {
    level == Level::ERROR && source == "cubecl_wgpu::compute::device_poison"
}

/// The problem in the message of a panic after which a device computes nothing more, by the file that panicked: wgpu's own errors,
/// which nobody catches (no memory), a device that cannot be opened, and the clearing up after either, arrive as panics of the device's
/// thread.
pub fn means_broken_device<'a>(message: &'a str, file: &str) -> Option<&'a str> {
    let starts = ["wgpu error: ", "Unable to acquire wgpu device: ", "Unable to initialize wgpu runtime: "];
    let problem = starts.iter().find_map(|start| message.strip_prefix(start)).map(str::trim);
    problem.or_else(|| file.contains("wgpu-hal").then_some(message))
}

/// Whether a device computes on the CPU. Its type is opaque; its debug form names the kind of wgpu's adapter, which is
/// `Cpu` for a graphics driver without a GPU.
pub fn computes_on_cpu(device: &Device) -> bool {
    format!("{device:?}").contains("Cpu")
}

/// Whether the ways in which a device can use an atomic type include addition. `CubeCL`'s own type for them is not among
/// those that Burn hands on, but its debug form lists them.
#[cfg(feature = "gpu")]
pub fn includes_addition(uses: &impl std::fmt::Debug) -> bool {
    format!("{uses:?}").contains("Add")
}

/// `f32` of `atomic<f32>`, as `CubeCL` displays an atomic type.
#[cfg(feature = "gpu")]
pub fn type_in_atomic(name: &str) -> String {
    name.trim_start_matches("atomic<").trim_end_matches('>').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Burn's CPU backend has the same word in its debug form as a graphics driver without a GPU. (The log's sources are seen
    /// in `tests/device_failures.rs`.)
    #[cfg(feature = "flex")]
    #[test]
    fn a_device_says_that_it_computes_on_the_cpu() {
        assert!(computes_on_cpu(&Device::flex()));
        assert!(computes_on_cpu(&Device::flex().autodiff()));
    }

    /// The other words are those of GPU backends: `.ci/run` sees them on software Vulkan.
    #[cfg(feature = "wgpu")]
    #[test]
    fn a_graphics_driver_without_a_gpu_says_so_and_what_it_adds() {
        for found in crate::device::list().into_iter().filter(|found| found.description.contains("llvmpipe")) {
            assert!(found.is_software, "{found:?}");
            let added = found.limits().atomic_add.unwrap();
            assert!(added.iter().any(|name| name == "i32") && added.iter().any(|name| name == "u32"), "{added:?}");
        }
    }

    #[test]
    fn panics_of_a_broken_device_are_told_from_others() {
        let file = "registry/cubecl-wgpu-0.11.3/src/runtime.rs";
        assert_eq!(means_broken_device("wgpu error: Out of Memory\n", file), Some("Out of Memory"));
        assert_eq!(means_broken_device("Unable to acquire wgpu device: Lost", file), Some("Lost"));
        assert_eq!(means_broken_device("index out of bounds", file), None);
        let driver = "registry/wgpu-hal-30.0.1/src/vulkan/descriptor.rs";
        assert_eq!(means_broken_device("buckets are not empty", driver), Some("buckets are not empty"));
    }

    #[test]
    fn warnings_and_errors_are_told_apart() {
        assert!(means_failed_work("cubecl_common::device::handle::channel", Level::WARN));
        assert!(means_failed_work("burn_fusion::stream::queue::execution", Level::WARN));
        assert!(!means_failed_work("burn_fusion::stream", Level::INFO));
        assert!(means_failed_work("cubecl_wgpu::compute::device_poison", Level::ERROR));
        assert!(!means_failed_work("cubecl_wgpu::compute::stream", Level::WARN));
        assert!(!means_failed_work("burn_optim", Level::ERROR));
        assert!(means_lost_device("cubecl_wgpu::compute::device_poison", Level::ERROR));
        assert!(!means_lost_device("cubecl_wgpu::compute::stream", Level::ERROR));
    }
}

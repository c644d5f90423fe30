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

/// The problem in the message of a panic after which a device computes nothing more: wgpu's own errors, which nobody catches (no memory,
/// a lost device), arrive as panics of the device's thread.
pub fn means_broken_device(message: &str) -> Option<&str> {
    message.strip_prefix("wgpu error: ").map(str::trim)
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
        assert_eq!(means_broken_device("wgpu error: Out of Memory\n"), Some("Out of Memory"));
        assert_eq!(means_broken_device("index out of bounds"), None);
    }

    #[test]
    fn warnings_and_errors_are_told_apart() {
        assert!(means_failed_work("cubecl_common::device::handle::channel", Level::WARN));
        assert!(means_failed_work("burn_fusion::stream::queue::execution", Level::WARN));
        assert!(!means_failed_work("burn_fusion::stream", Level::INFO));
        assert!(means_failed_work("cubecl_wgpu::compute::device_poison", Level::ERROR));
        assert!(!means_failed_work("cubecl_wgpu::compute::stream", Level::WARN));
        assert!(!means_failed_work("burn_optim", Level::ERROR));
    }
}

//! How much memory of its own a device has used.

use burn::tensor::Device;

/// What the backend has taken of a GPU's memory, in bytes, compiled kernels not counted. It gives little of that back, so that
/// after some equal steps this is about the most that one of them needs. `None` on CPU backends, where tensors are this process's
/// memory, and on LibTorch, which does not say.
pub fn device_memory_bytes(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}

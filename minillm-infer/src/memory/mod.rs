//! How much memory this process and its device have used and how much there is, and when freed memory goes back to the system.

mod allocator;
mod device;
mod process;

pub use self::allocator::{keep_freed_memory, return_drivers_memory};
pub use self::device::device_memory_bytes;
pub use self::process::{available_memory_bytes, peak_memory_bytes, resident_memory_bytes};

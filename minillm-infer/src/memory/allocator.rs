//! When freed memory goes back to the system: settings of the allocators, for the programs.

/// `mi_option_purge_delay` of mimalloc.h, in milliseconds.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// `mi_option_arena_purge_mult`: how many times that delay for regions of 32 MiB that are free as a whole.
const REGIONS_TIMES: libmimalloc_sys::mi_option_t = 24;

/// How long freed memory is kept before the system gets it back, in milliseconds; mimalloc's own choice is 10. With
/// LibTorch and 100, faulting memory in again took 6 % of a medium model's step.
const KEPT: std::ffi::c_long = if cfg!(feature = "tch") { 1000 } else { 100 };

/// Lets mimalloc, the programs' allocator, keep freed memory for `KEPT`. By default it is less than a
/// training step, and the next step would get the same memory again as fresh pages, which the system fills with zeros first. Longer
/// does not make steps of the Rust backends faster, and costs memory: what one size of tensor has freed does not serve another.
///
/// Whole regions go back as soon, not after ten times as long as by default: with that, 5 of 13 training processes of 87 MB had 97 from
/// some step on. (Probably another thread took a region over, and pages taken over are not given back.)
///
/// Called once, at the beginning of a program that uses mimalloc.
pub fn keep_freed_memory() {
    // SAFETY: sets numbers that mimalloc reads; they may be set at any time, from any thread.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT);
        libmimalloc_sys::mi_option_set(REGIONS_TIMES, 1);
    }
}

/// Lets what a graphics driver frees go back to the system. Drivers compile in C and C++, whose allocator keeps the pages between
/// what a compiled kernel still needs: with software Vulkan a quarter of a process that trains a small model. Called once, by programs
/// that may use a GPU; does something only where the allocator is glibc's.
#[cfg(all(feature = "gpu", target_os = "linux", target_env = "gnu"))]
pub fn return_drivers_memory() {
    use std::thread;
    use std::time::Duration;

    use super::process::resident_memory_bytes;

    /// How far memory may grow in between, and how often it is looked at: 300 kernels are compiled in some seconds.
    const GROWTH: u64 = 8 << 20;
    const INTERVAL: Duration = Duration::from_millis(100);

    let watch = || {
        let resident = || resident_memory_bytes().unwrap_or(0);
        let mut most = 0; // after a call; it only grows, so a process that has settled is left alone
        loop {
            thread::sleep(INTERVAL);
            if resident() > most + GROWTH {
                // SAFETY: takes a number and may be called at any time, from any thread.
                #[allow(unsafe_code)]
                unsafe {
                    libc::malloc_trim(0);
                }
                most = most.max(resident());
            }
        }
    };
    // A system without a thread to spare keeps the memory.
    let _ = thread::Builder::new().name("drivers' memory".to_owned()).spawn(watch);
}

/// Nothing: there is no driver, or its allocator is not glibc's.
#[cfg(not(all(feature = "gpu", target_os = "linux", target_env = "gnu")))]
pub fn return_drivers_memory() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the options are mimalloc's and might change: they are the ones whose default is ten, of milliseconds and of times.
    #[test]
    fn the_options_are_the_ones_that_are_meant() {
        // SAFETY: reads a number.
        #[allow(unsafe_code)]
        let options = || [PURGE_DELAY, REGIONS_TIMES].map(|option| unsafe { libmimalloc_sys::mi_option_get(option) });
        assert_eq!(options(), [10, 10]);
        keep_freed_memory();
        assert_eq!(options(), [KEPT, 1]);
    }
}

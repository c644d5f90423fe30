//! How much memory this process has used and how much there is, and when freed memory goes back.

/// `mi_option_purge_delay` of mimalloc.h, in milliseconds.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Lets mimalloc, the programs' allocator, keep freed memory ten times as long as by default before the system gets it back: 0.1
/// seconds, and large regions a second. By default it is less than a training step, and the next step would get the same
/// memory again as fresh pages, which the system fills with zeros first. Longer does not make steps faster, and costs memory: what one
/// size of tensor has freed does not serve another. Called once, at the beginning of a program that uses mimalloc.
pub fn keep_freed_memory() {
    // SAFETY: sets a number that mimalloc reads; it may be set at any time, from any thread.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, 100);
    }
}

/// The largest resident size of this process so far, where the system tells (Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM:")
}

/// The resident size of this process now, where the system tells (Linux).
pub fn resident_memory_bytes() -> Option<u64> {
    kilobytes("/proc/self/status", "VmRSS:")
}

/// What programs could still take without swapping, where the system tells (Linux).
pub fn available_memory_bytes() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

/// The number in a line `NAME   12345 kB`, in bytes.
fn kilobytes(file: &str, name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the option is mimalloc's and might change: it is the one whose default is ten milliseconds.
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reads a number.
        #[allow(unsafe_code)]
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 10);
        keep_freed_memory();
        assert_eq!(delay(), 100);
    }
}

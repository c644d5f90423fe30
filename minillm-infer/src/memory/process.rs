//! How much memory this process has used, and how much there is. Linux tells; elsewhere nothing is known.

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

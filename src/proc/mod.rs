//! What Linux says in `/proc`: of this process what is mounted for it and which control groups it is in; of the machine its memory.

pub(crate) mod groups;
pub(crate) mod mounts;

/// Bytes of the machine's memory that can be had without swapping.
pub(crate) fn available_memory() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

//! What limits the memory of this process, as the system says.

use crate::core::memory::{limit_files, parse_available, parse_limit};

/// The least of the limits of the control groups around this process and of what the machine has left, in bytes.
/// `None` where neither can be read.
pub(super) fn limit() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| parse_limit(&read(&path)?));
    let available = read("/proc/meminfo").and_then(|text| parse_available(&text));
    limits.chain(available).min()
}

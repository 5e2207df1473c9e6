//! How much of a machine's memory a world may take, and when to say that it grows tight.
//!
//! A world that does not fit would end the edge in the middle of its work, so it is judged by what central says it
//! takes, before it comes. What limits the process is read by the shell; what those files mean is here.

/// For the program itself, its threads, the keys and the caches of TLS.
const FIXED_BYTES: u64 = 64 << 20;

/// Beyond this part of what it may take a world is said to be tight.
const TIGHT_PERCENT: u64 = 90;
/// Below this part it is said no more. Apart from the other, so that a world at the border is not said at each batch.
const EASY_PERCENT: u64 = 85;

/// The bytes, by the formula of [`carillon_world::Usage`], that worlds may take of a process that may take
/// `memory_max` bytes: three quarters of what the program leaves. The other quarter is for connections, for what is
/// under way, and for what the allocator has not given back.
pub fn for_worlds(memory_max: u64) -> u64 {
    memory_max.saturating_sub(FIXED_BYTES) / 4 * 3
}

/// The limit in a control group's file, `memory.max` of version 2 or `memory.limit_in_bytes` of version 1. `None`
/// where it says that there is none.
pub fn parse_limit(text: &str) -> Option<u64> {
    /// Version 1 says "none" with the largest multiple of a page.
    const NONE: u64 = 1 << 62;
    text.trim().parse().ok().filter(|bytes| *bytes < NONE)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
pub fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The folders of the control groups that the process is in, from `/proc/self/cgroup`: each with the files that may
/// hold a limit, the innermost first. An outer group limits as well.
pub fn limit_files(cgroup: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{file}"));
            let Some((outer, _)) = path.rsplit_once('/') else { break };
            path = outer;
        }
    }
    files
}

/// Says once when a world becomes tight, and once when it is no more.
#[derive(Debug)]
pub struct Tightness {
    available: u64,
    tight: bool,
}

impl Tightness {
    pub fn new(available: u64) -> Tightness {
        Tightness { available, tight: false }
    }

    /// Takes what the world takes; `Some` if that made the difference.
    pub fn handle_usage(&mut self, bytes: u64) -> Option<bool> {
        let percent = if self.tight { EASY_PERCENT } else { TIGHT_PERCENT };
        let tight = bytes > self.available / 100 * percent;
        (std::mem::replace(&mut self.tight, tight) != tight).then_some(tight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_gets_three_quarters_of_what_the_program_leaves() {
        assert_eq!(for_worlds((64 << 20) + 4_000), 3_000);
        assert_eq!(for_worlds(1 << 20), 0, "and never less than nothing");
    }

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_limit("536870912\n"), Some(536_870_912));
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("9223372036854771712\n"), None, "version 1 without a limit");
        assert_eq!(parse_limit(""), None);
        let meminfo = "MemTotal:       24573308 kB\nMemFree: 1 kB\nMemAvailable:   12345 kB\n";
        assert_eq!(parse_available(meminfo), Some(12_345 * 1024));
        assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn every_group_around_the_process_is_asked() {
        assert_eq!(
            limit_files("0::/kubepods/pod1\n"),
            [
                "/sys/fs/cgroup/kubepods/pod1/memory.max",
                "/sys/fs/cgroup/kubepods/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            limit_files("12:cpu,cpuacct:/a\n5:memory:/a\nnonsense\n"),
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
    }

    #[test]
    fn tightness_is_said_once_on_each_side_of_the_border() {
        let mut tightness = Tightness::new(1_000);
        let said = [900, 901, 902, 900, 851, 850, 900, 901].map(|b| tightness.handle_usage(b));
        assert_eq!(said, [None, Some(true), None, None, None, Some(false), None, Some(true)]);
    }
}

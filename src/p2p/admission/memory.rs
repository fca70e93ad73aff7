//! Limit on the resident memory of this process.

use std::fs;
use std::time::Duration;

use libp2p::memory_connection_limits::Behaviour;

/// Share of the machine's or container's memory that is the default limit.
const SHARE: f64 = 0.9;

/// Interval of checks.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Returns the limit in bytes: the configured one, and where that is 0, nine tenths of the available memory.
pub(crate) fn limit(configured: usize) -> usize {
    let read = |file: &str| fs::read_to_string(file).ok();
    let machine = Behaviour::with_max_percentage(SHARE).max_allowed_bytes();
    choose(configured, machine, container(read))
}

/// Chooses from the configured limit, nine tenths of the machine's memory, and the container's memory.
fn choose(configured: usize, machine: usize, container: Option<u64>) -> usize {
    if configured > 0 {
        return configured;
    }
    container.map_or(machine, |bytes| machine.min((bytes as f64 * SHARE) as usize))
}

/// Returns the memory limit of this process's control group: version 2 as a container and as a service sees it, and
/// version 1. `read` returns a file's text.
fn container(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let group = read("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let files = [
        format!("/sys/fs/cgroup{group}/memory.max"),
        "/sys/fs/cgroup/memory.max".into(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".into(),
    ];
    files.iter().filter_map(|file| read(file)?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_configured_or_nine_tenths_of_the_available_memory() {
        assert_eq!(choose(12345, 9, Some(1)), 12345);
        assert_eq!(choose(0, 900, None), 900);
        assert_eq!(choose(0, 900, Some(100)), 90);
        assert_eq!(choose(0, 900, Some(1 << 62)), 900);
        let machine = Behaviour::with_max_percentage(SHARE).max_allowed_bytes();
        assert!((1..=machine).contains(&limit(0)), "this machine's, or less");
    }

    #[test]
    fn the_least_limit_of_the_control_group_counts() {
        let (own, root) = ("/sys/fs/cgroup/a.slice/b.service/memory.max", "/sys/fs/cgroup/memory.max");
        let first_version = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        type Files = [(&'static str, &'static str)];
        let cases: [(&str, &Files, Option<u64>); 6] = [
            ("", &[], None),
            ("0::/a.slice/b.service\n", &[(own, "max\n")], None),
            ("0::/a.slice/b.service\n", &[(own, "1000\n"), (root, "max\n")], Some(1000)),
            ("0::/a.slice/b.service\n", &[(own, "3000\n"), (root, "2000\n")], Some(2000)),
            ("0::/\n", &[(root, "2000\n")], Some(2000)),
            ("4:memory:/docker/a\n1:cpu:/docker/a\n", &[(first_version, "4000\n")], Some(4000)),
        ];
        for (groups, files, expected) in cases {
            let group = [("/proc/self/cgroup", groups)];
            let read = |path: &str| {
                let file = group.iter().chain(files).find(|(file, _)| *file == path);
                file.map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(container(read), expected, "{groups}{files:?}");
        }
    }
}

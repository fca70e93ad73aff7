//! How much memory this process may have before it takes no more connections, and lets strangers go.

use std::fs;
use std::time::Duration;

use libp2p::memory_connection_limits::Behaviour;

/// Of what the machine, or the container, has.
const SHARE: f64 = 0.9;

/// How often to look whether it is too much.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The limit in bytes: what is configured, and where that is 0, nine tenths of what there is.
pub(crate) fn limit(configured: usize) -> usize {
    let read = |file: &str| fs::read_to_string(file).ok();
    let machine = Behaviour::with_max_percentage(SHARE).max_allowed_bytes();
    choose(configured, machine, container(read))
}

/// The limit, of what is configured, nine tenths of what the machine has, and what the container has.
fn choose(configured: usize, machine: usize, container: Option<u64>) -> usize {
    if configured > 0 {
        return configured;
    }
    container.map_or(machine, |bytes| machine.min((bytes as f64 * SHARE) as usize))
}

/// What the control group of this process may have, if it has a limit: version 2 as a container and as a service sees it,
/// and version 1. `read` gives a file's text.
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
    fn the_limit_is_what_is_configured_or_nine_tenths_of_the_least_there_is() {
        assert_eq!(choose(12345, 9, Some(1)), 12345);
        assert_eq!(choose(0, 900, None), 900);
        assert_eq!(choose(0, 900, Some(100)), 90);
        assert_eq!(choose(0, 900, Some(1 << 62)), 900);
        let machine = Behaviour::with_max_percentage(SHARE).max_allowed_bytes();
        assert!((1..=machine).contains(&limit(0)), "this machine's, or less");
    }

    #[test]
    fn a_container_has_the_least_that_its_files_say() {
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

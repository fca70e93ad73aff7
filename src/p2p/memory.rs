//! How much memory this process may have before it takes no more connections.

use std::fs;

use libp2p::memory_connection_limits::Behaviour;

/// Of what the machine, or the container, has.
const SHARE: f64 = 0.9;

/// The limit in bytes: what is configured, and where that is 0, nine tenths of what there is.
pub(super) fn limit(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    let machine = Behaviour::with_max_percentage(SHARE).max_allowed_bytes();
    container().map_or(machine, |bytes| machine.min((bytes as f64 * SHARE) as usize))
}

/// What the control group of this process may have, if it has a limit: version 2 as a container and as a service sees it,
/// and version 1.
fn container() -> Option<u64> {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned();
    let files = [
        format!("/sys/fs/cgroup{group}/memory.max"),
        "/sys/fs/cgroup/memory.max".into(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".into(),
    ];
    files.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_limit_in_any_case() {
        assert_eq!(limit(12345), 12345);
        let bytes = limit(0);
        assert!(bytes > 64 << 20 && bytes < 1 << 50, "{bytes}");
    }
}

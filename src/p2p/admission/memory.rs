//! Limit on the resident memory of this process, and shedding of untrusted peers above it.
//!
//! | | |
//! | --- | --- |
//! | shedding starts | above the limit |
//! | shedding ends | at 95 % of the limit |
//! | peers disconnected at a time | a quarter of the untrusted ones |
//! | wait until the next ones | 2 s, doubled each time up to 64 s; none where memory has grown by 1 % |
//!
//! The allocator may keep freed memory, so that disconnecting peers does not lower the resident memory at once, or at
//! all. The growing wait keeps most peers connected then.

use std::fs;
use std::time::{Duration, Instant};

use libp2p::memory_connection_limits::Behaviour;

/// Share of the machine's or container's memory that is the default limit.
const SHARE: f64 = 0.9;

/// Interval of checks.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Percentage of the limit at which shedding ends.
const END_PERCENT: u64 = 95;
/// Share of the untrusted peers that are disconnected at a time: one in so many.
const SHED_ONE_IN: usize = 4;
/// Shortest and longest wait between two rounds of shedding.
const MIN_WAIT: Duration = Duration::from_secs(2);
const MAX_WAIT: Duration = Duration::from_secs(64);

/// Number of peers to disconnect in one round, of all that are untrusted.
pub(crate) fn shed_count(untrusted: usize) -> usize {
    untrusted.div_ceil(SHED_ONE_IN)
}

/// Decides when to shed untrusted peers.
pub(crate) struct MemoryPressure {
    limit: u64,
    /// `None` while memory is within the limit.
    shedding: Option<Shedding>,
}

struct Shedding {
    next: Instant,
    wait: Duration,
    /// Highest resident memory so far.
    peak: u64,
}

impl MemoryPressure {
    /// `limit` in bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit as u64, shedding: None }
    }

    /// Whether to shed peers now, with so many `resident` bytes, if known.
    pub fn is_shedding_due(&mut self, resident: Option<u64>, now: Instant) -> bool {
        let resident = resident.unwrap_or(0);
        let threshold = if self.shedding.is_some() { self.limit / 100 * END_PERCENT } else { self.limit };
        if resident <= threshold {
            self.shedding = None;
            return false;
        }
        let shedding = self.shedding.get_or_insert(Shedding { next: now, wait: MIN_WAIT, peak: resident });
        if resident > shedding.peak + shedding.peak / 100 {
            *shedding = Shedding { next: now, wait: MIN_WAIT, peak: resident };
        }
        if now < shedding.next {
            return false;
        }
        shedding.next = now + shedding.wait;
        shedding.wait = (shedding.wait * 2).min(MAX_WAIT);
        true
    }
}

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
    fn shedding_is_gradual_and_ends_below_the_limit() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut memory = MemoryPressure::new(1000);
        assert!(!memory.is_shedding_due(Some(1000), at(0)) && !memory.is_shedding_due(None, at(0)));
        // Memory that stays as it is: the wait doubles.
        let rounds: Vec<_> = (0..200).filter(|second| memory.is_shedding_due(Some(1010), at(*second))).collect();
        assert_eq!(rounds, [0, 2, 6, 14, 30, 62, 126, 190]);
        let mut left = 224;
        rounds.iter().for_each(|_| left -= shed_count(left));
        assert_eq!((left, shed_count(1), shed_count(0)), (21, 1, 0));
        assert!(!memory.is_shedding_due(Some(1015), at(200)), "within 1 %");
        assert!(memory.is_shedding_due(Some(1100), at(200)), "memory grows");
        assert!(memory.is_shedding_due(Some(960), at(202)), "below the limit, and above 95 % of it");
        assert!(!memory.is_shedding_due(Some(950), at(300)));
        assert!(!memory.is_shedding_due(Some(990), at(300)), "within the limit");
        assert!(memory.is_shedding_due(Some(1001), at(300)));
    }

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

//! How much memory there is for RandomX's full-memory mode.

use std::{fs, path::Path};

use super::options::PowError;

/// The data set, and beside it the cache that it is made from and the one that confirms hashes.
const FULL_MIB: u64 = 2080 + 2 * 256;

/// What light mode takes: its cache, and the machines and the code of some threads.
const LIGHT_MIB: u64 = 256 + 64;

/// What must be left for everything else.
const SPARE_MIB: u64 = 1024;

/// Whether full-memory mode can be set up. Where nothing is known about memory, which is wherever there is no `/proc`,
/// it can.
///
/// # Errors
/// [`PowError::Memory`] if it can't.
pub(super) fn check_full() -> Result<(), PowError> {
    let needed_mib = FULL_MIB + SPARE_MIB;
    match available_mib(Path::new("/")) {
        Some(available_mib) if available_mib < needed_mib => Err(PowError::Memory { needed_mib, available_mib }),
        _ => Ok(()),
    }
}

/// Whether the system gives this process the memory of a mode. RandomX itself does not look, and a cache that it did
/// not get would end the process.
///
/// # Errors
/// [`PowError::Limit`].
pub(super) fn check_limit(full: bool) -> Result<(), PowError> {
    let needed_mib = if full { FULL_MIB } else { LIGHT_MIB };
    if is_given(needed_mib) { Ok(()) } else { Err(PowError::Limit { needed_mib }) }
}

fn is_given(mib: u64) -> bool {
    let mut memory = Vec::<u8>::new();
    let is_given = usize::try_from(mib << 20).is_ok_and(|bytes| memory.try_reserve_exact(bytes).is_ok());
    // Else the compiler may leave out what is never used.
    std::hint::black_box(&memory);
    is_given
}

/// Memory that the process may still take: the system's, or less if a control group of the process, or one above it,
/// has less left. `root` is `/`.
fn available_mib(root: &Path) -> Option<u64> {
    let system = field(&read(root, "proc/meminfo")?, "MemAvailable:")? / 1024;
    let groups = read(root, "proc/self/cgroup").unwrap_or_default();
    let groups = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers {
            "" => Some(V2.left(root, path)),
            _ if controllers.split(',').any(|controller| controller == "memory") => Some(V1.left(root, path)),
            _ => None,
        }
    });
    Some(groups.flatten().map(|bytes| bytes >> 20).fold(system, u64::min))
}

/// The files of one version of control groups.
struct Version {
    folder: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Field of `memory.stat`: pages of files that are given up when memory is wanted, which count as used.
    reclaimable: &'static str,
}

const V1: Version = Version {
    folder: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

const V2: Version =
    Version { folder: "sys/fs/cgroup", limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file" };

impl Version {
    /// Bytes that are left to the group at `path`: the least of what it and those above it have. Inside a container the
    /// path may be the host's, whose folders aren't there; the container's own group is then the topmost.
    fn left(&self, root: &Path, path: &str) -> Option<u64> {
        let folder = root.join(self.folder);
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        let left = |group: &Path| {
            let group = folder.join(group);
            let limit: u64 = read(&group, self.limit)?.trim().parse().ok()?;
            let usage: u64 = read(&group, self.usage)?.trim().parse().ok()?;
            let reclaimable = read(&group, "memory.stat").and_then(|stat| field(&stat, self.reclaimable));
            Some(limit.saturating_sub(usage).saturating_add(reclaimable.unwrap_or_default()))
        };
        groups.filter_map(left).min()
    }
}

fn read(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok()
}

/// The number behind `name` in a file of names and numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '\t']))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn what_the_system_does_not_give_is_not_taken() {
        assert!(is_given(1) && check_limit(false).is_ok());
        // 2^50 bytes, more than an address space has.
        assert!(!is_given(1 << 30));
    }

    const MEMINFO: &str = "MemTotal:       16384000 kB\nMemFree: 10 kB\nMemAvailable:    8192000 kB\nBuffers: 1 kB\n";
    const MIB_4000: &str = "4194304000\n";
    const MIB_1000: &str = "1048576000\n";

    #[rstest]
    #[case::no_groups(&[], Some(8000))]
    #[case::no_limit(
        &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n"), ("sys/fs/cgroup/memory.current", "5\n")],
        Some(8000)
    )]
    #[case::own_group(
        &[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", MIB_4000),
            ("sys/fs/cgroup/memory.current", MIB_1000),
        ],
        Some(3000)
    )]
    #[case::file_pages_are_free(
        &[
            ("proc/self/cgroup", "0::/a.slice\n"),
            ("sys/fs/cgroup/a.slice/memory.max", MIB_4000),
            ("sys/fs/cgroup/a.slice/memory.current", MIB_1000),
            ("sys/fs/cgroup/a.slice/memory.stat", "anon 7\ninactive_file 524288000\n"),
        ],
        Some(3500)
    )]
    #[case::a_group_above(
        &[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", MIB_4000),
            ("sys/fs/cgroup/a/memory.current", MIB_1000),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", MIB_1000),
        ],
        Some(3000)
    )]
    #[case::first_version(
        &[
            ("proc/self/cgroup", "12:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/docker/1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", MIB_4000),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", MIB_4000),
        ],
        Some(0)
    )]
    #[case::more_than_the_system_has(
        &[
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", MIB_1000),
        ],
        Some(8000)
    )]
    fn the_least_that_any_limit_leaves(#[case] files: &[(&str, &str)], #[case] expected: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", MEMINFO)].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(available_mib(root.path()), expected);
    }

    #[test]
    fn without_proc_nothing_is_known() {
        assert_eq!(available_mib(tempfile::tempdir().unwrap().path()), None);
    }
}

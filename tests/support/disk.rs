//! A disk that can be filled.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A small file system in memory. Unmounted, and its folder deleted, when this is dropped or the test program ends in
/// any way.
pub struct SmallDisk {
    folder: PathBuf,
    watcher: Child,
}

impl SmallDisk {
    /// One of so many MiB.
    pub fn mount(mib: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("modal-gateway-disk").tempdir().unwrap().keep();
        let clear =
            format!("trap '' HUP INT TERM; cat >/dev/null; umount -l {0} 2>/dev/null; rm -rf {0}", folder.display());
        let watcher = Command::new("sh").args(["-c", &clear]).stdin(Stdio::piped()).spawn().unwrap();
        let disk = Self { folder, watcher };
        let size = format!("size={mib}m");
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk.folder).output().unwrap();
        assert!(
            output.status.success(),
            "a full disk is tried on a small one, and to mount it takes the capability CAP_SYS_ADMIN (root; in a container \
             `--cap-add SYS_ADMIN`): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    fn filling(&self) -> PathBuf {
        self.folder.join("filling")
    }

    /// Fills it to its last byte.
    pub fn fill(&self) {
        let mut file = File::create(self.filling()).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Takes away what filled it.
    pub fn clear(&self) {
        std::fs::remove_file(self.filling()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

//! The unit of systemd, as `systemd-analyze` reads it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{installed, run, text_of};

/// Most that `systemd-analyze security` may find exposed, in tenths: 0 is nothing, 100 is a service without a sandbox.
const MOST_EXPOSED: &str = "15";

/// The unit in a folder, with this program.
fn unit(folder: &Path) -> PathBuf {
    let (text, path) = (text_of("systemd/modal-gateway.service"), folder.join("modal-gateway.service"));
    assert!(text.contains("\nExecStart=/usr/local/bin/modal-gateway serve\n"), "{text}");
    fs::write(&path, text.replace("/usr/local/bin/modal-gateway", env!("CARGO_BIN_EXE_modal-gateway"))).unwrap();
    path
}

#[test]
fn systemd_accepts_the_unit_and_finds_little_exposed() {
    if !installed("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = unit(folder.path());
    // The pages are not installed here.
    let said = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
    assert!(said.is_empty(), "{said}");
    let security = ["security", "--offline=yes", "--no-pager", &format!("--threshold={MOST_EXPOSED}")];
    run(Command::new("systemd-analyze").args(security).arg(&unit));
}

#[test]
fn the_unit_gives_the_program_the_time_and_the_user_that_it_wants() {
    let unit = text_of("systemd/modal-gateway.service");
    let compose = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-compose.yml")).unwrap();
    assert!(unit.contains("\nTimeoutStopSec=45s\n") && compose.contains("stop_grace_period: 45s"));
    assert!(unit.contains("\nUser=modal-gateway\n"));
    assert!(text_of("systemd/modal-gateway-sysusers.conf").contains("\nu modal-gateway - "));
}

/// The benchmark of proof of work shows what it brings.
#[test]
fn the_unit_and_the_image_ask_for_large_pages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path| fs::read_to_string(root.join(path)).unwrap();
    let measured = text("benches/bridge/pow.rs");
    let tunables = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1";
    let (name, value) = tunables.split_once('=').unwrap();
    assert!(measured.contains(&format!("(\"{name}\", \"{value}\")")), "what is measured is what is packaged");
    assert!(text_of("systemd/modal-gateway.service").contains(&format!("\nEnvironment={tunables}\n")));
    assert!(text("Dockerfile").contains(&format!("\nENV {tunables}\n")));
}

#[test]
fn systemd_makes_the_user() {
    if !installed("systemd-sysusers") {
        return;
    }
    let file = crate::packaged("systemd/modal-gateway-sysusers.conf");
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("usr/lib/sysusers.d");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::copy(file, folder.join("modal-gateway.conf")).unwrap();
    run(Command::new("systemd-sysusers").arg(format!("--root={}", root.path().display())));
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.starts_with("modal-gateway:") && users.contains(":/var/lib/modal-gateway:"), "{users}");
}

//! The commit that `build.rs` names.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Runs git in a folder, with nobody's settings.
fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]).args(args).current_dir(folder);
    let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What the script prints in a folder.
struct Script<'a> {
    program: &'a Path,
    profile: &'a str,
    given: &'a str,
}

impl Script<'_> {
    /// The commit, and the files besides the script whose change runs it again.
    fn run(&self, folder: &Path) -> (String, Vec<String>) {
        let mut command = Command::new(self.program);
        command.current_dir(folder).env("PROFILE", self.profile).env("GATEWAY_COMMIT", self.given);
        let Output { status, stdout, .. } = command.output().unwrap();
        assert!(status.success(), "a build would fail");
        let lines = String::from_utf8(stdout).unwrap();
        let values =
            |key: &'static str| lines.lines().filter_map(move |line| line.strip_prefix(key)).map(str::to_owned);
        let commits: Vec<_> = values("cargo::rustc-env=GATEWAY_COMMIT=").collect();
        let files: Vec<_> = values("cargo::rerun-if-changed=").filter(|file| file != "build.rs").collect();
        assert!(values("cargo::rerun-if-env-changed=").eq(["GATEWAY_COMMIT"]), "{lines}");
        assert!(files.iter().all(|file| folder.join(file).exists()), "run each time: {files:?}");
        (<[String; 1]>::try_from(commits).unwrap()[0].clone(), files)
    }
}

#[test]
fn a_release_names_its_commit_in_a_repository_and_in_a_work_tree_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("script");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let compiled = Command::new("rustc").args(["--edition", "2024", "-o"]).arg(&program).arg(script).status().unwrap();
    assert!(compiled.success());
    let script = Script { program: &program, profile: "release", given: "" };

    let sources = folder.path().join("sources");
    fs::create_dir(&sources).unwrap();
    assert_eq!(script.run(&sources), ("unknown".into(), vec![]), "sources from an archive");
    git(&sources, &["init", "--quiet"]);
    assert_eq!(script.run(&sources).0, "unknown", "nothing is committed");

    let commit = |folder: &Path| {
        git(folder, &["commit", "--quiet", "--allow-empty", "--message", "x"]);
        git(folder, &["rev-parse", "HEAD"])[..12].to_owned()
    };
    let first = commit(&sources);
    let (named, files) = script.run(&sources);
    assert_eq!(named, first);
    let tree = folder.path().join("tree");
    git(&sources, &["worktree", "add", "--quiet", tree.to_str().unwrap()]);
    for folder in [&sources, &tree] {
        let (before, files) = script.run(folder);
        assert!(before == first && files.len() == 2, "{before}: {files:?}");
        let stamps = || files.iter().map(|file| fs::read(folder.join(file)).unwrap()).collect::<Vec<_>>();
        let old = stamps();
        let next = commit(folder);
        assert!(script.run(folder).0 == next && next != first);
        assert_ne!(stamps(), old, "a commit must change a file that runs the script again");
    }
    assert_eq!(script.run(&sources).1, files);

    let inside = sources.join("vendored");
    fs::create_dir(&inside).unwrap();
    assert_eq!(script.run(&inside).0, "unknown", "the commit of another repository");
    let debug = Script { profile: "debug", ..script };
    assert_eq!(debug.run(&sources), ("unknown".into(), vec![]), "made anew by each commit");
    for (given, expected) in [("0123abc-dirty", "0123abc-dirty"), ("a\nb", "unknown"), ("\"", "unknown")] {
        for profile in ["release", "debug"] {
            let script = Script { program: &program, profile, given };
            assert_eq!(script.run(&sources).0, expected);
        }
    }
}

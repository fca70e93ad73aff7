//! The lock file: where packages come from, and which may not be there.

use std::path::Path;

use crate::{table, texts};

/// A version's numbers, which is all that the rules compare.
fn version(text: &str) -> [u64; 3] {
    let numbers = text.split(['+', '-']).next().unwrap().split('.');
    let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// A rule `crate@<version`, or `crate` for all of them.
fn bans(rule: &str, name: &str, found: &str) -> bool {
    match rule.split_once("@<") {
        Some((banned, first_good)) => banned == name && version(found) < version(first_good),
        None => rule == name,
    }
}

#[test]
fn it_holds_no_version_that_is_banned() {
    let (deny, lock) = (table("deny.toml"), table("Cargo.lock"));
    let rules: Vec<&str> =
        deny["bans"]["deny"].as_array().unwrap().iter().map(|r| r["crate"].as_str().unwrap()).collect();
    // Each was used to take such a node down.
    for known in ["yamux@<0.13.10", "libp2p-gossipsub@<0.49.5", "hickory-proto@<0.26.1"] {
        assert!(rules.contains(&known), "{known}");
        let (name, _) = known.split_once("@<").unwrap();
        assert!(
            lock["package"].as_array().unwrap().iter().any(|p| p["name"].as_str() == Some(name)),
            "{name}: renamed?"
        );
    }
    for package in lock["package"].as_array().unwrap() {
        let (name, found) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let banned: Vec<_> = rules.iter().filter(|rule| bans(rule, name, found)).collect();
        assert!(banned.is_empty(), "{name} {found}: {banned:?}");
    }
}

#[test]
fn versions_below_the_first_good_one_are_told_from_the_rest() {
    let rule = "yamux@<0.13.10";
    for (found, banned) in
        [("0.13.9", true), ("0.12.1", true), ("0.13.10", false), ("0.14.1", false), ("1.0.0-rc.1", false)]
    {
        assert_eq!(bans(rule, "yamux", found), banned, "{found}");
        assert!(!bans(rule, "yamux-stream", found));
    }
    assert!(bans("openssl-sys", "openssl-sys", "9.9.9"));
}

#[test]
fn every_package_but_ours_comes_from_the_registry_with_a_checksum() {
    let (deny, lock) = (table("deny.toml"), table("Cargo.lock"));
    let sources = &deny["sources"];
    assert_eq!((sources["unknown-registry"].as_str(), sources["unknown-git"].as_str()), (Some("deny"), Some("deny")));
    let registries: Vec<String> =
        texts(&sources["allow-registry"]).into_iter().map(|url| format!("registry+{url}")).collect();
    assert_eq!(registries, ["registry+https://github.com/rust-lang/crates.io-index"]);
    let mut ours = 0;
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(source) = package.get("source").and_then(|source| source.as_str()) else {
            assert_eq!(name, env!("CARGO_PKG_NAME"), "a package from a folder");
            ours += 1;
            continue;
        };
        assert!(registries.iter().any(|registry| registry == source), "{name}: {source}");
        let checksum = package["checksum"].as_str().unwrap();
        assert!(checksum.len() == 64 && checksum.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}: {checksum}");
    }
    assert_eq!(ours, 1);
}

#[test]
fn no_dependency_has_a_source_of_its_own_and_unsafe_code_is_forbidden() {
    let manifest = table("Cargo.toml");
    for section in ["dependencies", "dev-dependencies", "build-dependencies", "patch", "replace"] {
        let Some(section) = manifest.get(section) else { continue };
        for (name, wanted) in section.as_table().unwrap() {
            for key in ["git", "path", "registry"] {
                assert!(wanted.get(key).is_none(), "{name}: {key}");
            }
            let version = wanted.as_str().or_else(|| wanted.get("version")?.as_str());
            assert!(version.is_some_and(|version| !version.contains('*')), "{name}: {wanted}");
        }
    }
    // For every target: tests and benchmarks, too.
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(std::fs::read_to_string(root.join("src/lib.rs")).unwrap().contains("#![forbid(unsafe_code)]"));
}

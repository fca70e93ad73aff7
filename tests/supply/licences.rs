//! The licences of what is linked, built with or tested with, on this system.

use std::{iter::Peekable, process::Command};

use crate::{table, texts};

/// Name and licence of each package in the tree.
fn packages() -> Vec<(String, String)> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--offline", "--locked", "--edges", "normal,build,dev"]);
    tree.args(["--prefix", "none", "--no-dedupe", "--format", "{p}\t{l}"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut packages: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(package, licence)| (package.to_owned(), licence.to_owned()))
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

/// Whether `allowed` licences satisfy an SPDX expression; `/` is the old way to write `OR`.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let holds = either(&mut words, allowed);
    holds && words.next().is_none()
}

fn either<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[&str]) -> bool {
    let mut holds = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        holds |= both(words, allowed);
    }
    holds
}

fn both<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[&str]) -> bool {
    let mut holds = single(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        holds &= single(words, allowed);
    }
    holds
}

fn single<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[&str]) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let holds = either(words, allowed);
        return words.next() == Some(")") && holds;
    }
    let Some(licence) = words.next() else { return false };
    match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
        Some(exception) => allowed.contains(&format!("{licence} WITH {exception}").as_str()),
        None => allowed.contains(&licence),
    }
}

#[test]
fn every_package_has_a_licence_that_is_allowed_and_no_other_is() {
    let deny = table("deny.toml");
    let allowed = texts(&deny["licenses"]["allow"]);
    let packages = packages();
    assert!(packages.len() > 300, "{} packages are not the tree", packages.len());
    let refused = |allowed: &[&str]| {
        packages.iter().filter(|(_, licence)| !satisfied(licence, allowed)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(refused(&allowed), []);
    for licence in &allowed {
        let others: Vec<&str> = allowed.iter().filter(|other| *other != licence).copied().collect();
        assert!(!refused(&others).is_empty(), "nothing needs {licence}");
    }
    eprintln!("{} packages under {}", packages.len(), allowed.join(", "));
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (expression, holds) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND ISC", true),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("MIT OR GPL-3.0 AND GPL-2.0", true),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("MIT WITH GPL-exception", false),
        ("(MIT", false),
        ("MIT MIT", false),
        ("", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), holds, "{expression:?}");
    }
}

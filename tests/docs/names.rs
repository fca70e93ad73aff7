//! Files, headings, targets, tests, settings and metrics that the pages name are there; the README is short.

use std::{collections::BTreeSet, fs};

use modal_gateway::config::{Config, Sources};

use crate::{
    demo::Demo,
    pages::{self, root},
};

/// Folders of the repository that a path in a page may begin with.
const FOLDERS: [&str; 11] = [
    "src/",
    "tests/",
    "docs/",
    "migrations/",
    "scripts/",
    "openapi/",
    "examples/",
    "fuzz/",
    "benches/",
    "packaging/",
    ".ci/",
];

#[test]
fn the_readme_is_short() {
    let lines = pages::page("README.md").text.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut count = 0;
    for page in pages::all() {
        let folder = root().join(&page.path).parent().unwrap().to_path_buf();
        for link in page.links() {
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let file = if path.is_empty() { root().join(&page.path) } else { folder.join(path) };
            let file = file.canonicalize().unwrap_or_else(|_| panic!("{}: no file for the link {link}", page.path));
            if let Some(anchor) = anchor {
                let target = file.strip_prefix(root().canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
                let anchors = pages::page(&target).anchors();
                assert!(anchors.iter().any(|name| name == anchor), "{}: no heading for {link}", page.path);
            }
            count += 1;
        }
    }
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn every_path_that_a_page_names_exists() {
    let mut count = 0;
    for page in pages::all() {
        // What is found is put there.
        for span in page.spans().into_iter().filter(|span| *span != "fuzz/artifacts") {
            if FOLDERS.iter().any(|folder| span.starts_with(folder)) && !span.contains([' ', '*', '…']) {
                assert!(root().join(span).exists(), "{}: no {span}", page.path);
                count += 1;
            }
        }
    }
    assert!(count > 20, "only {count} paths were found");
}

#[test]
fn every_function_that_contributors_are_sent_to_exists() {
    let mut files = String::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let mut count = 0;
    for page in ["CONTRIBUTING.md", "docs/architecture.md"].map(pages::page) {
        for name in page.spans().into_iter().filter_map(|span| span.strip_suffix("()")) {
            let is_there = ["(", "<"].iter().any(|next| files.contains(&format!("fn {name}{next}")));
            assert!(is_there, "{}: no {name}()", page.path);
            count += 1;
        }
    }
    assert!(count > 10, "only {count} functions were found");
}

/// The words behind each `before` in the code of all pages.
fn named(before: &str) -> BTreeSet<String> {
    let (mut names, before) = (BTreeSet::new(), format!(" {before} "));
    let name = |rest: &str| {
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').next().unwrap().to_owned()
    };
    for page in pages::all() {
        let codes = page.codes();
        for text in page.spans().into_iter().chain(codes.iter().map(|code| code.text.as_str())) {
            for line in text.lines() {
                let command = format!(" {}", line.split(" # ").next().unwrap());
                names.extend(command.split(&before).skip(1).map(name).filter(|name| !name.is_empty()));
            }
        }
    }
    names
}

#[test]
fn every_target_of_make_that_a_page_names_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let names = named("make");
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{name}:"))), "no target `{name}`");
    }
}

#[test]
fn the_test_programs_that_pages_name_are_those_that_there_are() {
    for name in named("--test") {
        assert!(root().join(format!("tests/{name}.rs")).exists(), "no test program `{name}`");
    }
    let testing = pages::page("docs/testing.md");
    let rows: BTreeSet<_> = testing.rows().into_iter().map(|cells| cells[0].to_owned()).collect();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".rs") {
            assert!(rows.contains(&format!("`{name}`")), "docs/testing.md has no row of `{name}`");
        }
    }
}

#[test]
fn the_defaults_of_the_settings_are_the_programs() {
    let load = |env: &[(String, String)]| {
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        format!("{:?}", Config::load(Sources { env, ..Sources::default() }).unwrap())
    };
    let (default, mut count) = (load(&[]), 0);
    let settings = pages::page("docs/settings.md");
    let settings = settings.text.split("\n## Network file\n").next().unwrap().to_owned();
    for cells in (pages::Page { path: String::new(), text: settings }).rows() {
        let [key, _, shown, _] = cells[..] else { continue };
        // Other texts than values say what it depends on.
        let values: Vec<_> = shown.split(", ").map(|value| value.strip_prefix('`')?.strip_suffix('`')).collect();
        let (Some(key), Some(values)) = (key.strip_prefix('`'), values.into_iter().collect::<Option<Vec<_>>>()) else {
            continue;
        };
        let variable = format!("MODAL_GATEWAY_{}", key.trim_end_matches('`').to_uppercase());
        let value = values.join(",");
        assert_eq!(load(&[(variable, value)]), default, "{key} {shown}");
        count += 1;
    }
    assert!(count > 25, "only {count} defaults were found");
}

#[tokio::test]
async fn the_metrics_that_a_page_names_are_those_that_there_are() {
    let demo = Demo::start();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    // Durations are there once there is one.
    client.get(format!("{}/status", demo.http)).send().await.unwrap();
    let metrics = client.get(format!("{}/metrics", demo.admin)).send().await.unwrap().text().await.unwrap();
    let kinds = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let given: BTreeSet<String> =
        kinds.map(|(name, kind)| format!("{name}{}", if kind == "counter" { "_total" } else { "" })).collect();
    let operations = pages::page("docs/operations.md");
    let spans =
        operations.spans().into_iter().filter(|span| span.starts_with("modal_") || span.starts_with("process_"));
    let named: BTreeSet<String> = spans.map(str::to_owned).collect();
    assert!(given.len() > 40, "{given:?}");
    assert_eq!(named, given);
}

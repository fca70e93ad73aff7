//! The files of Prometheus and Grafana: their own checks, and that what they name is there.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use crate::{installed, packaged, run, text_of};

/// A word of PromQL or YAML: letters, digits, `_` and `:`.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').filter(|word| !word.is_empty())
}

/// The gateway's metrics that an expression names.
pub fn metrics(expression: &str) -> BTreeSet<&str> {
    words(expression).filter(|word| word.starts_with("modal_") || word.starts_with("process_")).collect()
}

/// The expressions of the dashboard, as Prometheus takes them, each with the title of its panel.
pub fn expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text_of("grafana/modal-gateway.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let expressions = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{title} shows nothing"));
        targets.iter().map(move |target| {
            let expression = target["expr"].as_str().unwrap_or_else(|| panic!("{title} asks nothing"));
            (title.to_owned(), expression.replace("$instance", ".*").replace("$__rate_interval", "2s"))
        })
    });
    expressions.collect()
}

/// The rules without comments.
pub fn rules() -> String {
    let text = text_of("prometheus/alerts.yml");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

/// What the lines that begin with this key have.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let before = format!("{key}: ");
    text.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(before.as_str())).collect()
}

#[test]
fn promtool_accepts_the_settings_and_the_rules_and_each_alert_fires_and_clears() {
    if !installed("promtool") {
        return;
    }
    let promtool = || {
        let mut command = Command::new("promtool");
        command.current_dir(packaged("prometheus"));
        command
    };
    run(promtool().args(["check", "config", "prometheus.yml"]));
    // The token is written when the container starts.
    run(promtool().args(["check", "config", "--syntax-only", "compose.yml"]));
    run(promtool().args(["check", "rules", "alerts.yml"]));
    run(promtool().args(["test", "rules", "alerts_test.yml"]));
    let (rules, tests) = (rules(), text_of("prometheus/alerts_test.yml"));
    for (alert, severity) in values(&rules, "alert").into_iter().zip(values(&rules, "labels")) {
        let severity = severity.trim_matches(['{', '}']).replace("severity: ", "");
        let expected = format!("{{alertname=\"{alert}\", severity=\"{severity}\"}}");
        assert!(tests.contains(&expected), "alerts_test.yml has no {expected}");
    }
}

#[test]
fn each_alert_has_its_section_of_the_runbook_and_each_section_its_alert() {
    let rules = rules();
    let alerts = values(&rules, "alert");
    let runbook = values(&rules, "runbook");
    assert!(alerts.len() > 15 && alerts.len() == runbook.len(), "{alerts:?} {runbook:?}");
    for (alert, section) in alerts.iter().zip(&runbook) {
        let name = alert.strip_prefix("Modal").unwrap();
        let words = name
            .chars()
            .flat_map(|c| c.is_ascii_uppercase().then_some('-').into_iter().chain([c.to_ascii_lowercase()]));
        assert_eq!(*section, format!("docs/operations.md#alert{}", words.collect::<String>()));
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let headings = page.lines().filter_map(|line| line.strip_prefix("### Alert: "));
    let headings: BTreeSet<_> =
        headings.map(|name| format!("docs/operations.md#alert-{}", name.replace(' ', "-"))).collect();
    let runbook: BTreeSet<_> = runbook.into_iter().map(str::to_owned).collect();
    assert_eq!(headings, runbook);
}

#[test]
fn every_figure_that_a_rule_uses_is_recorded_before() {
    let rules = rules();
    let mut recorded = BTreeSet::new();
    for line in rules.lines() {
        match line.trim_start().strip_prefix("- record: ") {
            Some(name) => _ = recorded.insert(name),
            None => {
                for name in words(line).filter(|word| word.starts_with("modal:")) {
                    assert!(recorded.contains(name), "{name} is not recorded before\n{line}");
                }
            }
        }
    }
    assert!(recorded.len() > 5, "{recorded:?}");
    for name in &recorded {
        assert!(words(&rules).filter(|word| word == name).count() > 1, "{name} is used nowhere");
    }
}

/// Cargo reads no manifest that names a file which is not there, so the image is not built without one of these.
#[test]
fn the_image_is_built_with_every_target_that_the_manifest_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = toml::from_str(&fs::read_to_string(root.join("Cargo.toml")).unwrap()).unwrap();
    let kept = fs::read_to_string(root.join(".dockerignore")).unwrap();
    let kept: Vec<&str> = kept.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let paths = [("test", "tests"), ("bench", "benches")].into_iter().flat_map(|(kind, folder)| {
        let targets = manifest[kind].as_array().unwrap().iter();
        targets.map(move |target| format!("{folder}/{}", target["name"].as_str().unwrap()))
    });
    for path in paths {
        let file = format!("{path}.rs");
        assert!(
            kept.iter().any(|kept| *kept == file || Path::new(&path).starts_with(kept)),
            ".dockerignore does not keep {path}"
        );
    }
}

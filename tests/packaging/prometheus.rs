//! A Prometheus that scrapes one gateway five times a second, with the packaged settings and alerts, whose times are
//! shortened.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::Client;
use serde_json::Value;

use crate::{
    support::{
        ports::free_port,
        until::{eventually, within},
    },
    text_of,
};

/// Time between two scrapes, and between two looks at the rules.
const TICK: &str = "200ms";

/// Longest that an alert takes to fire or clear: the tip is to be 15 s old first.
const PATIENCE: Duration = Duration::from_secs(40);

/// An alert and its severity.
pub type Alert = (String, String);

/// A Prometheus that runs; killed when it is dropped.
pub struct Prometheus {
    child: Child,
    url: String,
    client: Client,
}

impl Prometheus {
    /// Starts one that keeps all it has in `folder` and scrapes the admin listener at `admin`.
    pub async fn start(folder: &Path, admin: &str) -> Self {
        let target = admin.strip_prefix("http://").unwrap();
        let settings = text_of("prometheus/prometheus.yml");
        assert!(settings.contains("targets: [\"127.0.0.1:9090\"]"), "{settings}");
        let settings = settings.replace("127.0.0.1:9090", target).replace(": 15s", &format!(": {TICK}"));
        fs::write(folder.join("prometheus.yml"), settings).unwrap();
        fs::write(folder.join("alerts.yml"), shortened(&text_of("prometheus/alerts.yml"))).unwrap();
        let port = free_port();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let prometheus = Self { child, url: format!("http://127.0.0.1:{port}"), client };
        let ready = format!("{}/-/ready", prometheus.url);
        eventually(async || prometheus.client.get(&ready).send().await.ok()?.error_for_status().ok()).await;
        prometheus
    }

    /// `data` of an answer of its API.
    async fn api(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let answer = self.client.get(format!("{}/api/v1/{path}", self.url)).query(query).send().await.unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{query:?} {answer}");
        answer["data"].take()
    }

    /// The series that an expression has now.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        let mut data = self.api("query", &[("query", expression)]).await;
        match data["result"].take() {
            Value::Array(series) => series,
            other => panic!("{expression}: {other}"),
        }
    }

    /// Every alert that fires.
    pub async fn firing(&self) -> BTreeSet<Alert> {
        let data = self.api("alerts", &[]).await;
        let firing = data["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        firing.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["labels"]["severity"]))).collect()
    }

    /// Waits until each of these fires.
    pub async fn fires(&self, alerts: &[(&str, &str)]) {
        self.until(alerts, true).await;
    }

    /// Waits until none of these fires.
    pub async fn clears(&self, alerts: &[(&str, &str)]) {
        self.until(alerts, false).await;
    }

    async fn until(&self, alerts: &[(&str, &str)], fires: bool) {
        let is_right = |firing: &BTreeSet<Alert>, (name, severity): &(&str, &str)| {
            firing.contains(&((*name).to_owned(), (*severity).to_owned())) == fires
        };
        eprintln!("waiting until {alerts:?} {}", if fires { "fire" } else { "clear" });
        within(PATIENCE, async || {
            let firing = self.firing().await;
            alerts.iter().all(|alert| is_right(&firing, alert)).then_some(())
        })
        .await;
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rules with times of a six hundredth.
fn shortened(rules: &str) -> String {
    let line = |line: &str| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match rest.split_once(": ") {
            Some(("interval", _)) => format!("{indent}interval: {TICK}"),
            Some((key @ ("for" | "keep_firing_for"), time)) => format!("{indent}{key}: {}", shorter(time, 200)),
            _ => ranges(line),
        }
    };
    rules.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A line whose ranges, such as `[5m]`, are shorter. They hold some samples all the same.
fn ranges(line: &str) -> String {
    let mut parts = line.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| match part.split_once(']') {
        Some((time, rest)) if time.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("{all}[{}]{rest}", shorter(time, 2000))
        }
        _ => format!("{all}[{part}"),
    })
}

/// A six hundredth of a time such as `5m`, at least so many milliseconds.
fn shorter(time: &str, least: u64) -> String {
    let (number, unit) = time.split_at(time.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("{time}"),
    };
    let millis = number.parse::<u64>().unwrap_or_else(|error| panic!("{time}: {error}")) * seconds * 1000 / 600;
    format!("{}ms", millis.max(least))
}

#[test]
fn times_of_rules_are_shortened_and_nothing_else_is() {
    let rules = "  interval: 15s\n  for: 10m\n  rate(x[5m]) > 1 and increase(y[2h]) == 0\n  a: [b]\n  # for: ever";
    let short = "  interval: 200ms\n  for: 1000ms\n  rate(x[2000ms]) > 1 and increase(y[12000ms]) == 0\n\
                 \x20 a: [b]\n  # for: ever";
    assert_eq!(shortened(rules), short);
}

//! What the gateway takes of the machine, over time.

use std::fmt;

use reqwest::Client;
use tokio_util::sync::CancellationToken;

use super::{Duration, interval};
use crate::support::process::memory_kib;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Growth from the second fifth of the time to the last that is no leak: allocators keep what they once got.
const MEMORY_SLACK_KIB: u64 = 24 << 10;
/// Tasks that may run at one moment and not at another: connections and requests in progress.
const TASKS_SLACK: u64 = 40;

/// Resident memory in KiB and tasks, as they were.
pub struct Samples {
    memory: Vec<u64>,
    tasks: Vec<u64>,
}

impl Samples {
    pub async fn take(id: u32, admin: String, stop: CancellationToken) -> Self {
        let (client, mut looks) = (Client::builder().no_proxy().build().unwrap(), interval(EVERY));
        let mut samples = Self { memory: Vec::new(), tasks: Vec::new() };
        while !stop.is_cancelled() {
            looks.tick().await;
            samples.memory.extend(memory_kib(id, "VmRSS"));
            samples.tasks.extend(tasks(&client, &admin).await);
        }
        samples
    }

    pub fn check(&self) {
        let ([early, late], [before, after]) = (ends(&self.memory), ends(&self.tasks));
        assert!(late <= early + early / 10 + MEMORY_SLACK_KIB, "memory grew from {early} to {late} KiB");
        assert!(after <= before + TASKS_SLACK, "tasks grew from {before} to {after}");
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([early, late], [before, after]) = (ends(&self.memory), ends(&self.tasks));
        let most = self.memory.iter().max().unwrap_or(&0) >> 10;
        let [early, late] = [early, late].map(|kib| kib >> 10);
        write!(f, "memory {early} MiB early, {late} late, {most} at most; tasks {before} early, {after} late")
    }
}

/// Medians of the second and the last fifth.
fn ends(values: &[u64]) -> [u64; 2] {
    let fifth = values.len() / 5;
    assert!(fifth > 0, "too few samples");
    [&values[fifth..2 * fifth], &values[4 * fifth..]].map(|part| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    })
}

async fn tasks(client: &Client, admin: &str) -> Option<u64> {
    let text = client.get(format!("{admin}/metrics")).send().await.ok()?.text().await.ok()?;
    text.lines().find_map(|line| line.strip_prefix("modal_tasks ")?.parse().ok())
}

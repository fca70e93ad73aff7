//! Clients that read without a pause, and a note of every answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Clients at once, and how often each may ask, so that the machine is not what is tested.
const CLIENTS: usize = 4;
const PACE: Duration = Duration::from_millis(10);

/// What they read from the store, in turn.
const PATHS: [&str; 8] = [
    "/data/miner_block/range?from_index=0&to_index=20",
    "/data/miner_block/epoch?epoch=0",
    "/data/miner_block/chain_info",
    "/data/miner_block/debug_index?index=3",
    "/status",
    "/health/ready",
    "/inspect",
    "/data/miner_block/canonical",
];

/// What they read that needs no store, or has another way.
const ALWAYS: [&str; 3] = ["/health/live", "/peers", "/data/miner_block/range?from_index=0&to_index=5&peer=auto"];

/// What counts as the status of a request without an answer.
pub const UNANSWERED: u16 = 999;

/// One answer.
#[derive(Clone, Copy)]
pub struct Sample {
    pub at: Instant,
    pub took: Duration,
    /// 0: the body broke off after a good status.
    pub status: u16,
    pub path: &'static str,
    /// Whether a 503 had its `Retry-After`.
    pub polite: bool,
}

impl Sample {
    /// Whether it needs no store.
    pub fn is_always(&self) -> bool {
        ALWAYS.contains(&self.path)
    }
}

pub type Samples = Arc<Mutex<Vec<Sample>>>;

/// Clients of a gateway, until they are told to stop.
pub fn clients(base: &str, stop: &CancellationToken) -> (Samples, JoinSet<()>) {
    let (samples, mut tasks) = (Samples::default(), JoinSet::new());
    for number in 0..CLIENTS {
        let (samples, base, stop) = (samples.clone(), base.to_owned(), stop.clone());
        tasks.spawn(async move {
            let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
            let mut pace = tokio::time::interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let paths = PATHS.into_iter().chain(ALWAYS).cycle().skip(number * 3).take_while(|_| !stop.is_cancelled());
            for path in paths {
                let sample = ask(&http, &base, path).await;
                samples.lock().unwrap().push(sample);
                pace.tick().await;
            }
        });
    }
    (samples, tasks)
}

async fn ask(http: &reqwest::Client, base: &str, path: &'static str) -> Sample {
    let at = Instant::now();
    let Ok(response) = http.get(format!("{base}{path}")).send().await else {
        return Sample { at, took: at.elapsed(), status: UNANSWERED, path, polite: true };
    };
    let (mut status, polite) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
    match response.bytes().await {
        Ok(body) => {
            assert!(body.starts_with(b"{") && body.ends_with(b"}"), "{path}: cut off without a word");
        }
        Err(_) => status = 0,
    }
    Sample { at, took: at.elapsed(), status, path, polite: polite || status != 503 }
}

/// How many of each status.
pub fn statuses(samples: &[Sample]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for sample in samples {
        *statuses.entry(sample.status).or_default() += 1;
    }
    statuses
}

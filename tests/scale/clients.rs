//! Clients that read by way of the load balancer, and send the last tip that they have seen.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// Clients at once, and how often each asks.
const CLIENTS: usize = 4;
const PACE: Duration = Duration::from_millis(20);

/// What they read, in turn.
const PATHS: [&str; 6] = [
    "/data/miner_block/chain_info",
    "/data/miner_block/range?from_index=50&to_index=1000000",
    "/chain/blocks?limit=5",
    "/inspect",
    "/data/miner_block/epoch?epoch=1",
    "/chain/network",
];

/// What clients have seen.
#[derive(Default)]
pub struct Seen {
    /// Answers by status; 0 is one without an answer, or cut off.
    pub statuses: BTreeMap<u16, usize>,
    /// What must not be.
    pub wrong: Vec<String>,
    /// Good answers whose tip is another one than the client's last.
    pub tips: usize,
    /// The longest time of an answer.
    pub slowest: Duration,
}

/// Clients that read until they are stopped.
pub struct Clients {
    pub seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Starts them.
    pub fn start(base: &str) -> Self {
        let (seen, stop, mut tasks) = (Arc::default(), CancellationToken::new(), JoinSet::new());
        for number in 0..CLIENTS {
            tasks.spawn(read(base.to_owned(), number, Arc::clone(&seen), stop.clone()));
        }
        Self { seen, stop, tasks }
    }

    /// Number of good answers.
    pub fn good(&self) -> usize {
        self.seen.lock().unwrap().statuses.get(&200).copied().unwrap_or_default()
    }

    /// Stops them.
    pub async fn end(self) -> Seen {
        self.stop.cancel();
        self.tasks.join_all().await;
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn read(base: String, number: usize, seen: Arc<Mutex<Seen>>, stop: CancellationToken) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(u64, String)> = None;
    for path in PATHS.into_iter().cycle().skip(number) {
        pace.tick().await;
        if stop.is_cancelled() {
            return;
        }
        let mut request = http.get(format!("{base}{path}"));
        if let Some((index, hash)) = &last {
            request = request.header("x-modal-tip", format!("{index}:{hash}"));
        }
        let asked = std::time::Instant::now();
        let answer = async {
            let response = request.send().await.ok()?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Some((status, headers, response.bytes().await.ok()?))
        };
        let answer = answer.await;
        let mut seen = seen.lock().unwrap();
        seen.slowest = seen.slowest.max(asked.elapsed());
        let Some((status, headers, body)) = answer else {
            *seen.statuses.entry(0).or_default() += 1;
            continue;
        };
        *seen.statuses.entry(status).or_default() += 1;
        if !(status == 200 || status == 503 && headers.contains_key("retry-after")) {
            seen.wrong.push(format!("{path}: {status} {headers:?} {}", String::from_utf8_lossy(&body)));
        }
        let tip = headers.get("x-modal-tip").and_then(|tip| tip.to_str().ok()?.split_once(':'));
        let Some((index, hash)) = tip.filter(|_| status == 200) else { continue };
        let tip = (index.parse::<u64>().unwrap(), hash.to_owned());
        // The peer's chain only grows, also where it forks, and each step of it is one transaction.
        if last.as_ref().is_some_and(|last| tip.0 < last.0 || tip.0 == last.0 && tip.1 != last.1) {
            seen.wrong.push(format!("{path}: {tip:?} after {last:?}"));
        }
        seen.tips += usize::from(last.as_ref() != Some(&tip));
        last = Some(tip);
    }
}

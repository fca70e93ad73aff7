//! Clients that read as clients do, and look closely at what they get.

use std::{collections::BTreeMap, fmt, time::Instant};

use reqwest::{Client, Response};
use serde_json::Value;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Duration, HUNG, interval, support::clock::judge};

/// Pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(25);

/// What became of requests.
#[derive(Default)]
pub struct Tally {
    statuses: BTreeMap<u16, u64>,
    slowest: Duration,
    broken: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
        self.broken.extend(other.broken);
    }

    pub fn check(&self) {
        assert!(self.broken.is_empty(), "{:#?}", self.broken);
        assert!(!self.statuses.contains_key(&500), "{:?}", self.statuses);
        judge(self.slowest < HUNG, format_args!("an answer after {:?}", self.slowest));
        let (all, good) = (self.statuses.values().sum::<u64>(), self.statuses[&200]);
        assert!(good * 10 >= all * 7, "{:?}", self.statuses);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.statuses.values().sum();
        write!(f, "{all} requests, by status {:?}, slowest {:.2} s", self.statuses, self.slowest.as_secs_f64())
    }
}

/// Reads until it is stopped.
pub async fn read(base: String, number: usize, stop: CancellationToken) -> Tally {
    let client = Client::builder().no_proxy().timeout(8 * HUNG).build().unwrap();
    let (mut tally, mut beat, mut height) = (Tally::default(), interval(PAUSE), 0);
    // What was missed is not made up for, all at once, while the database is away.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in number.. {
        beat.tick().await;
        if stop.is_cancelled() {
            break;
        }
        let from = (turn as u64 * 7919) % (height + 1);
        let path = match turn % 8 {
            0 => "/status".to_owned(),
            1 => format!("/data/miner_block/epoch?epoch={}", from / 40),
            2 | 3 => format!("/data/miner_block/range?from_index={from}&to_index={}", from + 200),
            4 => "/data/miner_block/chain_info".to_owned(),
            5 => format!("/data/miner_block/range?from_index={from}&to_index={}&peer=any", from + 50),
            6 => format!("/data/miner_block/range?from_index={from}&to_index={}&peer=auto", from + 50),
            _ => "/data/miner_block/canonical".to_owned(),
        };
        let start = Instant::now();
        let told = match client.get(format!("{base}{path}")).send().await {
            Ok(response) => look(&path, response, &mut height).await.map(|status| (status, start.elapsed())),
            Err(error) => Err(error.to_string()),
        };
        match told {
            Ok((status, took)) => {
                *tally.statuses.entry(status).or_default() += 1;
                tally.slowest = tally.slowest.max(took);
            }
            Err(what) => tally.broken.push(format!("{path}: {what}")),
        }
    }
    tally
}

/// Whether an answer is one: its status, or what is wrong with it.
async fn look(path: &str, response: Response, height: &mut u64) -> Result<u16, String> {
    let status = response.status().as_u16();
    let bytes = match response.bytes().await {
        Ok(bytes) => bytes,
        // A chain that is reorganised, or a database that goes, ends an answer without end: that can be seen.
        Err(_) if path.ends_with("/canonical") => return Ok(status),
        Err(error) => return Err(error.to_string()),
    };
    let answer: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if answer["ok"] != (status == 200) || answer["errors"].is_null() != (status == 200) {
        return Err(format!("{status} {answer}"));
    }
    if let Some(tip) = answer["data"]["chain"]["tip"]["index"].as_u64() {
        *height = tip;
    }
    let blocks = answer["data"]["blocks"].as_array().map(Vec::as_slice).unwrap_or_default();
    for pair in blocks.windows(2) {
        if pair[1]["previous_hash"] != pair[0]["hash"] {
            return Err(format!("block {} does not follow {}", pair[1]["index"], pair[0]["index"]));
        }
    }
    Ok(status)
}

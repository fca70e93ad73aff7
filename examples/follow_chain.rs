//! Follows the canonical chain of a gateway and prints each change: `+ INDEX HASH` or `- INDEX HASH`.
//!
//! ```sh
//! cargo run --example follow_chain -- http://127.0.0.1:8080
//! ```
//!
//! It goes on after restarts of the gateway, reorganisations, and a log that is too short.

use std::{process::ExitCode, time::Duration};

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

/// An id of no store: the stream begins with a `reset`, which says where the chain is.
const BEGIN: &str = "9223372036854775807";
/// The gateway sends a comment at least every 15 s: a longer silence is a dead connection.
const SILENCE: Duration = Duration::from_secs(40);
const RETRY: Duration = Duration::from_secs(1);

type Failure = Box<dyn std::error::Error>;

/// A block by its place.
#[derive(Debug, Deserialize)]
struct Position {
    index: usize,
    hash: String,
}

/// The members of an event that matter here.
#[derive(Debug, Deserialize)]
struct Event {
    from: Option<usize>,
    previous_hash: Option<String>,
    ancestor: Option<Position>,
    old_tip: Option<Position>,
    added: Option<Vec<String>>,
    #[serde(default)]
    truncated: bool,
    tip: Option<Position>,
}

#[derive(Deserialize)]
struct Answer {
    data: Range,
}

#[derive(Deserialize)]
struct Range {
    blocks: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    hash: String,
}

/// What is known of the chain does not fit what came: begin anew.
#[derive(Debug)]
struct OutOfStep;

impl std::fmt::Display for OutOfStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("out of step with the gateway")
    }
}

impl std::error::Error for OutOfStep {}

/// Follows a gateway's chain.
struct Follower {
    http: Client,
    base: String,
    /// Id of the last event.
    last: String,
    /// The hashes of the canonical chain, by index.
    hashes: Vec<String>,
}

impl Follower {
    /// Follows until the connection ends.
    async fn follow(&mut self) -> Result<(), Failure> {
        let url = format!("{}/events", self.base);
        let request = self.http.get(url).header("accept", "text/event-stream").header("last-event-id", &self.last);
        let mut response = timeout(SILENCE, request.send()).await??.error_for_status()?;
        let mut received = Vec::new();
        while let Some(bytes) = timeout(SILENCE, response.chunk()).await?? {
            received.extend_from_slice(&bytes);
            // An event ends with an empty line.
            while let Some(end) = received.windows(2).position(|bytes| bytes == b"\n\n") {
                let text = String::from_utf8(received.drain(..end + 2).collect())?;
                let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                if let (Some(id), Some(name), Some(data)) = (field("id"), field("event"), field("data")) {
                    self.apply(name, serde_json::from_str(data)?).await?;
                    self.last = id.to_owned();
                }
            }
        }
        Ok(())
    }

    /// Applies an event to the chain.
    async fn apply(&mut self, name: &str, event: Event) -> Result<(), Failure> {
        let known = self.hashes.last();
        match name {
            "extended" => {
                let from = event.from.unwrap_or_default();
                if from != self.hashes.len() || event.added.is_some() && event.previous_hash.as_ref() != known {
                    return Err(OutOfStep.into());
                }
                self.replace(from, event).await
            }
            // No `extended` follows for the blocks that come with a reorganisation.
            "reorganised" => {
                if event.old_tip.as_ref().map(|tip| &tip.hash) != known {
                    return Err(OutOfStep.into());
                }
                self.replace(event.ancestor.as_ref().map_or(0, |ancestor| ancestor.index + 1), event).await
            }
            "reset" => {
                let chain = self.read(0, event.tip.as_ref()).await?;
                let kept = chain.iter().zip(&self.hashes).take_while(|(new, old)| new == old).count();
                self.replace(kept, Event { added: Some(chain[kept..].to_vec()), ..event }).await
            }
            _ => Ok(()),
        }
    }

    /// Replaces what follows the first `kept` blocks.
    async fn replace(&mut self, kept: usize, event: Event) -> Result<(), Failure> {
        let added = match event.added {
            Some(added) if !event.truncated => added,
            _ => self.read(kept, event.tip.as_ref()).await?,
        };
        while self.hashes.len() > kept {
            let hash = self.hashes.pop().unwrap_or_default();
            println!("- {} {hash}", self.hashes.len());
        }
        for hash in added {
            println!("+ {} {hash}", self.hashes.len());
            self.hashes.push(hash);
        }
        Ok(())
    }

    /// The hashes from `index` up to `tip`, read in parts, all of the chain that has `tip`.
    async fn read(&self, mut index: usize, tip: Option<&Position>) -> Result<Vec<String>, Failure> {
        let mut hashes = Vec::new();
        while let Some(tip) = tip.filter(|tip| index <= tip.index) {
            let query = [("from_index", index.to_string()), ("to_index", tip.index.to_string())];
            let url = format!("{}/data/miner_block/range", self.base);
            let request = self.http.get(url).query(&query).query(&[("anchor", &tip.hash)]);
            let response = timeout(SILENCE, request.send()).await??;
            if response.status() == StatusCode::CONFLICT {
                // `tip` was reorganised away meanwhile.
                return Err(OutOfStep.into());
            }
            let blocks = response.error_for_status()?.json::<Answer>().await?.data.blocks;
            if blocks.is_empty() {
                return Err(OutOfStep.into());
            }
            index += blocks.len();
            hashes.extend(blocks.into_iter().map(|block| block.hash));
        }
        Ok(hashes)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: follow_chain URL");
        return ExitCode::from(2);
    };
    let base = url.trim_end_matches('/').to_owned();
    let mut follower = Follower { http: Client::new(), base, last: BEGIN.into(), hashes: Vec::new() };
    loop {
        match follower.follow().await {
            Ok(()) => {}
            Err(error) if error.is::<OutOfStep>() => follower.last = BEGIN.into(),
            Err(error) => eprintln!("the gateway is unreachable: {error}"),
        }
        sleep(RETRY).await;
    }
}

//! One who follows `/events`, comes back when the stream breaks, and checks that the events form one chain.

use reqwest::{Client, Response};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Duration, interval};

/// Pause before it comes back.
const BACK_AFTER: Duration = Duration::from_millis(200);

/// What it has heard.
pub struct Follower {
    base: String,
    client: Client,
    last: u64,
    pub tip: (u64, String),
    pub reorganisations: u64,
    /// Most blocks that left at once.
    pub deepest: u64,
}

impl Follower {
    pub fn new(base: &str) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        let tip = (0, String::new());
        Self { base: base.into(), client, last: 0, tip, reorganisations: 0, deepest: 0 }
    }

    /// Follows from the first event on until it is stopped.
    pub async fn follow(mut self, stop: CancellationToken) -> Self {
        let mut beat = interval(BACK_AFTER);
        while !stop.is_cancelled() {
            beat.tick().await;
            let url = format!("{}/events?after={}", self.base, self.last);
            let opened = self.client.get(url).send().await.and_then(Response::error_for_status);
            if let Ok(response) = opened {
                stop.run_until_cancelled(self.hear(response)).await;
            }
        }
        self
    }

    async fn hear(&mut self, mut response: Response) {
        let mut text = String::new();
        while let Ok(Some(bytes)) = response.chunk().await {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
            while let Some((event, rest)) = text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                text = rest;
                self.take(&event);
            }
        }
    }

    fn take(&mut self, event: &str) {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (Some(id), Some(name), Some(data)) = (field("id"), field("event"), field("data")) else { return };
        let (id, data): (u64, Value) = (id.parse().unwrap(), serde_json::from_str(data).unwrap());
        assert!(id > self.last, "event {id} after {}", self.last);
        let begun = self.last > 0;
        match name {
            "extended" => {
                let next = if begun { self.tip.0 + 1 } else { 0 };
                assert_eq!(data["from"], next, "an event is missing before {event}");
            }
            "reorganised" => {
                assert_eq!(place(&data["old_tip"]), self.tip, "an event is missing before {event}");
                self.reorganisations += 1;
                self.deepest = self.deepest.max(data["orphaned"].as_u64().unwrap());
            }
            _ => panic!("{event}"),
        }
        (self.last, self.tip) = (id, place(&data["tip"]));
    }
}

fn place(block: &Value) -> (u64, String) {
    (block["index"].as_u64().unwrap(), block["hash"].as_str().unwrap().to_owned())
}

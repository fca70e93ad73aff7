//! A client that follows `/events` and connects again when the stream breaks, as browsers do.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::watch;

/// The events received so far.
#[derive(Default)]
pub struct Received {
    /// The versions in the ids since the last reset, in the order in which they came.
    pub ids: Vec<u64>,
    /// The versions at which it was told that the store has lost what came after them.
    pub resets: Vec<u64>,
    /// The last id, with which to come back.
    pub last: String,
    /// The tip after the last of them.
    pub tip: Value,
    /// How many blocks left the chain, each time that some did.
    pub orphaned: Vec<u64>,
    /// What did not fit what came before.
    pub broken: Vec<String>,
}

impl Received {
    fn take(&mut self, id: &str, name: &str, data: &Value) {
        let version: u64 = id.split('-').next().unwrap().parse().unwrap();
        if name == "reset" {
            self.resets.push(version);
            self.ids.clear();
        } else {
            let before = self.ids.last().or(self.resets.last());
            if !self.fits(name, data) || before.is_some_and(|before| *before >= version) {
                self.broken.push(format!("{name} {id}: {data} after {} and {before:?}", self.tip));
            }
            self.orphaned.extend(data["orphaned"].as_u64());
            self.ids.push(version);
        }
        self.last = id.to_owned();
        self.tip = data["tip"].clone();
    }

    /// Whether it begins where the last one ended.
    fn fits(&self, name: &str, data: &Value) -> bool {
        match name {
            "extended" => {
                let next = self.tip["index"].as_u64().map_or(0, |index| index + 1);
                let follows = data["from"] == next && data["previous_hash"] == self.tip["hash"];
                follows && data["to"] == data["tip"]["index"]
            }
            "reorganised" => data["old_tip"] == self.tip && data["new_tip"] == data["tip"],
            _ => false,
        }
    }
}

/// Follows until the receiver is dropped.
pub fn follow(base: &str) -> watch::Receiver<Received> {
    let (told, seen) = watch::channel(Received { last: "0".into(), ..Received::default() });
    let (told, url) = (Arc::new(told), format!("{base}/events"));
    let watching = told.clone();
    let following = async move {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut again = tokio::time::interval(Duration::from_millis(100));
        loop {
            again.tick().await;
            let last = told.borrow().last.clone();
            if let Ok(response) = client.get(&url).header("last-event-id", last).send().await {
                read(response, &told).await;
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! { () = following => {}, () = watching.closed() => {} }
    });
    seen
}

async fn read(mut response: reqwest::Response, told: &watch::Sender<Received>) {
    let mut text = String::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        text.push_str(std::str::from_utf8(&bytes).unwrap());
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            if let (Some(id), Some(name), Some(data)) = (field("id"), field("event"), field("data")) {
                let data = serde_json::from_str(data).unwrap();
                told.send_modify(|told| told.take(id, name, &data));
            }
            text = rest.to_owned();
        }
    }
}

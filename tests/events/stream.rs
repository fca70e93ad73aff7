//! A stream of events, read one after the other, and chains that change.

use modal_gateway::{
    chain::{Level, MinerBlock},
    store::BlockStore,
};
use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    gateway::{Backend, PATIENCE, TestStore, parent, synthetic, synthetic_block, verifier},
    listeners::{Listeners, send},
};

/// Listeners of a gateway with a chain of `length` blocks.
pub async fn listeners(backend: Backend, length: u64) -> Listeners {
    let test_store = TestStore::create(backend).await;
    test_store.append(synthetic(length), Level::None).await;
    let url = test_store.url.clone();
    Listeners::open(test_store, &url, true).await
}

/// A stream that is read, event by event.
pub struct Stream {
    response: Response,
    text: String,
}

/// A server-sent event, with its data as JSON.
#[derive(Debug, PartialEq)]
pub struct SentEvent {
    pub id: String,
    pub event: String,
    pub data: Value,
}

impl Stream {
    /// The stream that is in this response.
    pub fn of(response: Response) -> Self {
        Self { response, text: String::new() }
    }

    /// Opened at a gateway with a query and perhaps a `Last-Event-ID`; the id that it begins after.
    pub async fn open(base: &str, query: &str, last: Option<&str>) -> (Self, String) {
        let (stream, first) = Self::begin(base, query, last).await;
        let id = first.strip_prefix("id: ").and_then(|rest| rest.strip_suffix("\n: following")).expect(&first);
        (stream, id.to_owned())
    }

    /// The same, with what it begins with.
    pub async fn begin(base: &str, query: &str, last: Option<&str>) -> (Self, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(format!("{base}/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = send(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        // nginx buffers a stream unless it is told not to, and others may compress it.
        assert_eq!(response.headers()["cache-control"], "no-store, no-transform");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let mut stream = Self::of(response);
        let first = stream.block().await.unwrap();
        (stream, first)
    }

    /// The lines up to the next empty one; `None` at the end.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let read = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("something in time");
            match read.unwrap() {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes).unwrap()),
                None => return None,
            }
        }
    }

    /// The next event; its id is empty if it has none.
    pub async fn next(&mut self) -> SentEvent {
        let block = self.block().await.expect("the stream goes on");
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let needed = |name: &str| field(name).unwrap_or_else(|| panic!("no {name} in {block:?}"));
        let data = serde_json::from_str(needed("data")).unwrap();
        SentEvent { id: field("id").unwrap_or_default().to_owned(), event: needed("event").to_owned(), data }
    }
}

/// Appends blocks after the one at this place.
pub async fn append(store: &dyn BlockStore, after: (u64, &str), blocks: Vec<MinerBlock>) {
    let mut writer = store.write().await.unwrap();
    writer.append(verifier(Level::None).verify(Some(&parent(after.0, after.1)), blocks).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
}

/// Blocks `from..=to` of a branch that leaves another one, or goes on with itself.
pub fn blocks(branch: &str, parent_branch: &str, from: u64, to: u64) -> Vec<MinerBlock> {
    let parent = |index| if index == from { parent_branch } else { branch };
    (from..=to).map(|index| synthetic_block(index, branch, parent(index))).collect()
}

/// Replaces the blocks above `keep`, in one transaction, by `added`, which follows the block `<parent_branch>-<keep>`.
pub async fn reorganise(store: &dyn BlockStore, (keep, parent_branch): (u64, &str), added: Vec<MinerBlock>) {
    let mut writer = store.write().await.unwrap();
    let winner = added.last().map(|block| block.hash.clone());
    writer.rewind(Some(keep), "heavier", winner.as_deref(), 1).await.unwrap();
    if !added.is_empty() {
        let parent = parent(keep, &format!("{parent_branch}-{keep}"));
        writer.append(verifier(Level::None).verify(Some(&parent), added).unwrap()).await.unwrap();
    }
    writer.commit().await.unwrap();
}

/// The id of what led to a version with the tip `<branch>-<index>`.
pub fn id(version: u64, index: u64, branch: &str) -> String {
    format!("{version}-{}", hex::encode(&Sha256::digest(format!("{branch}-{index}"))[..8]))
}

/// A block by its place.
pub fn at(index: u64, branch: &str) -> Value {
    json!({"index": index, "hash": format!("{branch}-{index}")})
}

//! One peer's side of the protocol, as the sync needs it: what it claims, where its chain leaves ours, its blocks.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use libp2p::PeerId;

use super::{fault::Fault, tracker::Tracker};
use crate::{
    chain::{CumulativeDifficulty, MAX_BLOCK_BYTES, MinerBlock, block::Header},
    p2p::{P2pClient, P2pError},
    protocol::{
        self, MAX_CHUNK, Query,
        answer::{CanonicalData, ChainInfoData, EpochData, FindAncestorData, HeadersData, RangeData},
        query::CheckPoint,
    },
    source::parsed,
};

/// Requests that a window of 1000 blocks may take. Today's nodes need 20 when they give the 50 that are their default; a
/// peer that gives less than 16 at a time is left.
const MAX_REQUESTS_PER_WINDOW: usize = 64;

/// Single blocks asked for at once where a peer of the first release is probed.
const PROBES_AT_ONCE: usize = 8;

/// How much further each step reaches than the one before on the way to the tip of such a peer.
const PROBE_STRIDE: u64 = 8;

/// What a peer says of its chain. Nothing of it is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its work; `None` where the peer is of the first release, which does not tell.
    pub work: Option<CumulativeDifficulty>,
    /// Number of blocks.
    pub length: u64,
    /// Index of the tip.
    pub height: u64,
    /// Hash of the tip.
    pub hash: String,
}

/// A peer, as one job asks it.
#[derive(Clone)]
pub(super) struct Remote {
    pub peer: PeerId,
    p2p: P2pClient,
    timeout: Duration,
    tracker: Arc<Tracker>,
}

impl Remote {
    pub fn new(p2p: P2pClient, peer: PeerId, timeout: Duration, tracker: Arc<Tracker>) -> Self {
        Self { peer, p2p, timeout, tracker }
    }

    /// Whether the operator trusts it.
    pub fn is_trusted(&self) -> bool {
        self.p2p.is_trusted(&self.peer)
    }

    /// Asks, and hands the text of `data` to `read`.
    async fn ask<T: Send + 'static>(
        &self,
        query: &Query,
        read: impl FnOnce(&str) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Fault> {
        self.tracker.peer(self.peer, |counts| counts.requests += 1);
        let (request, most_bytes) = (protocol::encode_request(query), query.most_bytes());
        let answer = self.p2p.request_within(self.peer, request, most_bytes, self.timeout).await;
        let outcome = match answer {
            Ok((body, wire_bytes)) => {
                self.tracker.received(self.peer, wire_bytes as u64);
                let outcome = parsed(body.len(), move || open(&body, read)).await;
                outcome.unwrap_or(Err(Fault::Silent(P2pError::Stopped)))
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "no answer");
                Err(Fault::Silent(error))
            }
        };
        if outcome.is_err() {
            self.tracker.peer(self.peer, |counts| counts.failures += 1);
        }
        outcome
    }

    /// What it claims; `None` where its chain is empty. `hint` is the likely length of its chain: where to look for the
    /// tip of a peer of the first release.
    pub async fn claim(&self, hint: u64) -> Result<Option<Claim>, Fault> {
        let query = Query::ChainInfo { local_block_hashes: Vec::new(), include_blocks: false, from_index: None };
        let claim = self.ask(&query, |data| {
            let info: ChainInfoData = parse(data)?;
            let work = info.cumulative_difficulty.parse().map_err(|error| format!("cumulative_difficulty: {error}"))?;
            let tip = info.tip_hash.filter(|_| info.chain_length > 0);
            let (length, height) = (info.chain_length, info.chain_height);
            if tip.is_some() && length.checked_sub(1) != Some(height) {
                return Err(format!("{length} blocks up to index {height}"));
            }
            Ok(tip.map(|hash| Claim { work: Some(work), length, height, hash }))
        });
        match claim.await {
            Err(fault) if fault.is_unknown_path() => self.probe(hint).await,
            claim => claim,
        }
    }

    /// Finds the tip of a peer that does not tell: exponentially from a chain of length `hint` on, then by bisection.
    /// Most peers have one of just that length or a little more: that takes few round trips.
    async fn probe(&self, hint: u64) -> Result<Option<Claim>, Fault> {
        let last = hint.saturating_sub(1);
        let (mut best, mut beyond) = match self.at(last).await? {
            Some(block) => (block, None),
            None => match self.at(0).await? {
                Some(first) => (first, Some(last.max(1))),
                None => return Ok(None),
            },
        };
        let mut step = 1_u64;
        while beyond.is_none() {
            let index = best.index.saturating_add(step);
            match self.at(index).await? {
                Some(block) if block.index <= best.index => return Err(Fault::broken("a chain without end".into())),
                Some(block) => (best, step) = (block, step.saturating_mul(PROBE_STRIDE)),
                None => beyond = Some(index),
            }
        }
        let mut beyond = beyond.unwrap_or(u64::MAX);
        while beyond - best.index > 1 {
            let middle = best.index + (beyond - best.index) / 2;
            match self.at(middle).await? {
                Some(block) => best = block,
                None => beyond = middle,
            }
        }
        Ok(Some(Claim { work: None, length: best.index.saturating_add(1), height: best.index, hash: best.hash }))
    }

    /// The block at an index, if its chain has one there.
    pub async fn at(&self, index: u64) -> Result<Option<MinerBlock>, Fault> {
        Ok(self.chunk(index, index).await?.into_iter().next())
    }

    /// The highest of these blocks of ours that is on its chain.
    pub async fn highest_match(&self, ours: Vec<CheckPoint>) -> Result<Option<u64>, Fault> {
        let asked = ours.clone();
        let query = Query::FindAncestor { check_points: ours.clone() };
        let found = self.ask(&query, move |data| {
            let data: FindAncestorData = parse(data)?;
            let matches = data.matches.iter().filter(|found| found.matches);
            let highest = matches.map(|found| found.index).max();
            match highest.is_none_or(|index| asked.iter().any(|point| point.index == index)) {
                true => Ok(highest),
                false => Err("a match that was not asked for".into()),
            }
        });
        match found.await {
            Err(fault) if fault.is_unknown_path() => {
                let theirs = |point: CheckPoint| async move {
                    let block = self.at(point.index).await?;
                    Ok(block.filter(|block| block.hash == point.hash).map(|block| block.index))
                };
                let mut probes = stream::iter(ours).map(theirs).buffer_unordered(PROBES_AT_ONCE);
                let mut highest = None;
                while let Some(matched) = probes.next().await {
                    highest = highest.max(matched?);
                }
                Ok(highest)
            }
            found => found,
        }
    }

    /// The blocks from `from` to `to`, in as many answers as it takes. Each answer goes to `keep` as it comes: what is
    /// there is not lost when the next one fails. Between two of them the peer may reorganise: what it gave before
    /// that stays.
    pub async fn range(&self, from: u64, to: u64, mut keep: impl FnMut(Vec<MinerBlock>)) -> Result<(), Fault> {
        let (mut next, mut end) = (from, None::<String>);
        for _ in 0..MAX_REQUESTS_PER_WINDOW {
            let chunk = self.chunk(next, to).await?;
            let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { return Err(Fault::Missing(next)) };
            if end.is_some_and(|end| end != first.previous_hash) {
                return Err(Fault::Moved(next));
            }
            end = Some(last.hash.clone());
            next = next.saturating_add(chunk.len() as u64);
            keep(chunk);
            if next > to {
                return Ok(());
            }
        }
        Err(Fault::Tiny(MAX_CHUNK as usize / MAX_REQUESTS_PER_WINDOW + 1))
    }

    /// One answer's blocks from `from` on, possibly none.
    async fn chunk(&self, from: u64, to: u64) -> Result<Vec<MinerBlock>, Fault> {
        let chunk_size = (to - from).saturating_add(1).min(MAX_CHUNK);
        let query = Query::Range { from_index: from, to_index: to, chunk_size };
        self.blocks(&query, move |data| {
            let bytes = data.len();
            let data: RangeData = parse(data)?;
            in_order(data.blocks.iter().map(|block| block.index), data.count, from, to)?;
            // Many answers make a window: one of few long blocks would take as much memory as one of many.
            match bytes > (data.blocks.len() + 1) * MAX_BLOCK_BYTES {
                true => Err(format!("{bytes} bytes for {} blocks", data.blocks.len())),
                false => Ok(data.blocks),
            }
        })
        .await
    }

    /// The blocks of an epoch that lie from `from` to `to`.
    pub async fn epoch(&self, epoch: u64, from: u64, to: u64) -> Result<Vec<MinerBlock>, Fault> {
        let query = Query::Epoch { epoch };
        let blocks = self.blocks(&query, move |data| {
            let mut blocks = parse::<EpochData>(data)?.blocks;
            blocks.retain(|block| (from..=to).contains(&block.index));
            in_order(blocks.iter().map(|block| block.index), blocks.len() as u64, from, to)?;
            Ok(blocks)
        });
        self.complete(blocks.await?, from, to)
    }

    /// Its whole chain, from `from` to `to`, in one answer.
    pub async fn canonical(&self, from: u64, to: u64) -> Result<Vec<MinerBlock>, Fault> {
        let blocks = self.blocks(&Query::Canonical, move |data| {
            let data: CanonicalData = parse(data)?;
            in_order(data.blocks.iter().map(|block| block.index), data.count, 0, u64::MAX)?;
            let mut blocks = data.blocks;
            blocks.retain(|block| (from..=to).contains(&block.index));
            Ok(blocks)
        });
        self.complete(blocks.await?, from, to)
    }

    /// The headers from `from` to `to`.
    pub async fn headers(&self, from: u64, to: u64) -> Result<Vec<Header>, Fault> {
        let chunk_size = (to - from).saturating_add(1).min(MAX_CHUNK);
        let query = Query::Headers { from_index: from, to_index: to, chunk_size };
        let headers = self.ask(&query, move |data| {
            let data: HeadersData = parse(data)?;
            in_order(data.headers.iter().map(|header| header.index), data.count, from, to)?;
            Ok(data.headers)
        });
        let headers = headers.await?;
        match from.saturating_add(headers.len() as u64) > to {
            true => Ok(headers),
            false => Err(Fault::Missing(from.saturating_add(headers.len() as u64))),
        }
    }

    async fn blocks(
        &self,
        query: &Query,
        read: impl FnOnce(&str) -> Result<Vec<MinerBlock>, String> + Send + 'static,
    ) -> Result<Vec<MinerBlock>, Fault> {
        let blocks = self.ask(query, read).await?;
        self.tracker.peer(self.peer, |counts| counts.blocks += blocks.len() as u64);
        Ok(blocks)
    }

    fn complete(&self, blocks: Vec<MinerBlock>, from: u64, to: u64) -> Result<Vec<MinerBlock>, Fault> {
        match from.saturating_add(blocks.len() as u64) > to {
            true => Ok(blocks),
            false => Err(Fault::Missing(from.saturating_add(blocks.len() as u64))),
        }
    }
}

fn open<T>(body: &Bytes, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Fault> {
    let data = protocol::open_envelope(body).map_err(Fault::broken)?.map_err(Fault::Refused)?;
    read(data).map_err(Fault::broken)
}

fn parse<'a, T: serde::Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|error| error.to_string())
}

/// Checks that an answer holds as many as it says, counting up from `from`, none past `to`.
fn in_order(indexes: impl ExactSizeIterator<Item = u64>, count: u64, from: u64, to: u64) -> Result<(), String> {
    if indexes.len() as u64 != count {
        return Err(format!("count {count} over {} blocks", indexes.len()));
    }
    for (offset, index) in (0..).zip(indexes) {
        let expected: u64 = from.saturating_add(offset);
        if index != expected || index > to {
            return Err(format!("block {index} where {expected} belongs, of those up to {to}"));
        }
    }
    Ok(())
}

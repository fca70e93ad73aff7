//! One peer's side of the protocol: its claim, single blocks, headers, and the match with the store's chain.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use libp2p::PeerId;

use crate::{
    chain::{CumulativeDifficulty, MAX_BLOCK_BYTES, MinerBlock, Position, block::Header},
    p2p::{P2pClient, P2pError},
    protocol::{
        self, Code, MAX_CHUNK, Query,
        answer::{ChainInfoData, FindAncestorData, HeadersData, RangeData},
        query::CheckPoint,
    },
    source::parse_blocking,
    sync::{failure::PeerFault, progress::ProgressTracker},
};

/// Most blocks that an abandoned branch is likely to have.
pub const BRANCH: u64 = 40;

/// Concurrent requests for single blocks to a peer of the first release.
const PROBES_AT_ONCE: usize = 8;

/// Growth of the steps in the search for the tip of such a peer.
const PROBE_STRIDE: u64 = 8;

/// A peer's statement about its chain. Nothing of it is proven. Of an honest node only the tip's hash is exact: its
/// counts include blocks beside its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The chain's work; `None` from a peer of the first release, which does not send it.
    pub work: Option<CumulativeDifficulty>,
    /// Number of blocks.
    pub length: u64,
    /// Index of the tip as claimed: the number of blocks less one.
    pub claimed_height: u64,
    /// Index of the tip: as claimed, until [`RemotePeer::locate`] corrects it.
    pub height: u64,
    /// Hash of the tip.
    pub hash: String,
    /// Whether the tip is on the chain in the store.
    pub held: bool,
}

impl Claim {
    /// The end of the claimed chain.
    pub fn tip(&self) -> Position {
        Position { index: self.height, hash: self.hash.clone() }
    }
}

/// Blocks of an answer to a range, in any order; an index may have none or several.
pub struct Chunk {
    pub blocks: Vec<MinerBlock>,
    /// Index of the last block that the answer covers.
    pub to_index: u64,
}

/// A peer, with the timeout and the counts of one job.
#[derive(Clone)]
pub struct RemotePeer {
    pub peer: PeerId,
    p2p: P2pClient,
    /// Longest time for one answer.
    pub timeout: Duration,
    pub tracker: Arc<ProgressTracker>,
}

impl RemotePeer {
    pub fn new(p2p: P2pClient, peer: PeerId, timeout: Duration, tracker: Arc<ProgressTracker>) -> Self {
        Self { peer, p2p, timeout, tracker }
    }

    /// Whether the operator trusts the peer.
    pub fn is_trusted(&self) -> bool {
        self.p2p.is_trusted(&self.peer)
    }

    /// Sends a query, and passes the text of `data` to `read`.
    pub async fn ask<T: Send + 'static>(
        &self,
        query: &Query,
        read: impl FnOnce(&str) -> Result<T, String> + Send + 'static,
    ) -> Result<T, PeerFault> {
        self.tracker.peer(self.peer, |counts| counts.requests += 1);
        let (request, most_bytes) = (protocol::encode_request(query), query.most_bytes());
        let answer = self.p2p.request_within(self.peer, request, most_bytes, self.timeout).await;
        let outcome = match answer {
            Ok((body, wire_bytes)) => {
                self.tracker.received(self.peer, wire_bytes as u64);
                let outcome = parse_blocking(body.len(), move || open(&body, read)).await;
                outcome.unwrap_or(Err(PeerFault::NoAnswer(P2pError::Stopped)))
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "no answer");
                Err(PeerFault::NoAnswer(error))
            }
        };
        if outcome.is_err() {
            self.tracker.peer(self.peer, |counts| counts.failures += 1);
        }
        outcome
    }

    /// The peer's claim; `None` for an empty chain. `hint` is the likely length: where the search for the tip of a peer
    /// of the first release starts.
    pub async fn claim(&self, hint: u64) -> Result<Option<Claim>, PeerFault> {
        let query = Query::ChainInfo { local_block_hashes: Vec::new(), include_blocks: false, from_index: None };
        let claim = self.ask(&query, |data| {
            let info: ChainInfoData = parse(data)?;
            let work = info.cumulative_difficulty.parse().map_err(|error| format!("cumulative_difficulty: {error}"))?;
            let tip = info.tip_hash.filter(|_| info.chain_length > 0);
            let (length, height) = (info.chain_length, info.chain_height);
            Ok(tip.map(|hash| Claim { work: Some(work), length, claimed_height: height, height, hash, held: false }))
        });
        match claim.await {
            Err(fault) if fault.is_unknown_path() => self.probe(hint).await,
            claim => claim,
        }
    }

    /// Finds the tip of a peer that does not send it: in growing steps from a chain of length `hint`, then by
    /// bisection. Most peers have that length or a little more, which takes few round trips.
    async fn probe(&self, hint: u64) -> Result<Option<Claim>, PeerFault> {
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
                Some(block) if block.index <= best.index => {
                    return Err(PeerFault::broken("a chain without end".into()));
                }
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
        let (height, hash) = (best.index, best.hash);
        let length = height.saturating_add(1);
        Ok(Some(Claim { work: None, length, claimed_height: height, height, hash, held: false }))
    }

    /// Corrects the index of a claim's tip: a node's number of blocks says little about it.
    pub async fn locate(&self, claim: &mut Claim) -> Result<(), PeerFault> {
        // For a peer of the first release the search has found it.
        if claim.work.is_some() {
            claim.height = self.get(&claim.hash).await?.ok_or(PeerFault::MissingTip)?.index;
        }
        Ok(())
    }

    /// The block with this hash, if the peer has it, on its chain or not.
    pub async fn get(&self, hash: &str) -> Result<Option<MinerBlock>, PeerFault> {
        let (query, wanted) = (Query::Get { hash: hash.into() }, hash.to_owned());
        let found = self.ask(&query, move |data| {
            let block: MinerBlock = parse(data)?;
            if block.hash == wanted { Ok(block) } else { Err("a block of another hash than asked".into()) }
        });
        match found.await {
            Ok(block) => Ok(Some(block)),
            Err(PeerFault::ErrorAnswer(failure)) if failure.code == Code::BlockNotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A block at an index, any of several; `None` if there is none.
    async fn at(&self, index: u64) -> Result<Option<MinerBlock>, PeerFault> {
        Ok(self.chunk(index, index).await?.blocks.into_iter().next())
    }

    /// Hashes of all blocks at an index of the peer's chain.
    pub async fn hashes_at(&self, index: u64) -> Result<Vec<String>, PeerFault> {
        Ok(self.chunk(index, index).await?.blocks.into_iter().map(|block| block.hash).collect())
    }

    /// The blocks of one answer from an index on.
    pub async fn after(&self, from: u64) -> Result<Vec<MinerBlock>, PeerFault> {
        Ok(self.chunk(from, from.saturating_add(BRANCH - 1)).await?.blocks)
    }

    /// The highest of these blocks of the store that is on the peer's chain.
    pub async fn highest_match(&self, ours: Vec<CheckPoint>) -> Result<Option<u64>, PeerFault> {
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

    /// The blocks of one answer from `from` on; may be empty.
    pub async fn chunk(&self, from: u64, to: u64) -> Result<Chunk, PeerFault> {
        let chunk_size = (to - from).saturating_add(1).min(MAX_CHUNK);
        let query = Query::Range { from_index: from, to_index: to, chunk_size };
        let chunk = self.ask(&query, move |data| {
            let bytes = data.len();
            let RangeData { mut blocks, to_index, .. } = parse(data)?;
            // A window consists of many answers: with few long blocks in each, it would take as much memory as with
            // many.
            if bytes > (blocks.len() + 1) * MAX_BLOCK_BYTES {
                return Ok(None);
            }
            blocks.retain(|block| (from..=to).contains(&block.index));
            let last = blocks.iter().map(|block| block.index).max().unwrap_or(from);
            Ok(Some(Chunk { blocks, to_index: to_index.clamp(last, to) }))
        });
        chunk.await?.ok_or(PeerFault::TooLong(from))
    }

    /// The headers from `from` to `to`; `None` unless there is exactly one for each index: a node may have several
    /// blocks at an index, or none.
    pub async fn headers(&self, from: u64, to: u64) -> Result<Option<Vec<Header>>, PeerFault> {
        let chunk_size = (to - from).saturating_add(1).min(MAX_CHUNK);
        let query = Query::Headers { from_index: from, to_index: to, chunk_size };
        let mut headers = self.ask(&query, |data| Ok(parse::<HeadersData>(data)?.headers)).await?;
        headers.sort_by_key(|header| header.index);
        let is_whole = headers.iter().map(|header| header.index).eq(from..=to);
        Ok(is_whole.then_some(headers))
    }
}

fn open<T>(body: &Bytes, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, PeerFault> {
    let opened = protocol::open_envelope(body).map_err(|error| match error.is_eof() {
        // A node whose own time limit ends while it sends drops the stream, which looks like the answer's end.
        true => PeerFault::NoAnswer(P2pError::BadAnswer(error.to_string())),
        false => PeerFault::broken(error.to_string()),
    })?;
    read(opened.map_err(PeerFault::ErrorAnswer)?).map_err(PeerFault::broken)
}

pub fn parse<'a, T: serde::Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_broke_off_is_none() {
        let whole = br#"{"ok":true,"data":{"blocks":[]},"errors":null}"#;
        let fault = |bytes: &[u8]| open(&Bytes::copy_from_slice(bytes), |data| Ok(data.to_owned())).unwrap_err();
        for end in 1..whole.len() {
            assert!(matches!(fault(&whole[..end]), PeerFault::NoAnswer(P2pError::BadAnswer(_))), "{end}");
        }
        assert!(matches!(fault(br#"{"ok":true,"data":}"#), PeerFault::BrokenProtocol(_)));
        assert!(matches!(fault(br#"{"ok":"#), PeerFault::NoAnswer(_)));
        assert!(matches!(fault(b"null"), PeerFault::BrokenProtocol(_)));
    }
}

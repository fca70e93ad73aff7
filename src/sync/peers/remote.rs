//! One peer's side of the protocol, as the sync needs it: what it claims, where its chain leaves ours, its blocks.

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
    source::parsed,
    sync::{failure::Fault, progress::Tracker},
};

/// Blocks that an abandoned branch is likely to have at most.
pub const BRANCH: u64 = 40;

/// Single blocks asked for at once where a peer of the first release is probed.
const PROBES_AT_ONCE: usize = 8;

/// How much further each step reaches than the one before on the way to the tip of such a peer.
const PROBE_STRIDE: u64 = 8;

/// What a peer says of its chain. Nothing of it is proven, and of an honest node's numbers only the tip's hash is right: it
/// counts whatever it keeps beside its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its work; `None` where the peer is of the first release, which does not tell.
    pub work: Option<CumulativeDifficulty>,
    /// Number of blocks.
    pub length: u64,
    /// Index of the tip, as claimed: its number of blocks less one.
    pub claimed_height: u64,
    /// Index of the tip: the same, until [`Remote::locate`] has found it out.
    pub height: u64,
    /// Hash of the tip.
    pub hash: String,
    /// Whether our chain holds the tip.
    pub held: bool,
}

impl Claim {
    /// The end of the chain that is claimed.
    pub fn tip(&self) -> Position {
        Position { index: self.height, hash: self.hash.clone() }
    }
}

/// Blocks of an answer to a range, in any order, of which an index may have none or several.
pub struct Chunk {
    pub blocks: Vec<MinerBlock>,
    /// Index of the last block that the answer covers.
    pub to_index: u64,
}

/// A peer, as one job asks it.
#[derive(Clone)]
pub struct Remote {
    pub peer: PeerId,
    p2p: P2pClient,
    timeout: Duration,
    pub tracker: Arc<Tracker>,
}

impl Remote {
    pub fn new(p2p: P2pClient, peer: PeerId, timeout: Duration, tracker: Arc<Tracker>) -> Self {
        Self { peer, p2p, timeout, tracker }
    }

    /// Whether the operator trusts it.
    pub fn is_trusted(&self) -> bool {
        self.p2p.is_trusted(&self.peer)
    }

    /// Longest wait for one answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks, and hands the text of `data` to `read`.
    pub async fn ask<T: Send + 'static>(
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
            Ok(tip.map(|hash| Claim { work: Some(work), length, claimed_height: height, height, hash, held: false }))
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
        let (height, hash) = (best.index, best.hash);
        let length = height.saturating_add(1);
        Ok(Some(Claim { work: None, length, claimed_height: height, height, hash, held: false }))
    }

    /// Puts the tip's real index into a claim: how many blocks a node keeps says little of it.
    pub async fn locate(&self, claim: &mut Claim) -> Result<(), Fault> {
        // Of a peer of the first release it was found by looking.
        if claim.work.is_some() {
            claim.height = self.get(&claim.hash).await?.ok_or(Fault::NoTip)?.index;
        }
        Ok(())
    }

    /// The block with this hash, if it has one, on its chain or beside.
    pub async fn get(&self, hash: &str) -> Result<Option<MinerBlock>, Fault> {
        let (query, wanted) = (Query::Get { hash: hash.into() }, hash.to_owned());
        let found = self.ask(&query, move |data| {
            let block: MinerBlock = parse(data)?;
            if block.hash == wanted { Ok(block) } else { Err("a block of another hash than asked".into()) }
        });
        match found.await {
            Ok(block) => Ok(Some(block)),
            Err(Fault::Refused(failure)) if failure.code == Code::BlockNotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A block at an index, if it has one there: of several any.
    async fn at(&self, index: u64) -> Result<Option<MinerBlock>, Fault> {
        Ok(self.chunk(index, index).await?.blocks.into_iter().next())
    }

    /// Hashes of all blocks that it counts to its chain at an index.
    pub async fn hashes_at(&self, index: u64) -> Result<Vec<String>, Fault> {
        Ok(self.chunk(index, index).await?.blocks.into_iter().map(|block| block.hash).collect())
    }

    /// The blocks that it counts to its chain, of one answer's length from an index on.
    pub async fn after(&self, from: u64) -> Result<Vec<MinerBlock>, Fault> {
        Ok(self.chunk(from, from.saturating_add(BRANCH - 1)).await?.blocks)
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

    /// One answer's blocks from `from` on, possibly none.
    pub async fn chunk(&self, from: u64, to: u64) -> Result<Chunk, Fault> {
        let chunk_size = (to - from).saturating_add(1).min(MAX_CHUNK);
        let query = Query::Range { from_index: from, to_index: to, chunk_size };
        self.ask(&query, move |data| {
            let bytes = data.len();
            let RangeData { mut blocks, to_index, .. } = parse(data)?;
            // Many answers make a window: one of few long blocks would take as much memory as one of many.
            if bytes > (blocks.len() + 1) * MAX_BLOCK_BYTES {
                return Err(format!("{bytes} bytes for {} blocks", blocks.len()));
            }
            blocks.retain(|block| (from..=to).contains(&block.index));
            let last = blocks.iter().map(|block| block.index).max().unwrap_or(from);
            Ok(Chunk { blocks, to_index: to_index.clamp(last, to) })
        })
        .await
    }

    /// The headers from `from` to `to`, one for each index; `None` where there isn't just one: a node may keep several blocks
    /// at an index, or none.
    pub async fn headers(&self, from: u64, to: u64) -> Result<Option<Vec<Header>>, Fault> {
        let chunk_size = (to - from).saturating_add(1).min(MAX_CHUNK);
        let query = Query::Headers { from_index: from, to_index: to, chunk_size };
        let mut headers = self.ask(&query, |data| Ok(parse::<HeadersData>(data)?.headers)).await?;
        headers.sort_by_key(|header| header.index);
        let is_whole = headers.iter().map(|header| header.index).eq(from..=to);
        Ok(is_whole.then_some(headers))
    }
}

fn open<T>(body: &Bytes, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Fault> {
    let data = protocol::open_envelope(body).map_err(Fault::broken)?.map_err(Fault::Refused)?;
    read(data).map_err(Fault::broken)
}

pub fn parse<'a, T: serde::Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|error| error.to_string())
}

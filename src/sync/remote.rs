//! One peer's side of the protocol, as the sync needs it: what it claims, where its chain leaves ours, its blocks.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use libp2p::PeerId;

use super::{
    fault::Fault,
    links::{Pile, Way},
    tracker::Tracker,
};
use crate::{
    chain::{CumulativeDifficulty, MAX_BLOCK_BYTES, MinerBlock, Position, block::Header},
    p2p::{P2pClient, P2pError},
    protocol::{
        self, Code, MAX_CHUNK, Query,
        answer::{CanonicalData, ChainInfoData, EpochData, FindAncestorData, HeadersData, RangeData},
        query::CheckPoint,
    },
    source::parsed,
};

/// Requests that a window of 1000 blocks may take. Today's nodes need 20 when they give the 50 that are their default; a
/// peer that gives less than 16 at a time is left.
const MAX_REQUESTS_PER_WINDOW: usize = 64;

/// Blocks of one window that are asked for by their hashes because its answer lacks them.
const MAX_HOLES: usize = 64;

/// How far beyond the end of a window is looked for which of several blocks there is on the chain: as far as an abandoned
/// branch is likely to reach, then once more.
const LOOK_AHEAD: [u64; 2] = [40, MAX_CHUNK];

/// Single blocks asked for at once where a peer of the first release is probed.
const PROBES_AT_ONCE: usize = 8;

/// How much further each step reaches than the one before on the way to the tip of such a peer.
const PROBE_STRIDE: u64 = 8;

/// What a peer says of its chain. Nothing of it is proven, and of an honest node's numbers only the tip's hash is right: it
/// counts whatever it keeps beside its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
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
struct Chunk {
    blocks: Vec<MinerBlock>,
    /// Index of the last block that the answer covers.
    to_index: u64,
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
    async fn get(&self, hash: &str) -> Result<Option<MinerBlock>, Fault> {
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
        Ok(self.chunk(from, from.saturating_add(LOOK_AHEAD[0] - 1)).await?.blocks)
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

    /// The blocks from `from` to `to` of the chain that ends with `tip`, in as many answers as it takes. What is certain
    /// goes to `keep` as it comes: it is not lost when the next answer fails. Between two of them the peer may reorganise:
    /// what it gave before that stays.
    pub async fn range(
        &self,
        from: u64,
        to: u64,
        tip: &Position,
        mut keep: impl FnMut(Vec<MinerBlock>),
    ) -> Result<(), Fault> {
        // What is not handed on yet begins at `open`; answers go on at `next`.
        let (mut open, mut next, mut end, mut pile) = (from, from, None::<String>, Pile::default());
        for _ in 0..MAX_REQUESTS_PER_WINDOW {
            let Chunk { blocks, to_index } = self.chunk(next, to).await?;
            if blocks.is_empty() && pile.len() == 0 {
                return Err(Fault::Missing(next));
            }
            pile.add(blocks);
            next = to_index.saturating_add(1);
            let is_last = to_index >= to;
            let blocks = match pile.way(open, to_index, end.as_deref()) {
                Way::One(blocks) if !is_last || to < tip.index => blocks,
                // Which of several it is shows in the answers to come.
                Way::Several | Way::None if !is_last => continue,
                _ => self.resolve(&mut pile, open, to, tip).await?,
            };
            if end.is_some_and(|end| blocks.first().is_some_and(|first| first.previous_hash != end)) {
                return Err(Fault::Moved(open));
            }
            end = blocks.last().map(|block| block.hash.clone());
            open = next;
            pile.clear();
            self.tracker.peer(self.peer, |counts| counts.blocks += blocks.len() as u64);
            keep(blocks);
            if is_last {
                return Ok(());
            }
        }
        Err(Fault::Tiny(MAX_CHUNK as usize / MAX_REQUESTS_PER_WINDOW + 1))
    }

    /// Puts the chain from `from` to `to` together that ends with `tip`, from what is in the pile and more where that is
    /// needed: later blocks to tell which of several is on the chain, and blocks that only their hash leads to.
    async fn resolve(&self, pile: &mut Pile, from: u64, to: u64, tip: &Position) -> Result<Vec<MinerBlock>, Fault> {
        if to < tip.index {
            match (pile.way(from, to, None), pile.at(to).as_slice()) {
                (Way::One(blocks), _) => return Ok(blocks),
                // Only one can be meant.
                (Way::None, [top]) => {
                    let top = top.clone();
                    return self.down(pile, &top, from, to).await;
                }
                _ => {}
            }
        }
        let mut reached = to;
        for ahead in LOOK_AHEAD {
            let wanted = to.saturating_add(ahead).min(tip.index);
            while reached < wanted {
                let Chunk { blocks, to_index } = self.chunk(reached.saturating_add(1), wanted).await?;
                pile.add(blocks);
                reached = to_index;
            }
            let mut whole = match reached >= tip.index {
                true => self.down(pile, &tip.hash, from, tip.index).await?,
                false => match (pile.way(from, reached, None), pile.at(reached).as_slice()) {
                    (Way::One(blocks), _) => blocks,
                    (Way::None, [top]) => {
                        let top = top.clone();
                        self.down(pile, &top, from, reached).await?
                    }
                    _ => continue,
                },
            };
            whole.retain(|block| block.index <= to);
            return Ok(whole);
        }
        Err(Fault::Tangled(to))
    }

    /// The chain from `from` up to the block `top` at `to`, asking for blocks that are missing by their hashes.
    async fn down(&self, pile: &mut Pile, top: &str, from: u64, to: u64) -> Result<Vec<MinerBlock>, Fault> {
        for _ in 0..=MAX_HOLES {
            let Some(hole) = pile.hole(top, from, to) else { return Ok(pile.chain(top, from)) };
            if hole.misplaced.is_some() {
                return Err(Fault::Unlinked(Box::new(hole)));
            }
            match self.get(&hole.hash).await? {
                Some(block) => pile.add([block]),
                None => return Err(Fault::Unlinked(Box::new(hole))),
            }
        }
        Err(Fault::Tangled(to))
    }

    /// One answer's blocks from `from` on, possibly none.
    async fn chunk(&self, from: u64, to: u64) -> Result<Chunk, Fault> {
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

    /// The blocks from `from` to `to`, which are those of an epoch. Nodes number epochs in two ways: what one of its answers
    /// lacks at either end is in the epoch beside.
    pub async fn epoch(&self, epoch: u64, from: u64, to: u64, tip: &Position) -> Result<Vec<MinerBlock>, Fault> {
        let mut pile = Pile::default();
        let mut beside = vec![epoch];
        while let Some(asked) = beside.pop() {
            let blocks = self.ask(&Query::Epoch { epoch: asked }, |data| Ok(parse::<EpochData>(data)?.blocks)).await?;
            pile.add(blocks.into_iter().filter(|block| (from..=to).contains(&block.index)));
            if asked == epoch {
                let lacks = |index: u64| pile.at(index).is_empty();
                beside.extend(lacks(to).then(|| epoch.saturating_add(1)));
                beside.extend(epoch.checked_sub(1).filter(|_| lacks(from)));
            }
        }
        self.counted(self.resolve(&mut pile, from, to, tip).await)
    }

    /// Its whole chain, from `from` to `to`, in one answer.
    pub async fn canonical(&self, from: u64, to: u64, tip: &Position) -> Result<Vec<MinerBlock>, Fault> {
        let blocks = self.ask(&Query::Canonical, |data| Ok(parse::<CanonicalData>(data)?.blocks)).await?;
        let mut pile = Pile::default();
        pile.add(blocks.into_iter().filter(|block| (from..=to).contains(&block.index)));
        self.counted(self.resolve(&mut pile, from, to, tip).await)
    }

    fn counted(&self, blocks: Result<Vec<MinerBlock>, Fault>) -> Result<Vec<MinerBlock>, Fault> {
        if let Ok(blocks) = &blocks {
            self.tracker.peer(self.peer, |counts| counts.blocks += blocks.len() as u64);
        }
        blocks
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

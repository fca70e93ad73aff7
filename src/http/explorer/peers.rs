//! The gateway's peers as texts, and the chain that each is on.

use std::collections::BTreeMap;

use super::{
    parts::{BlockLink, Id, Mark, Moment},
    text::{self, Shown},
    visit::Visit,
};
use crate::{
    chain::Position,
    p2p::{PeerInfo, Standing},
    store::Tip,
};

/// Most chains that a page lists.
const CHAINS: usize = 10;
/// Peers that are named for each.
const NAMED: usize = 3;

/// How many peers are on which chain.
#[derive(Default)]
pub(super) struct Standings {
    pub total: usize,
    pub same: usize,
    pub behind: usize,
    pub ahead: usize,
    pub forked: usize,
    pub other_genesis: usize,
    pub unknown: usize,
}

impl Standings {
    /// Those of the connected peers, as seen from the tip of a page.
    pub(super) fn of(peers: &[PeerInfo], tip: Option<&Tip>) -> Self {
        let mut counts = Self::default();
        for peer in heard(peers) {
            counts.total += 1;
            match standing(peer, tip) {
                Standing::Same => counts.same += 1,
                Standing::Behind => counts.behind += 1,
                Standing::Ahead => counts.ahead += 1,
                Standing::Forked => counts.forked += 1,
                Standing::OtherGenesis => counts.other_genesis += 1,
                Standing::Unknown => counts.unknown += 1,
            }
        }
        counts
    }
}

/// The peers whose word counts. What is known of the chain of a peer that went away is as old as that.
pub(super) fn heard(peers: &[PeerInfo]) -> impl Iterator<Item = &PeerInfo> {
    peers.iter().filter(|peer| peer.connected && !peer.shunned)
}

/// The relation of a peer's chain to ours. Since it was compared, our tip may have gone on to the page's.
fn standing(peer: &PeerInfo, tip: Option<&Tip>) -> Standing {
    let Some(chain) = &peer.chain else { return Standing::Unknown };
    let is_older = |index: u64| tip.is_some_and(|tip| index < tip.index && chain.tip_hash != tip.hash);
    match chain.standing {
        Standing::Same if chain.tip_index.is_some_and(is_older) => Standing::Behind,
        standing => standing,
    }
}

/// A relation to our chain, as a mark and in words.
fn words(standing: Standing) -> (Mark, &'static str) {
    match standing {
        Standing::Same => (Mark::Ours, "at our tip"),
        Standing::Behind => (Mark::Ours, "behind: our chain holds its tip"),
        Standing::Ahead => (Mark::Ours, "ahead: its chain goes on from our tip"),
        Standing::Forked => (Mark::NotOurs, "on a fork"),
        Standing::OtherGenesis => (Mark::NotOurs, "its genesis is another"),
        Standing::Unknown => (Mark::Unknown, "not compared yet"),
    }
}

/// A peer, as texts.
pub(super) struct PeerRow {
    pub id: Id,
    pub alias: String,
    pub connected: bool,
    pub role: String,
    pub agent: String,
    pub mark: Mark,
    pub standing: &'static str,
    pub tip: Option<Id>,
    pub height: String,
    pub work: String,
    pub parts: Option<BlockLink>,
    pub asked: Option<Moment>,
    pub problem: String,
}

impl PeerRow {
    pub(super) fn new(visit: &Visit, peer: &PeerInfo, tip: Option<&Tip>) -> Self {
        let short = |text: Option<&String>| text.map(|text| Shown::listed(text).text).unwrap_or_default();
        let or_dash = |text: String| if text.is_empty() { "–".into() } else { text };
        let (mark, standing) = words(standing(peer, tip));
        let chain = peer.chain.as_ref();
        let parts = chain.filter(|chain| matches!(chain.standing, Standing::Forked | Standing::Behind));
        let parts = parts.and_then(|chain| chain.common_ancestor.as_ref());
        Self {
            id: peer.peer_id.as_deref().map_or_else(|| Id::plain("not reached yet"), |id| visit.links.nominee(id)),
            alias: short(peer.alias.as_ref()),
            connected: peer.connected,
            role: or_dash(short(peer.role.as_ref())),
            agent: or_dash(short(peer.agent.as_ref())),
            mark,
            standing,
            tip: chain.map(|chain| visit.links.block(&chain.tip_hash)),
            height: chain
                .map_or_else(String::new, |chain| text::grouped(chain.tip_index.unwrap_or(chain.claimed_height))),
            work: or_dash(chain.and_then(|chain| chain.claimed_work.as_ref()).map(text::grouped).unwrap_or_default()),
            parts: parts.map(|ancestor| {
                BlockLink::new(&visit.links, &Position { index: ancestor.index, hash: ancestor.hash.clone() })
            }),
            asked: chain.map(|chain| Moment::new(chain.at, visit.now)),
            problem: short(chain.and_then(|chain| chain.problem.as_ref())),
        }
    }
}

/// A chain that peers have, by its tip.
pub(super) struct ChainRow {
    pub mark: Mark,
    pub standing: &'static str,
    pub tip: Id,
    pub height: String,
    pub work: String,
    pub parts: Option<BlockLink>,
    /// Blocks of the branch, as its peers claim.
    pub length: String,
    pub peers: usize,
    pub named: Vec<Id>,
}

/// The chains of the connected peers, those with most peers first.
pub(super) fn chains(visit: &Visit, peers: &[PeerInfo], tip: Option<&Tip>) -> Vec<ChainRow> {
    let mut by_tip: BTreeMap<&str, Vec<&PeerInfo>> = BTreeMap::new();
    for peer in heard(peers) {
        if let Some(chain) = &peer.chain {
            by_tip.entry(&chain.tip_hash).or_default().push(peer);
        }
    }
    let mut groups: Vec<_> = by_tip.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let rows = groups.iter().take(CHAINS).filter_map(|group| {
        let first = group.first()?;
        let row = PeerRow::new(visit, first, tip);
        let chain = first.chain.as_ref()?;
        let from = chain.common_ancestor.as_ref().filter(|_| chain.standing == Standing::Forked);
        let length = from.map(|from| chain.tip_index.unwrap_or(chain.claimed_height).saturating_sub(from.index));
        let ids = group.iter().filter_map(|peer| peer.peer_id.as_deref());
        Some(ChainRow {
            mark: row.mark,
            standing: row.standing,
            tip: visit.links.block(&chain.tip_hash),
            height: row.height,
            work: row.work,
            parts: row.parts.filter(|_| chain.standing == Standing::Forked),
            length: length.map_or_else(|| "–".into(), text::grouped),
            peers: group.len(),
            named: ids.take(NAMED).map(|id| visit.links.nominee(id)).collect(),
        })
    });
    rows.collect()
}

//! Metrics of the chain, of what the peers claim of theirs, and of the sync.

use super::collect::{Labels, Metrics, label};
use crate::{
    http::gateway::Gateway,
    p2p::{PeerChain, PeerInfo, Standing},
    protocol::Failure,
    source::{StoreFigures, job::SyncState},
};

/// Metrics of the chain and the sync.
pub async fn add_chain(metrics: &mut Metrics, gateway: &Gateway, peers: &[PeerInfo]) -> Result<(), Failure> {
    let state = gateway.source.state().await?;
    let StoreFigures { bytes, staged_blocks, unchanged_seconds } = gateway.source.figures(&state).await?;
    let sync = gateway.source.sync_status().await?;
    let job_blocks = match sync.job {
        Some(id) => gateway.source.sync_job(id).await?.progress.blocks,
        None => 0,
    };
    metrics.gauge("modal_chain_blocks", "Canonical blocks in the store.", state.length);
    let tip_age = gateway.source.chain_watch().freshness(|hash| state.tip_hash() == Some(hash)).tip_age;
    let help = "Seconds since the tip's timestamp: since its mining began.";
    metrics.gauges("modal_chain_tip_age_seconds", help, tip_age.map(unlabelled));
    let help = "Seconds since the canonical chain last changed.";
    metrics.gauges("modal_chain_tip_unchanged_seconds", help, unchanged_seconds.map(unlabelled));
    add_peers_chains(metrics, state.tip.as_ref().map_or(0, |tip| tip.index), peers);
    let help = "Blocks of the branch that is stored beside the chain until its work wins.";
    metrics.gauge("modal_chain_staged_blocks", help, staged_blocks);
    let assumed = match &gateway.settings.network.assume_valid {
        Some(pin) => Some(gateway.source.assumed_blocks(pin).await?),
        None => None,
    };
    let left = assumed.as_ref().and_then(|assumed| assumed.blocks_left).unwrap_or(0);
    let help = "Canonical blocks up to the assume-valid block that are not verified to pow yet.";
    metrics.gauge("modal_chain_assumed_blocks", help, left);
    let failed = assumed.is_some_and(|assumed| assumed.failure.is_some());
    let help = "Whether such a block failed the verification in the background: 1 or 0.";
    metrics.gauge("modal_chain_assumed_failed", help, failed.into());
    let deviations = [("schedule", state.off_schedule), ("timestamp", state.off_timestamp)];
    let deviations = deviations.map(|(rule, count)| (label("rule", rule), count));
    let help = "Canonical blocks that deviate from a rule that is only reported.";
    metrics.gauges("modal_chain_deviations", help, deviations);
    metrics.gauge("modal_store_bytes", "Bytes of the database.", bytes);
    metrics.gauge("modal_store_blocks", "Blocks in the store, orphans included.", state.total_blocks);
    let states = SyncState::ALL.map(|state| (label("state", state.as_str()), (state == sync.state).into()));
    metrics.gauges("modal_sync_state", "State of the sync: 1 for the current one.", states);
    metrics.gauge("modal_sync_job_blocks", "Blocks that the running sync job has written.", job_blocks);
    metrics.gauge("modal_sync_useful_peers", "Peers that answered the last check of their tips.", sync.useful_peers);
    Ok(())
}

/// How far behind the peers' chains ours is, and how long the branches are where they part.
fn add_peers_chains(metrics: &mut Metrics, tip: u64, peers: &[PeerInfo]) {
    let claimed = |chain: &PeerChain| chain.tip_index.unwrap_or(chain.claimed_height);
    let best = |trusted: bool| {
        let peers = chains(peers).filter(|(peer, chain)| (peer.trusted || !trusted) && chain.problem.is_none());
        peers.map(|(_, chain)| claimed(chain)).max()
    };
    let behind = [("trusted", best(true)), ("all", best(false))];
    let behind = behind.into_iter().filter_map(|(name, best)| Some((label("peers", name), best?.saturating_sub(tip))));
    let help = "Blocks from our tip to the highest tip that a connected peer claims.";
    metrics.gauges("modal_chain_blocks_behind", help, behind);
    let forked = || {
        let forked = chains(peers).filter(|(_, chain)| chain.standing == Standing::Forked);
        forked.filter_map(|(_, chain)| Some((chain.common_ancestor.as_ref()?.index, claimed(chain))))
    };
    let own = forked().map(|(ancestor, _)| tip.saturating_sub(ancestor)).max();
    let peer = forked().map(|(ancestor, end)| end.saturating_sub(ancestor)).max();
    let fork = [("own", own), ("peer", peer)].map(|(side, blocks)| (label("side", side), blocks.unwrap_or(0)));
    let help = "Blocks since our chain parts from that of a connected peer: on our side, on the peer's as it claims.";
    metrics.gauges("modal_chain_fork_blocks", help, fork);
}

/// Adds the connected peers by the relation of their chains to ours.
pub fn add_standings(metrics: &mut Metrics, peers: &[PeerInfo]) {
    let standings = Standing::ALL.map(|standing| {
        let count = chains(peers).filter(|(_, chain)| chain.standing == standing).count();
        (label("standing", standing.as_str()), count as u64)
    });
    let help = "Connected peers by the relation of their chain to ours, as of the last look at their tips.";
    metrics.gauges("modal_peers_standing", help, standings);
}

/// The connected peers whose word is not disregarded, and what they claim of their chains.
fn chains(peers: &[PeerInfo]) -> impl Iterator<Item = (&PeerInfo, &PeerChain)> {
    let heard = peers.iter().filter(|peer| peer.connected && !peer.shunned);
    heard.filter_map(|peer| Some((peer, peer.chain.as_ref()?)))
}

fn unlabelled(value: u64) -> (Labels, u64) {
    (Vec::new(), value)
}

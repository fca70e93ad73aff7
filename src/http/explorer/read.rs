//! What pages read from the source.

use super::{parts::BlockRow, visit::Visit};
use crate::{
    chain::{Level, MinerBlock},
    protocol::Failure,
    source::{
        view::{
            BlockId, Viewed,
            model::{
                BlockDetail, BlockPage, EpochDetail, EpochPage, Found, NetworkFigures, Nominee, OrphanPage, Ranking,
                ReorganisationPage,
            },
        },
        with_deadline,
    },
    store::Snapshot,
};

type Answer<T> = Result<Viewed<T>, Failure>;

/// The network's figures.
pub(super) async fn network(visit: &Visit) -> Answer<NetworkFigures> {
    let source = &visit.gateway.source;
    with_deadline(async { source.views().network(&*source.state().await?).await }).await
}

/// Blocks of the chain below the index `before`, newest first.
pub(super) async fn blocks(visit: &Visit, before: Option<u64>, limit: u64) -> Answer<BlockPage> {
    let source = &visit.gateway.source;
    with_deadline(async { source.views().blocks(&*source.state().await?, before, limit).await }).await
}

/// A block.
pub(super) async fn block(visit: &Visit, id: &BlockId) -> Answer<BlockDetail> {
    with_deadline(visit.gateway.source.views().block(id)).await
}

/// Epochs below `before`, newest first.
pub(super) async fn epochs(visit: &Visit, before: Option<u64>, limit: u64) -> Answer<EpochPage> {
    let source = &visit.gateway.source;
    with_deadline(async { source.views().epochs(&*source.state().await?, before, limit).await }).await
}

/// An epoch.
pub(super) async fn epoch(visit: &Visit, epoch: u64) -> Answer<EpochDetail> {
    with_deadline(visit.gateway.source.views().epoch(epoch)).await
}

/// The nominees of the last epochs.
pub(super) async fn nominees(visit: &Visit, epochs: u64) -> Answer<Ranking> {
    let source = &visit.gateway.source;
    with_deadline(async { source.views().nominees(&*source.state().await?, epochs).await }).await
}

/// The blocks below the index `before` that nominate a peer.
pub(super) async fn nominee(visit: &Visit, peer: &str, before: Option<u64>, limit: u64) -> Answer<Nominee> {
    with_deadline(visit.gateway.source.views().nominee(peer, before, limit)).await
}

/// Orphaned blocks behind the one with this index and hash, the highest first.
pub(super) async fn orphans(visit: &Visit, before: Option<&(u64, String)>, limit: u64) -> Answer<OrphanPage> {
    with_deadline(visit.gateway.source.views().orphans(before, limit)).await
}

/// Reorganisations before the one with the id `before`, newest first.
pub(super) async fn reorganisations(visit: &Visit, before: Option<u64>, limit: u64) -> Answer<ReorganisationPage> {
    let source = &visit.gateway.source;
    with_deadline(async { source.views().reorganisations(&*source.state().await?, before, limit).await }).await
}

/// What a text may mean.
pub(super) async fn search(visit: &Visit, text: &str) -> Answer<Found> {
    let source = &visit.gateway.source;
    with_deadline(async { source.views().search(&*source.state().await?, text).await }).await
}

/// Whether the canonical block at `index` is at the finality depth or deeper.
pub(super) fn is_final(visit: &Visit, chain: &Snapshot, index: u64) -> bool {
    visit.gateway.source.views().settled(chain, index)
}

/// The chain of `read` on a page that has other blocks too: their weakest level is `other`; `None` without any.
pub(super) fn with_level(read: &Snapshot, other: Option<Level>) -> Snapshot {
    Snapshot { level: read.level.into_iter().chain(other).min(), ..read.clone() }
}

/// Blocks of this chain, or orphaned ones, as rows of a list.
pub(super) fn rows(visit: &Visit, chain: &Snapshot, blocks: &[MinerBlock]) -> Vec<BlockRow> {
    let row = |block: &MinerBlock| BlockRow::new(&visit.links, block, is_final(visit, chain, block.index), visit.now);
    blocks.iter().map(row).collect()
}

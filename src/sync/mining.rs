//! Mining: new blocks on the chain in the store, published by gossip.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{
        ChainEnd, Level, MinerBlock, Network, PowError, PowOptions, VerifiedBlocks, Verifier, VerifyError,
        miner::{self, Miner},
        unix_now,
    },
    p2p::{P2pClient, PeerChain, Standing},
    protocol::gossip,
    source::job::{SyncState, SyncStatus},
    store::{BlockStore, StoreError},
};

/// How often the tip is checked during a search: a new tip ends it.
const TIP_POLL_EVERY: Duration = Duration::from_millis(200);

/// Pause before a retry when the store fails.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// How often the sync's state is checked before mining begins.
const SYNC_POLL_EVERY: Duration = Duration::from_millis(500);

/// Settings of mining.
#[derive(Debug, Clone)]
pub struct Mining {
    /// Whether to wait until the store is in sync before the first block.
    pub after_sync: bool,
    /// The peer that the blocks nominate.
    pub nominee: String,
    /// Threads and memory for the hashes.
    pub pow: PowOptions,
}

/// Why mining stopped.
#[derive(Debug, thiserror::Error)]
pub enum MiningError {
    /// Proof of work can't be computed.
    #[error(transparent)]
    Pow(#[from] PowError),
    /// A mined block breaks a rule: a fault of this program.
    #[error("a block of our own: {0}")]
    Invalid(String),
    /// A mining thread has panicked.
    #[error("a mining thread has panicked")]
    Panicked,
}

/// Mines on the chain in `store` until `shutdown`. An empty store gets the network's usual genesis, but not on a public
/// network: its genesis comes by a sync, which is waited for.
///
/// # Errors
/// [`MiningError`]; a failing store is waited for.
pub async fn mine(
    store: Arc<dyn BlockStore>,
    p2p: P2pClient,
    network: &Network,
    mining: &Mining,
    shutdown: CancellationToken,
) -> Result<(), MiningError> {
    let verifier = Verifier::new(network, Level::Pow, PowOptions { threads: 1, ..mining.pow })?;
    let miner = Arc::new(Miner::new(network, mining.pow)?);
    let mut mined = 0;
    if mining.after_sync {
        wait_until_synced(&*store, &p2p, &shutdown).await;
    }
    let mut warned = false;
    while !shutdown.is_cancelled() {
        let parent = match tip(&*store, network).await {
            Ok(parent) => parent,
            Err(error) => {
                tracing::warn!(%error, "mining can't read the store; trying again");
                shutdown.run_until_cancelled(sleep(RETRY_EVERY)).await;
                continue;
            }
        };
        let found = match &parent {
            None => match own_genesis(network)? {
                Some(genesis) => Some(genesis),
                None => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(
                            network = network.name,
                            "mining waits for the network's genesis, which a sync brings"
                        );
                    }
                    shutdown.run_until_cancelled(sleep(RETRY_EVERY)).await;
                    continue;
                }
            },
            Some(parent) => {
                let template = miner::next_template(network, parent, &mining.nominee, mined, unix_now());
                search(&miner, template, &*store, parent, &shutdown).await?
            }
        };
        let Some(block) = found else { continue };
        let (verifier, after, own) = (verifier.clone(), parent.clone(), block.clone());
        let verified = tokio::task::spawn_blocking(move || verifier.verify(after.as_ref(), vec![own])).await;
        let verified = match verified.map_err(|_| MiningError::Panicked)? {
            Ok(verified) => verified,
            Err(VerifyError::Pow(error)) => return Err(error.into()),
            Err(VerifyError::Violation(violation)) => return Err(MiningError::Invalid(violation.to_string())),
        };
        if write(&*store, &verified, &block.hash, &shutdown).await {
            mined += 1;
            tracing::info!(index = block.index, hash = block.hash, "mined a block");
            // A peer that misses the message finds the block at its next tip poll. A genesis is not published, nor a
            // block that has left the chain meanwhile.
            let is_tip = store.state().await.is_ok_and(|state| state.tip.is_some_and(|tip| tip.hash == block.hash));
            if !block.is_genesis()
                && is_tip
                && let Err(error) = p2p.publish(gossip::encode(&block))
            {
                tracing::debug!(%error, "the block was not published");
            }
        }
    }
    Ok(())
}

/// Waits until the store is in sync with the operator's or the network's own peers; other peers don't count. Where
/// another process syncs the store, its status decides.
async fn wait_until_synced(store: &dyn BlockStore, p2p: &P2pClient, shutdown: &CancellationToken) {
    tracing::info!("mining begins once the store is in sync");
    while !shutdown.is_cancelled() {
        let status = SyncStatus::read(store, true).await;
        let is_empty = store.state().await.is_ok_and(|state| state.tip.is_none());
        let chains = |own_only: bool| {
            let peers = p2p.peers().into_iter().filter(move |peer| peer.configured || !own_only);
            peers.filter_map(|peer| peer.chain).collect::<Vec<_>>()
        };
        let ours = chains(true);
        // Nodes that begin a network together.
        let begins = is_empty && !ours.is_empty() && ours.iter().all(|chain| chain.claimed_length == 0);
        let known = |chain: &PeerChain| !matches!(chain.standing, Standing::Unknown | Standing::OtherGenesis);
        let synced = status.is_ok_and(|status| status.state == SyncState::Synced);
        if begins || synced && (ours.iter().any(known) || chains(false).is_empty()) {
            return;
        }
        shutdown.run_until_cancelled(sleep(SYNC_POLL_EVERY)).await;
    }
}

/// The genesis to begin a network with; `None` where the network has another one, or a public one that others have
/// begun.
fn own_genesis(network: &Network) -> Result<Option<MinerBlock>, PowError> {
    let is_known = Network::NAMES.contains(&network.name.as_str());
    if network.public && is_known && network.genesis_hash.is_none() {
        return Ok(None);
    }
    let genesis = miner::genesis(network)?;
    Ok(Some(genesis).filter(|genesis| network.genesis_hash.as_ref().is_none_or(|hash| *hash == genesis.hash)))
}

/// Writes a mined block, with this hash; returns whether it is in the store. Retried until another block has its place,
/// or the shutdown. A write that failed may have taken effect, so the block is looked up first.
async fn write(store: &dyn BlockStore, block: &VerifiedBlocks, hash: &str, shutdown: &CancellationToken) -> bool {
    loop {
        let written = async {
            let mut writer = store.write().await?;
            writer.append(block.clone()).await?;
            writer.commit().await
        };
        let Err(error) = written.await else { return true };
        match (store.get(hash).await, error) {
            (Ok(Some(_)), _) => return true,
            (Ok(None), StoreError::Conflict(_)) => {
                tracing::debug!(hash, "another block has the place of a mined one");
                return false;
            }
            (_, error) => tracing::warn!(%error, "a mined block could not be written; trying again"),
        }
        if shutdown.run_until_cancelled(sleep(RETRY_EVERY)).await.is_none() {
            return false;
        }
    }
}

/// The end of the chain to mine on; `None` in an empty store.
///
/// # Errors
/// The store's; [`StoreError::Conflict`] if the chain changed between two reads.
async fn tip(store: &dyn BlockStore, network: &Network) -> Result<Option<ChainEnd>, StoreError> {
    let Some(tip) = store.state().await?.tip else { return Ok(None) };
    let end = store.chain_end(tip.index, network.epoch_numbering).await?;
    // Without it the chain would seem empty and get another genesis.
    end.map(Some).ok_or_else(|| StoreError::Conflict("the chain changed while its tip was read".into()))
}

/// Searches a nonce until it is found, the chain has another tip, or the shutdown.
async fn search(
    miner: &Arc<Miner>,
    template: MinerBlock,
    store: &dyn BlockStore,
    parent: &ChainEnd,
    shutdown: &CancellationToken,
) -> Result<Option<MinerBlock>, MiningError> {
    let stop = Arc::new(AtomicBool::new(false));
    let (miner, stopped) = (miner.clone(), stop.clone());
    let mut search = tokio::task::spawn_blocking(move || miner.mine(template, &stopped));
    loop {
        tokio::select! {
            found = &mut search => return Ok(found.map_err(|_| MiningError::Panicked)??),
            () = shutdown.cancelled() => stop.store(true, Ordering::Relaxed),
            () = sleep(TIP_POLL_EVERY) => {
                let state = store.state().await;
                if state.is_ok_and(|state| state.tip.is_none_or(|tip| tip.hash != parent.hash)) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(search.await.map_err(|_| MiningError::Panicked)??);
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::{
        chain::PowAlgorithm,
        store::{self, OpenOptions},
    };

    #[tokio::test]
    async fn a_missing_tip_is_not_an_empty_chain() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/chain.db", folder.path().display());
        let store = store::open(&url, &OpenOptions::default()).await.unwrap();
        let (pow, genesis_hash) = (PowAlgorithm::Sha256, None);
        let network = Network { pow, genesis_hash, initial_difficulty: 1, ..Network::default() };
        assert_eq!(tip(&*store, &network).await.unwrap(), None);

        let verifier = Verifier::new(&network, Level::Pow, PowOptions::default()).unwrap();
        let genesis = miner::genesis(&network).unwrap();
        let verified = verifier.verify(None, vec![genesis.clone()]).unwrap();
        assert!(write(&*store, &verified, &genesis.hash, &CancellationToken::new()).await);
        assert_eq!(tip(&*store, &network).await.unwrap().unwrap().hash, genesis.hash);
        assert!(write(&*store, &verified, &genesis.hash, &CancellationToken::new()).await, "it is there already");

        // As after a reorganisation between the read of the tip and that of its block.
        let mut other = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("DELETE FROM block").execute(&mut other).await.unwrap();
        let error = tip(&*store, &network).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    }
}

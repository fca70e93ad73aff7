//! Mining: blocks of our own on top of the chain in the store, told to the others by gossip.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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

/// How often the chain is looked at while a nonce is searched: on another tip the search is void.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long until another try when the store fails.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// How often the state of the sync is looked at until it is level.
const LEVEL_EVERY: Duration = Duration::from_millis(500);

/// Who mines, and how.
#[derive(Debug, Clone)]
pub struct Mining {
    /// Whether to wait until the sync is level with the peers before the first block.
    pub after_sync: bool,
    /// The peer that the blocks nominate.
    pub nominee: String,
    /// Threads, and memory for the hashes.
    pub pow: PowOptions,
}

/// Why mining stopped.
#[derive(Debug, thiserror::Error)]
pub enum MiningError {
    /// Proof of work can't be computed.
    #[error(transparent)]
    Pow(#[from] PowError),
    /// A block of ours breaks a rule: a fault of this program.
    #[error("a block of our own: {0}")]
    Invalid(String),
    /// A mining thread has panicked.
    #[error("a mining thread has panicked")]
    Panicked,
}

/// Mines on the chain in `store` until `shutdown`. An empty store gets the network's genesis if that is the usual one and
/// the network is none of the public ones: theirs is brought by a sync, and is waited for.
///
/// # Errors
/// [`MiningError`]; a store that fails is waited for.
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
        level(&*store, &p2p, &shutdown).await;
    }
    let mut told = false;
    while !shutdown.is_cancelled() {
        let parent = match tip(&*store, network).await {
            Ok(parent) => parent,
            Err(error) => {
                tracing::warn!(%error, "mining can't read the store; trying on");
                tokio::select! { () = tokio::time::sleep(RETRY_EVERY) => {}, () = shutdown.cancelled() => {} }
                continue;
            }
        };
        let found = match &parent {
            None => match own_genesis(network)? {
                Some(genesis) => Some(genesis),
                None => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            network = network.name,
                            "mining waits for the network's genesis, which a sync brings"
                        );
                    }
                    tokio::select! { () = tokio::time::sleep(RETRY_EVERY) => {}, () = shutdown.cancelled() => {} }
                    continue;
                }
            },
            Some(parent) => {
                let template = miner::next_template(network, parent, &mining.nominee, mined, unix_now());
                search(&miner, template, &*store, parent, &shutdown).await?
            }
        };
        let Some(block) = found else { continue };
        let (verifier, after) = (verifier.clone(), parent.clone());
        let own = block.clone();
        let verified = tokio::task::spawn_blocking(move || verifier.verify(after.as_ref(), vec![own])).await;
        let verified = match verified.map_err(|_| MiningError::Panicked)? {
            Ok(verified) => verified,
            Err(VerifyError::Pow(error)) => return Err(error.into()),
            Err(VerifyError::Violation(violation)) => return Err(MiningError::Invalid(violation.to_string())),
        };
        if write(&*store, &verified, &block.hash, &shutdown).await {
            mined += 1;
            tracing::info!(index = block.index, hash = block.hash, "mined a block");
            // Whoever misses it finds it at the next look at our tip. A genesis is nobody else's business, and what has left
            // the chain meanwhile would only unsettle others.
            let is_tip = store.state().await.is_ok_and(|state| state.tip.is_some_and(|tip| tip.hash == block.hash));
            if !block.is_genesis() && is_tip {
                publish(&p2p, &block);
            }
        }
    }
    Ok(())
}

fn publish(p2p: &P2pClient, block: &MinerBlock) {
    if let Err(error) = p2p.publish(gossip::encode(block)) {
        tracing::debug!(%error, "the block was not published");
    }
}

/// Waits until the sync is level with the operator's own peers or the network's: strangers' word is not enough. Where another
/// process syncs the store, its word has to do.
async fn level(store: &dyn BlockStore, p2p: &P2pClient, shutdown: &CancellationToken) {
    tracing::info!("mining begins once the store is level with the peers");
    while !shutdown.is_cancelled() {
        let status = SyncStatus::read(store, true).await;
        let is_empty = store.state().await.is_ok_and(|state| state.tip.is_none());
        let told = |of_ours: bool| {
            let peers = p2p.peers().into_iter().filter(move |peer| peer.configured || !of_ours);
            peers.filter_map(|peer| peer.chain).collect::<Vec<_>>()
        };
        let ours = told(true);
        // Nodes that begin a network together.
        let begins = is_empty && !ours.is_empty() && ours.iter().all(|chain| chain.claimed_length == 0);
        let known = |chain: &PeerChain| !matches!(chain.standing, Standing::Unknown | Standing::OtherGenesis);
        let synced = status.is_ok_and(|status| status.state == SyncState::Synced);
        if begins || synced && (ours.iter().any(known) || told(false).is_empty()) {
            return;
        }
        tokio::select! { () = tokio::time::sleep(LEVEL_EVERY) => {}, () = shutdown.cancelled() => {} }
    }
}

/// The genesis to begin a network with: none where it has another one, or where others have begun it.
fn own_genesis(network: &Network) -> Result<Option<MinerBlock>, PowError> {
    let is_known = Network::NAMES.contains(&network.name.as_str());
    if network.public && is_known && network.genesis_hash.is_none() {
        return Ok(None);
    }
    let genesis = miner::genesis(network)?;
    Ok(Some(genesis).filter(|genesis| network.genesis_hash.as_ref().is_none_or(|hash| *hash == genesis.hash)))
}

/// Writes a block of our own, which has this hash; whether it is in the store. It is tried again until another block has
/// its place, or the shutdown. A write that failed may count all the same, so it is looked up first.
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
                tracing::debug!(hash, "another block was faster");
                return false;
            }
            (_, error) => tracing::warn!(%error, "a mined block could not be written; trying on"),
        }
        tokio::select! { () = tokio::time::sleep(RETRY_EVERY) => {}, () = shutdown.cancelled() => return false }
    }
}

/// The end of the chain to mine on; `None` in an empty store.
///
/// # Errors
/// The store's; [`StoreError::Conflict`] if the chain changed between two reads.
async fn tip(store: &dyn BlockStore, network: &Network) -> Result<Option<ChainEnd>, StoreError> {
    let Some(tip) = store.state().await?.tip else { return Ok(None) };
    let end = store.chain_end(tip.index, network.epoch_numbering).await?;
    // Taken for the end of an empty chain, it would get another genesis.
    end.map(Some).ok_or_else(|| StoreError::Conflict("the chain changed while its tip was read".into()))
}

/// Searches a nonce until there is one, the chain has another tip, or the shutdown.
async fn search(
    miner: &Arc<Miner>,
    template: MinerBlock,
    store: &dyn BlockStore,
    parent: &ChainEnd,
    shutdown: &CancellationToken,
) -> Result<Option<MinerBlock>, MiningError> {
    let stop = Arc::new(AtomicBool::new(false));
    let (miner, told) = (miner.clone(), stop.clone());
    let mut search = tokio::task::spawn_blocking(move || miner.mine(template, &told));
    loop {
        tokio::select! {
            found = &mut search => return Ok(found.map_err(|_| MiningError::Panicked)??),
            () = shutdown.cancelled() => stop.store(true, Ordering::Relaxed),
            () = tokio::time::sleep(LOOK_EVERY) => {
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
    async fn a_tip_that_is_gone_is_not_an_empty_chain() {
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

        // As a reader finds it who knows the tip and looks for the block when a reorganisation has taken it away.
        let mut other = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("DELETE FROM block").execute(&mut other).await.unwrap();
        let error = tip(&*store, &network).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    }
}

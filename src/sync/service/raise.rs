//! Verifies the blocks that were assumed valid to `pow`, in the background: newest first, since then each verified
//! header vouches for the hash of the block before.
//!
//! One hash at a time, with a pause as long as the hash took, and none while a job runs: at most half of a core. The
//! store keeps the level of each block, so that a new process goes on where the last one ended.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinError};
use tokio_util::task::AbortOnDropHandle;

use super::state::Service;
use crate::{
    chain::{AssumeValid, ChainEnd, Level, MinerBlock, Network, PowError, Verifier, VerifyError, Violation},
    source::job::{AssumedBlocks, Genesis},
    store::{BlockStore, StoreError},
};

/// How often is looked for blocks to verify, beside the ends of jobs.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// Blocks that are passed over at once if all of them are verified.
const PAGE: u64 = 10_000;

/// Why the verification ends, or pauses.
#[derive(Debug, thiserror::Error)]
enum RaiseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pow(#[from] PowError),
    #[error("it has panicked")]
    Panicked(#[from] JoinError),
    #[error("the chain has changed")]
    ChainChanged,
    /// A block is not what the assume-valid block vouches for.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// A running job: the verification in the background waits for its end.
pub(super) struct Busy(Arc<watch::Sender<bool>>);

impl Busy {
    pub(super) fn begin(busy: &Arc<watch::Sender<bool>>) -> Self {
        busy.send_replace(true);
        Self(busy.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// The verification in the background.
pub(super) struct Raiser {
    store: Arc<dyn BlockStore>,
    network: Arc<Network>,
    verifier: Verifier,
    pin: AssumeValid,
    /// Blocks that are raised in one transaction.
    blocks: u64,
    busy: watch::Receiver<bool>,
}

impl Raiser {
    /// Starts it for the service's store, where the network has an assume-valid block. It ends with the handle.
    pub(super) fn start(service: &Service) -> Option<AbortOnDropHandle<()>> {
        let raiser = Self {
            store: service.store.clone(),
            network: service.network.clone(),
            verifier: service.verifier.clone(),
            pin: service.assume_valid()?.clone(),
            blocks: service.raised_blocks,
            busy: service.busy.subscribe(),
        };
        Some(AbortOnDropHandle::new(tokio::spawn(raiser.run())))
    }

    async fn run(mut self) {
        loop {
            match self.raise_all().await {
                Ok(()) => {}
                Err(RaiseError::Violation(violation)) => {
                    tracing::error!(%violation, "a block that was assumed valid is not: see `assumed_valid` in /status");
                    return;
                }
                Err(error) => tracing::info!(%error, "the verification in the background pauses"),
            }
            if let Ok(Err(_)) = tokio::time::timeout(CHECK_EVERY, self.busy.changed()).await {
                return;
            }
        }
    }

    /// Waits while a job runs.
    async fn idle(&mut self) {
        // Without a sender the service has ended, and this task with it.
        let _ = self.busy.wait_for(|busy| !busy).await;
    }

    /// Verifies what is left, newest first.
    async fn raise_all(&mut self) -> Result<(), RaiseError> {
        self.idle().await;
        let mut assumed = AssumedBlocks::read(&*self.store, &self.pin).await?;
        if assumed.blocks_left == Some(0) {
            return Ok(());
        }
        assumed = AssumedBlocks::count(&*self.store, &self.pin).await?;
        // Index after the next block.
        let mut end = self.pin.index.saturating_add(1);
        while end > 0 && assumed.blocks_left.is_some_and(|left| left > 0) {
            let from = end.saturating_sub(self.blocks);
            let page = end.saturating_sub(PAGE.max(self.blocks));
            if self.store.count_below(Level::Pow, page, end - 1).await? == 0 {
                end = page;
            } else if self.store.count_below(Level::Pow, from, end - 1).await? == 0 {
                end = from;
            } else {
                let (raised, violation) = self.raise(from, end - 1).await?;
                assumed.blocks_left = assumed.blocks_left.map(|left| left.saturating_sub(raised));
                assumed.failure = violation.as_ref().map(Violation::to_string);
                assumed.write(&*self.store).await?;
                violation.map_or(Ok(()), Err)?;
                end = from;
            }
        }
        Ok(())
    }

    /// Verifies the blocks from `from` to `to`, and raises the level of those above a bad one. Their number, and why
    /// the bad one is bad.
    async fn raise(&mut self, from: u64, to: u64) -> Result<(u64, Option<Violation>), RaiseError> {
        let parent = match from.checked_sub(1) {
            Some(below) => self.store.chain_end(below, self.network.epoch_numbering).await?,
            None => None,
        };
        let blocks = self.store.range(from, to).await?.list.parse::<MinerBlock>();
        let blocks = blocks.map_err(|error| StoreError::Damaged(format!("blocks {from} to {to}: {error}")))?;
        let (good, violation) = self.verify(parent.clone(), &blocks).await?;
        self.check_unchanged(parent, &blocks).await?;
        let mut raised = 0;
        if let Some(good) = good {
            let mut writer = self.store.write().await?;
            // No other process writes from here on. As each block names its parent, the last one shows whether the
            // chain is still the same.
            let last = writer.canonical_at(to).await?.map(|(hash, _)| hash);
            if last.as_ref() != blocks.last().map(|block| &block.hash) {
                return Err(RaiseError::ChainChanged);
            }
            raised = writer.raise(good, to, Level::Pow).await?;
            writer.commit().await?;
        }
        Ok((raised, violation))
    }

    /// Verifies blocks: the index from which on all are good, if any is, and the violation that ended it.
    async fn verify(
        &mut self,
        parent: Option<ChainEnd>,
        blocks: &[MinerBlock],
    ) -> Result<(Option<u64>, Option<Violation>), RaiseError> {
        let genesis = Genesis::read(&*self.store, self.network.genesis_hash.as_deref()).await?;
        let verifier = genesis.map_or(self.verifier.clone(), |genesis| self.verifier.with_genesis(&genesis.hash));
        let (linked, unverified) = (verifier.at(Level::Linked)?, blocks.to_vec());
        match tokio::task::spawn_blocking(move || linked.verify(parent.as_ref(), unverified)).await? {
            Ok(_) => {}
            Err(VerifyError::Violation(violation)) => return Ok((None, Some(violation))),
            Err(VerifyError::Pow(error)) => return Err(error.into()),
        }
        let mut good = None;
        for block in blocks.iter().rev() {
            self.idle().await;
            let (verifier, index, started) = (self.verifier.clone(), block.index, Instant::now());
            let block = block.clone();
            match tokio::task::spawn_blocking(move || verifier.verify_hash(&block)).await? {
                Ok(()) => good = Some(index),
                Err(VerifyError::Violation(violation)) => return Ok((good, Some(violation))),
                Err(VerifyError::Pow(error)) => return Err(error.into()),
            }
            tokio::time::sleep(started.elapsed()).await;
        }
        Ok((good, None))
    }

    /// That parent and blocks were read from one chain, which is still the store's: else nothing is proven.
    async fn check_unchanged(&self, parent: Option<ChainEnd>, blocks: &[MinerBlock]) -> Result<(), RaiseError> {
        let mut read: Vec<_> = blocks.iter().map(|block| (block.index, block.hash.clone())).collect();
        read.extend(parent.map(|parent| (parent.index, parent.hash)));
        let indexes: Vec<_> = read.iter().map(|(index, _)| *index).collect();
        let now = self.store.canonical_hashes(&indexes).await?;
        match read.iter().all(|(index, hash)| now.get(index) == Some(hash)) {
            true => Ok(()),
            false => Err(RaiseError::ChainChanged),
        }
    }
}

//! The sync's jobs and status, as the store has them.

use std::sync::Arc;

use futures::TryFutureExt;

use super::Source;
use crate::{
    chain::AssumeValid,
    protocol::{Code, Failure},
    source::{
        job::{AssumedBlocks, Genesis, JobSpec, SyncJob, SyncStatus},
        local::with_deadline,
        store_answers::store_failure,
    },
    store::Job,
};

/// Most jobs in the queue.
const MAX_QUEUED_JOBS: usize = 100;

/// Most jobs in a list: all that the store keeps, and the unfinished ones.
const MAX_LISTED_JOBS: u64 = 200;

impl Source {
    /// The jobs, newest first.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn sync_jobs(&self) -> Result<Vec<SyncJob>, Failure> {
        let jobs = self.local.store().jobs(MAX_LISTED_JOBS).map_err(store_failure);
        let jobs = with_deadline(jobs).await?;
        let readable = |job: Job| {
            let id = job.id;
            let read = SyncJob::try_from(job);
            read.inspect_err(|error| tracing::warn!(id, %error, "a sync job of another version is left out")).ok()
        };
        Ok(jobs.into_iter().filter_map(readable).collect())
    }

    /// The job with this number.
    ///
    /// # Errors
    /// [`Code::UnknownJob`], [`Code::StoreUnavailable`].
    pub async fn sync_job(&self, id: u64) -> Result<SyncJob, Failure> {
        let job = with_deadline(self.local.store().job(id).map_err(store_failure)).await?;
        job.ok_or_else(|| Failure::new(Code::UnknownJob))?.try_into().map_err(store_failure)
    }

    /// Queues a job for the process that syncs this store; returns its number.
    ///
    /// # Errors
    /// [`Code::Busy`] when the queue is full, [`Code::StoreUnavailable`], those of [`Self::origin`] for an unknown
    /// peer.
    pub async fn request_sync(&self, spec: &JobSpec) -> Result<u64, Failure> {
        if let Some(peer) = &spec.peer {
            self.origin(peer)?;
        }
        if self.local.store().unfinished_jobs().await.map_err(store_failure)?.len() >= MAX_QUEUED_JOBS {
            return Err(Failure::with_detail(Code::Busy, format!("{MAX_QUEUED_JOBS} sync jobs wait already")));
        }
        let text = serde_json::to_string(spec).map_err(|_| Failure::new(Code::Internal))?;
        self.local.store().create_job(&text).await.map_err(store_failure)
    }

    /// Requests that a job be cancelled.
    ///
    /// # Errors
    /// [`Code::UnknownJob`] also for a finished job, [`Code::StoreUnavailable`].
    pub async fn cancel_sync(&self, id: u64) -> Result<(), Failure> {
        match self.local.store().cancel_job(id).await.map_err(store_failure)? {
            true => Ok(()),
            false => Err(Failure::new(Code::UnknownJob)),
        }
    }

    /// The sync status of the store, at most 50 ms old.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn sync_status(&self) -> Result<SyncStatus, Failure> {
        let read =
            async { SyncStatus::read(&**self.local.store(), self.local.settings.sync).await.map_err(store_failure) };
        with_deadline(self.status.get(read)).await.map(Arc::unwrap_or_clone)
    }

    /// The genesis of the store's network; `pinned` is the one that the settings name. `None` before the first sync has
    /// ended. At most 50 ms old.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn genesis(&self, pinned: Option<&str>) -> Result<Option<Genesis>, Failure> {
        let read = async { Genesis::read(&**self.local.store(), pinned).await.map_err(store_failure) };
        with_deadline(self.genesis.get(read)).await.map(Arc::unwrap_or_clone)
    }

    /// What is left to be verified of the blocks up to the network's assume-valid block. At most 50 ms old.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn assumed_blocks(&self, pin: &AssumeValid) -> Result<AssumedBlocks, Failure> {
        let read = async { AssumedBlocks::read(&**self.local.store(), pin).await.map_err(store_failure) };
        with_deadline(self.assumed.get(read)).await.map(Arc::unwrap_or_clone)
    }
}

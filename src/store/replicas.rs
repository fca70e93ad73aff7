//! Reads from streaming replicas of a Postgres database. The primary has the rest: writes, jobs, the staged branch, the
//! lease; and every read that no replica can answer.
//!
//! A process reads from one replica at a time. No read goes to a replica that is behind what the process has served, or
//! behind what the primary had when it was last asked, which is done every 50 ms. A read waits up to 250 ms for the
//! replica, and then goes to the primary.
//!
//! * `choice`: which replica a read goes to
//! * `keeper`: opens the replicas, compares them with the primary, and leaves out those that can't be used

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{
    error::Result,
    model::{
        Anchor, Blocks, ChainState, Event, FoundBlock, IndexEntry, Job, Note, OpenOptions, Run, StagedBranch,
        StoreStats,
    },
    replica_stats::ReplicaStats,
    traits::{BlockStore, ChainWriter, Lease, LookupStore, SyncStore},
};
use crate::chain::{ChainEnd, CumulativeDifficulty, EpochNumbering, Level, MinerBlock};

mod choice;
mod keeper;

use choice::Replicas;

/// Longest duration of a read from a replica; then the primary is asked. Likewise the other way round, for what the
/// primary is asked first.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// A store whose reads go to replicas.
pub struct ReplicatedStore {
    replicas: Arc<Replicas>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl ReplicatedStore {
    /// The store `primary`, with reads from the replicas at `urls`, which need not be up: they are opened in the
    /// background. `options` are those of the primary.
    pub fn new(primary: Arc<dyn BlockStore>, urls: &[String], options: &OpenOptions) -> Self {
        let options = OpenOptions {
            migrate: false,
            write: false,
            server_wait: Duration::ZERO,
            read_timeout: READ_TIMEOUT.min(options.read_timeout),
            ..options.clone()
        };
        let replicas = Arc::new(Replicas::new(primary, urls));
        let keep = |place| tokio::spawn(keeper::keep(replicas.clone(), place, options.clone()));
        let look = tokio::spawn(keeper::look_at_primary(replicas.clone()));
        let tasks = (0..urls.len()).map(keep).chain([look]).map(AbortOnDropHandle::new).collect();
        Self { replicas, tasks }
    }

    fn primary(&self) -> &Arc<dyn BlockStore> {
        &self.replicas.primary
    }
}

/// Reads from the replica of choice, else from the primary. `$version` is the version of the chain that was read, where
/// the answer names it.
macro_rules! read {
    ($store:ident . $method:ident ( $($value:expr),* ) $(, $version:expr)?) => {{
        let replicas = &$store.replicas;
        if let Some((replica, store)) = replicas.choose().await {
            match store.$method($($value),*).await {
                Ok(found) => {
                    replica.answered();
                    $(replicas.served(Some(replica), $version(&found));)?
                    return Ok(found);
                }
                Err(error) => replica.failed(&error),
            }
        }
        replicas.primary_answers();
        let found = replicas.primary.$method($($value),*).await?;
        $(replicas.served(None, $version(&found));)?
        Ok(found)
    }};
}

#[async_trait]
impl BlockStore for ReplicatedStore {
    async fn state(&self) -> Result<ChainState> {
        read!(self.state(), |state: &ChainState| state.version)
    }

    async fn get(&self, hash: &str) -> Result<Option<FoundBlock>> {
        read!(self.get(hash), |found: &Option<FoundBlock>| found.as_ref().map_or(0, |found| found.snapshot.version))
    }

    async fn epoch(&self, epoch: u64, limit: u64) -> Result<Blocks> {
        read!(self.epoch(epoch, limit), |blocks: &Blocks| blocks.snapshot.version)
    }

    async fn range(&self, from: u64, to: u64) -> Result<Blocks> {
        read!(self.range(from, to), |blocks: &Blocks| blocks.snapshot.version)
    }

    async fn at_index(&self, index: u64) -> Result<(Vec<IndexEntry>, u64, Option<IndexEntry>)> {
        read!(self.at_index(index))
    }

    async fn documents(&self, hashes: &[String], length: u64) -> Result<Option<HashMap<String, String>>> {
        read!(self.documents(hashes, length))
    }

    async fn canonical_hashes(&self, indexes: &[u64]) -> Result<HashMap<u64, String>> {
        read!(self.canonical_hashes(indexes))
    }

    async fn highest_canonical(&self, hashes: &[String]) -> Result<Option<u64>> {
        read!(self.highest_canonical(hashes))
    }

    async fn anchor(&self, hash: &str) -> Result<(Anchor, u64)> {
        read!(self.anchor(hash), |(_, version): &(Anchor, u64)| *version)
    }

    async fn block_at(&self, index: u64) -> Result<Option<(MinerBlock, Level)>> {
        read!(self.block_at(index))
    }

    async fn chain_end(&self, index: u64, numbering: EpochNumbering) -> Result<Option<ChainEnd>> {
        read!(self.chain_end(index, numbering))
    }

    async fn work_at(&self, index: u64) -> Result<Option<CumulativeDifficulty>> {
        read!(self.work_at(index))
    }

    async fn count_below(&self, level: Level, from: u64, to: u64) -> Result<u64> {
        read!(self.count_below(level, from, to))
    }

    async fn write(&self) -> Result<Box<dyn ChainWriter>> {
        self.primary().write().await
    }

    async fn size(&self) -> Result<u64> {
        read!(self.size())
    }

    async fn is_standby(&self) -> Result<bool> {
        self.primary().is_standby().await
    }

    async fn require(&self, version: u64) -> Result<()> {
        self.replicas.require(version).await
    }

    async fn require_block(&self, hash: &str) -> Result<()> {
        self.replicas.require_block(hash).await
    }

    fn stats(&self) -> StoreStats {
        self.primary().stats()
    }

    fn replica_stats(&self) -> Option<ReplicaStats> {
        Some(self.replicas.stats())
    }

    async fn close(&self) {
        self.tasks.iter().for_each(|task| task.abort());
        self.replicas.close().await;
    }
}

#[async_trait]
impl LookupStore for ReplicatedStore {
    async fn by_nominee(&self, nominee: &str, before: u64, limit: u64) -> Result<Run> {
        read!(self.by_nominee(nominee, before, limit), |run: &Run| run.snapshot.version)
    }

    async fn nominations(&self, nominee: &str) -> Result<u64> {
        read!(self.nominations(nominee))
    }

    async fn orphans(&self, from: u64, after: &str, limit: u64) -> Result<Run> {
        read!(self.orphans(from, after, limit), |run: &Run| run.snapshot.version)
    }

    async fn with_prefix(&self, prefix: &str, limit: u64) -> Result<Vec<IndexEntry>> {
        read!(self.with_prefix(prefix, limit))
    }

    async fn reorganisations(&self, before: u64, limit: u64) -> Result<Vec<Event>> {
        read!(self.reorganisations(before, limit), |events: &Vec<Event>| last_event(events))
    }
}

/// What is written outside the chain's versions is read from the primary, where it is a client's own: a job that was
/// just requested must be found.
#[async_trait]
impl SyncStore for ReplicatedStore {
    async fn staged(&self) -> Result<Option<StagedBranch>> {
        self.primary().staged().await
    }

    async fn staged_end(&self, numbering: EpochNumbering) -> Result<Option<ChainEnd>> {
        self.primary().staged_end(numbering).await
    }

    async fn events(&self, after: u64, limit: u64) -> Result<Vec<Event>> {
        read!(self.events(after, limit), |events: &Vec<Event>| last_event(events))
    }

    async fn event_at(&self, id: u64) -> Result<Option<Event>> {
        read!(self.event_at(id), |event: &Option<Event>| event.as_ref().map_or(0, |event| event.id))
    }

    async fn jobs(&self, limit: u64) -> Result<Vec<Job>> {
        self.primary().jobs(limit).await
    }

    async fn unfinished_jobs(&self) -> Result<Vec<Job>> {
        self.primary().unfinished_jobs().await
    }

    async fn job(&self, id: u64) -> Result<Option<Job>> {
        self.primary().job(id).await
    }

    async fn create_job(&self, spec: &str) -> Result<u64> {
        self.primary().create_job(spec).await
    }

    async fn update_job(&self, id: u64, phase: &str, progress: &str) -> Result<()> {
        self.primary().update_job(id, phase, progress).await
    }

    async fn cancel_job(&self, id: u64) -> Result<bool> {
        self.primary().cancel_job(id).await
    }

    async fn put_note(&self, key: &str, value: &str) -> Result<()> {
        self.primary().put_note(key, value).await
    }

    async fn get_note(&self, key: &str) -> Result<Option<Note>> {
        // Notes make no version: a replica of the current version may have old ones. Their age is by the clock of the
        // server that wrote them.
        match timeout(READ_TIMEOUT, self.primary().get_note(key)).await {
            Ok(Ok(note)) => Ok(note),
            _ => read!(self.get_note(key)),
        }
    }

    async fn now(&self) -> Result<i64> {
        match timeout(READ_TIMEOUT, self.primary().now()).await {
            Ok(Ok(now)) => Ok(now),
            _ => read!(self.now()),
        }
    }

    async fn lease(&self) -> Result<Option<Box<dyn Lease>>> {
        self.primary().lease().await
    }
}

/// The version that the last of these events made; 0 where there is none.
fn last_event(events: &[Event]) -> u64 {
    events.iter().map(|event| event.id).max().unwrap_or_default()
}

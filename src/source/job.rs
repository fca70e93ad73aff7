//! Sync jobs and the sync's status, as the store keeps them. The sync writes them; HTTP and other processes read them.
//! So the model is below both, with the source that reads it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    chain::{Level, words},
    store::{Job, StoreError},
};

mod assumed;
mod notes;
mod stages;

pub use assumed::AssumedBlocks;
pub use notes::{Genesis, GenesisSource, SyncState, SyncStatus};
pub use stages::{Stage, Stages};

/// How blocks are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The peer's whole canonical chain in one answer, if it fits 10 MiB.
    Full,
    /// Ranges of blocks, one after the other, from one peer.
    Incremental,
    /// Epoch by epoch, from one peer.
    Epoch,
    /// Headers first: they are linked and their work is summed up before any block is fetched.
    Headers,
    /// Only what is missing after the common ancestor, from several peers at once.
    #[default]
    Delta,
}

words!(Mode { Full = "full", Incremental = "incremental", Epoch = "epoch", Headers = "headers", Delta = "delta" });

/// A job's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// How blocks are fetched. Default: `delta`.
    #[serde(default)]
    #[schema(required)]
    pub mode: Mode,
    /// Peer id or alias of the only peer to sync from; null: the best one.
    #[serde(default)]
    #[schema(required)]
    pub peer: Option<String>,
    /// How far blocks are verified: `pow`, `linked` or `none`; null: as configured.
    #[serde(default)]
    #[schema(value_type = Option<String>, required)]
    pub verify: Option<Level>,
}

/// The phase of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Waiting in the queue.
    #[default]
    Queued,
    /// Peers are asked for their tips, and one of them for the common ancestor.
    Planning,
    /// Headers are fetched and linked, and their work is summed up.
    Headers,
    /// Blocks are fetched, verified and written.
    Blocks,
    /// Finished: no useful peer has a better chain.
    Done,
    /// Finished with an error.
    Failed,
    /// Cancelled on request.
    Cancelled,
}

words!(Phase {
    Queued = "queued",
    Planning = "planning",
    Headers = "headers",
    Blocks = "blocks",
    Done = "done",
    Failed = "failed",
    Cancelled = "cancelled",
});

impl Phase {
    /// Whether the job has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// The progress of a job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Progress {
    /// The current phase.
    #[schema(required)]
    pub phase: Phase,
    /// First index that is fetched; null before it is known.
    #[schema(required)]
    pub from_index: Option<u64>,
    /// Last index that is fetched.
    #[schema(required)]
    pub to_index: Option<u64>,
    /// Index of the last block that both chains share; null for a sync from genesis.
    #[schema(required)]
    pub common_ancestor_index: Option<u64>,
    /// Whether the blocks are a staged branch: they become the chain once their work wins.
    #[schema(required)]
    pub aside: bool,
    /// Headers verified.
    #[schema(required)]
    pub headers: u64,
    /// Blocks verified and written, staged ones included.
    #[schema(required)]
    pub blocks: u64,
    /// Blocks written per second, over the last 10 s.
    #[schema(required)]
    pub blocks_per_second: f64,
    /// Estimated seconds until [`to_index`](Self::to_index); null without a rate.
    #[schema(required)]
    pub eta_seconds: Option<u64>,
    /// Bytes of the answers as received, before decompression.
    #[schema(required)]
    pub bytes: u64,
    /// Members of blocks whose value was computed again because the one received differs from it; no peer is penalised
    /// for that.
    #[schema(required)]
    pub recomputed: u64,
    /// Blocks of these that are verified to `linked` at first, because they come before the network's assume-valid
    /// block.
    #[schema(required)]
    pub assumed: u64,
    /// Plans that were made again after a failure.
    #[schema(required)]
    pub retries: u64,
    /// How far blocks are verified: `pow`, `linked` or `none`.
    #[schema(value_type = Option<String>, required)]
    pub verification: Option<Level>,
    /// The latest failure; a later success does not clear it.
    #[schema(required)]
    pub last_error: Option<String>,
    /// The contribution of each peer.
    #[schema(required)]
    pub peers: Vec<PeerCounts>,
}

/// What a peer contributed to a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PeerCounts {
    /// The peer's id.
    pub peer_id: String,
    /// Requests sent.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Blocks received.
    pub blocks: u64,
    /// Bytes of the answers as received, before decompression.
    pub bytes: u64,
    /// The peer's penalties, a word each: see `/peers`.
    pub penalties: Vec<String>,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SyncJob {
    /// The job's number.
    pub id: u64,
    /// The settings.
    pub spec: JobSpec,
    /// Whether a cancellation was requested.
    pub cancel_requested: bool,
    /// Creation time, unix seconds.
    pub created_at: i64,
    /// Time of the latest progress, unix seconds.
    pub updated_at: i64,
    /// The progress.
    pub progress: Progress,
}

impl TryFrom<Job> for SyncJob {
    type Error = StoreError;
    fn try_from(job: Job) -> Result<Self, StoreError> {
        let damaged = |error| StoreError::Damaged(format!("sync job {}: {error}", job.id));
        let spec = serde_json::from_str(&job.spec).map_err(damaged)?;
        let mut progress: Progress = serde_json::from_str(&job.progress).map_err(damaged)?;
        // A job that is cancelled in the queue writes no progress.
        if job.finished && !progress.phase.is_final() {
            progress.phase = Phase::Cancelled;
        }
        let Job { id, cancel_requested, created_at, updated_at, .. } = job;
        Ok(Self { id, spec, cancel_requested, created_at, updated_at, progress })
    }
}

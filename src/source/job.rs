//! The sync as others see it: jobs and the state of the whole. The sync writes them to the store, the HTTP door and other
//! processes read them there. So the model is below both, with the source that reads it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    chain::Level,
    store::{Job, StoreError},
};

mod notes;
mod stages;

pub use notes::{Genesis, GenesisSource, SyncState, SyncStatus};
pub use stages::{Stage, Stages};

/// How blocks are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The peer's whole canonical chain in one answer, as long as that fits 10 MiB.
    Full,
    /// Ranges of blocks, one after the other, from one peer.
    Incremental,
    /// Epoch by epoch, from one peer.
    Epoch,
    /// Headers first: they are linked and weighed before any body is fetched.
    Headers,
    /// Only what is missing behind the common ancestor, from several peers at once.
    #[default]
    Delta,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 5] = [Self::Full, Self::Incremental, Self::Epoch, Self::Headers, Self::Delta];

    /// The name: one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Epoch => "epoch",
            Self::Headers => "headers",
            Self::Delta => "delta",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = &'static str;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut modes = Self::ALL.into_iter();
        modes.find(|mode| mode.as_str() == name).ok_or("expected full, incremental, epoch, headers or delta")
    }
}

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// How blocks are fetched. Default: `delta`.
    #[serde(default)]
    #[schema(required)]
    pub mode: Mode,
    /// Peer id or alias of the only peer to sync from; null: whichever is best.
    #[serde(default)]
    #[schema(required)]
    pub peer: Option<String>,
    /// How far blocks are verified: `pow`, `linked` or `none`; null: as configured.
    #[serde(default)]
    #[schema(value_type = Option<String>, required)]
    pub verify: Option<Level>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It waits for its turn.
    #[default]
    Queued,
    /// Peers are asked for their tips, and one of them for the common ancestor.
    Planning,
    /// Headers are fetched, linked and weighed.
    Headers,
    /// Blocks are fetched, verified and written.
    Blocks,
    /// Finished: no useful peer has a better chain.
    Done,
    /// Finished without that.
    Failed,
    /// Finished because somebody wished so.
    Cancelled,
}

impl Phase {
    /// The name: one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Planning => "planning",
            Self::Headers => "headers",
            Self::Blocks => "blocks",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What a job has done so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Progress {
    /// How far it is.
    #[schema(required)]
    pub phase: Phase,
    /// First index that is fetched; null before that is known.
    #[schema(required)]
    pub from_index: Option<u64>,
    /// Last index that is fetched.
    #[schema(required)]
    pub to_index: Option<u64>,
    /// Index of the last block that both chains share; null for a sync from genesis on.
    #[schema(required)]
    pub common_ancestor_index: Option<u64>,
    /// Whether the blocks are kept aside until their work wins.
    #[schema(required)]
    pub aside: bool,
    /// Headers verified.
    #[schema(required)]
    pub headers: u64,
    /// Blocks verified and written, those kept aside included.
    #[schema(required)]
    pub blocks: u64,
    /// Blocks written a second, of late.
    #[schema(required)]
    pub blocks_per_second: f64,
    /// Seconds until [`to_index`](Self::to_index) at that rate; null before there is one.
    #[schema(required)]
    pub eta_seconds: Option<u64>,
    /// Bytes of the answers as they travelled.
    #[schema(required)]
    pub bytes: u64,
    /// Members of blocks that were sent with another value than the one that follows from the rest: computed anew, and held
    /// against nobody.
    #[schema(required)]
    pub recomputed: u64,
    /// Times that it planned anew after a failure.
    #[schema(required)]
    pub retries: u64,
    /// How far blocks are verified: `pow`, `linked` or `none`.
    #[schema(value_type = Option<String>, required)]
    pub verification: Option<Level>,
    /// The latest failure; a later success leaves it.
    #[schema(required)]
    pub last_error: Option<String>,
    /// What each peer gave.
    #[schema(required)]
    pub peers: Vec<PeerCounts>,
}

/// What a peer contributed to a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PeerCounts {
    /// Its id.
    pub peer_id: String,
    /// Requests sent to it.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Blocks it gave.
    pub blocks: u64,
    /// Bytes of its answers as they travelled.
    pub bytes: u64,
    /// What is held against it, a word each: see `/peers`.
    pub penalties: Vec<String>,
}

/// A job as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SyncJob {
    /// Its number.
    pub id: u64,
    /// What it is to do.
    pub spec: JobSpec,
    /// Whether it shall be cancelled.
    pub cancel_requested: bool,
    /// When it was created, unix seconds.
    pub created_at: i64,
    /// When it last told of its progress, unix seconds.
    pub updated_at: i64,
    /// What it has done.
    pub progress: Progress,
}

impl TryFrom<Job> for SyncJob {
    type Error = StoreError;
    fn try_from(job: Job) -> Result<Self, StoreError> {
        let damaged = |error| StoreError::Damaged(format!("sync job {}: {error}", job.id));
        let spec = serde_json::from_str(&job.spec).map_err(damaged)?;
        let mut progress: Progress = serde_json::from_str(&job.progress).map_err(damaged)?;
        // A job that is cancelled before its turn never tells of its progress.
        if job.finished && !progress.phase.is_final() {
            progress.phase = Phase::Cancelled;
        }
        let Job { id, cancel_requested, created_at, updated_at, .. } = job;
        Ok(Self { id, spec, cancel_requested, created_at, updated_at, progress })
    }
}

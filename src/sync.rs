//! The sync: keeps the store in sync with the network. No peer's claim is trusted.
//!
//! A job makes a plan (which peer's chain, from which common ancestor) and carries it out in three stages, joined by
//! bounded channels: download → verify → commit. Blocks that extend the chain in the store are appended. A branch is
//! staged until its verified work wins, and then adopted in one transaction. After a failure the job makes a new plan
//! from what is in the store.
//!
//! * `service`: the service of the one process that syncs a store; `service::state`: its state, settings and status;
//!   `service::job`: runs a job and writes its progress; `service::gossip`: handles blocks from gossip
//! * `job::run`: the loop of a job; `job::context`: its settings, findings and failures
//! * `job::claims`: polls the peers' tips; `job::plan`: finds the common ancestor and the blocks to fetch
//! * `job::pipeline`, `job::download`, `job::verify`, `job::commit`: the stages
//! * `peers::remote`: one peer's side of the protocol; `peers::chain`, `peers::block_set`: one chain out of the blocks
//!   that a peer serves
//! * `peers::sources`: chooses a peer for each request; `peers::memory`: what is kept about peers from one job to the
//!   next
//! * `local_chain`: the weight and the checkpoints of the chain in the store
//! * `failure`: faults of peers, and failures of a plan; `progress`: the counts of a job
//! * [`mining`]: blocks of this node's own

mod failure;
mod local_chain;
pub mod mining;
mod progress;
mod service;

/// One job, from the tip poll to the last block.
mod job {
    pub mod claims;
    pub mod commit;
    pub mod context;
    pub mod download;
    pub mod pipeline;
    pub mod plan;
    pub mod run;
    pub mod verify;
}

/// The peers, as the sync asks and remembers them.
mod peers {
    pub mod block_set;
    pub mod chain;
    pub mod memory;
    pub mod remote;
    pub mod sources;
}

pub use failure::RunError;
pub use mining::{Mining, MiningError};
pub use service::{Service, Settings, SyncError};

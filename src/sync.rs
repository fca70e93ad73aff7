//! The sync: keeps the store level with the network, trusting nobody.
//!
//! A job is planned (whose chain, from which common ancestor), and carried out by three stages joined by bounded
//! channels: download → verify → commit. What extends our chain is appended; a branch is kept aside until its verified
//! work wins, and then adopted in one transaction. After a setback the job plans anew from what is in the store.
//!
//! * [`service`]: one process at a time syncs a store: jobs, gossip, the regular check of the peers
//! * `job`: a job's row in the store, and whoever waits for it
//! * `run`: what a job does: chooses whom to follow; `judge`: what follows from a setback
//! * `claims`, `turn`: what the peers claim, and whom of them it asks; `distrust`: who is left alone for a while
//! * `plan`: what to fetch; `setback`: what comes between a plan and its end
//! * `sources`: whom to ask for blocks
//! * `download`, `pipeline`: fetching in windows from several peers; verifying and committing them in order
//! * `branch`: where a branch that comes really leaves our chain
//! * `remote`: one peer's side of the protocol; `links`: one chain out of what it keeps; `fault`: what may be wrong with it
//! * `known`: what is remembered of chains from one job to the next
//! * `checkpoint`: checkpoints that the chain in the store breaks
//! * `tracker`: what a job has done so far
//! * [`mining`]: blocks of our own

mod failure;
mod local_chain;
pub mod mining;
mod progress;
mod service;

/// One job, from its first question to the last block.
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

/// The peers as the sync asks them, and what it remembers of them.
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

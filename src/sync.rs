//! The sync: keeps the store level with the network, trusting nobody.
//!
//! A job is planned (whose chain, from which common ancestor), and carried out by three stages joined by bounded
//! channels: download → verify → commit. What extends our chain is appended; a branch is kept aside until its verified
//! work wins, and then adopted in one transaction. After a setback the job plans anew from what is in the store.
//!
//! * [`service`]: one process at a time syncs a store: jobs, gossip, the regular check of the peers
//! * `job`: a job's row in the store, and whoever waits for it
//! * `run`: what a job does: chooses whom to follow; `claims`: what the peers claim; `turn`: whom it asks;
//!   `judge`: what follows from a setback
//! * `plan`: what to fetch; `setback`: what comes between a plan and its end
//! * `sources`: whom to ask for blocks
//! * `download`, `pipeline`: fetching in windows from several peers; verifying and committing them in order
//! * `remote`: one peer's side of the protocol; `links`: one chain out of what it keeps; `fault`: what may be wrong with it
//! * `known`: what is remembered of chains from one job to the next
//! * `checkpoint`: checkpoints that the chain in the store breaks
//! * `tracker`: what a job has done so far
//! * [`mining`]: blocks of our own

mod checkpoint;
mod claims;
mod download;
mod fault;
mod gossip;
mod job;
mod judge;
mod known;
mod links;
pub mod mining;
mod pipeline;
mod plan;
mod remote;
mod run;
pub mod service;
mod setback;
mod sources;
mod tracker;
mod turn;

pub use mining::{Mining, MiningError};
pub use service::{Service, Settings, SyncError};
pub use setback::RunError;

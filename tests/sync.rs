//! The sync against scripted peers over real libp2p, on both stores. Blocks are mined with SHA-256, so that every rule
//! is on, proof of work included.

mod support;

#[path = "sync/assumed.rs"]
mod assumed;
#[path = "sync/checkpoints.rs"]
mod checkpoints;
#[path = "sync/claims.rs"]
mod claims;
#[path = "sync/following.rs"]
mod following;
#[path = "sync/forgiving.rs"]
mod forgiving;
#[path = "sync/forks.rs"]
mod forks;
#[path = "sync/genesis.rs"]
mod genesis;
#[path = "sync/jobs.rs"]
mod jobs;
#[path = "sync/liars.rs"]
mod liars;
#[path = "sync/node.rs"]
mod node;
#[path = "sync/relaying.rs"]
mod relaying;
#[path = "sync/serving.rs"]
mod serving;
#[path = "sync/slow.rs"]
mod slow;
#[path = "sync/strategies.rs"]
mod strategies;

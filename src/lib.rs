//! modal-gateway: the Modality network's miner blocks over HTTP and libp2p.
//!
//! A request is answered in one place: `GET /data/miner_block/epoch?epoch=0` and the libp2p request of the same path
//! become the same typed query, go to the same source and come back in the same envelope.
//!
//! Imports run one way, from a module to those on its left, which `tests/imports.rs` checks:
//! `{ telemetry, limits } ← chain ← protocol ← { store, p2p } ← source ← { sync, http } ← config ← app ← cli`.
//!
//! * [`chain`]: the domain: blocks, difficulty, proof of work, the rules. No I/O
//! * [`protocol`]: queries, answers, envelope, error texts and codes, limits; the codec
//! * [`store`]: the trait `BlockStore` over Postgres and SQLite
//! * [`p2p`]: the swarm, its sole owner, and a cloneable client
//! * [`source`]: answers any query from the store or from peers, the same for HTTP and libp2p
//! * [`sync`]: keeps the store in sync with the network: jobs, gossip, mining
//! * [`http`]: routes that mirror the protocol, OpenAPI, status, metrics; limits of clients and connections
//! * [`config`]: defaults < file < environment < flags
//! * [`limits`]: rate limits of HTTP clients and peers
//! * [`telemetry`]: logs, messages of commands, figures of the process
//! * [`app`]: starts the parts in order, and stops them in reverse
//! * [`cli`]: the commands
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod app;
pub mod chain;
pub mod cli;
pub mod config;
pub mod http;
pub mod limits;
pub mod p2p;
pub mod protocol;
pub mod source;
pub mod store;
pub mod sync;
pub mod telemetry;

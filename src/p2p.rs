//! The libp2p node: our identity, our peers, requests to them and theirs to us, and gossip.
//!
//! One task owns the swarm ([`node`]); everybody else holds a [`P2pClient`]. Requests and answers travel as encoded
//! JSON documents; this module never looks inside, nor into gossip.
//!
//! Whom we dial: the configured peers, what the operator's commands name, and peers that the network tells of until there
//! are enough. A request never makes us dial an address that came from the network.
//!
//! What this node asks of others is bounded as well: few requests are in flight to a node of the network, the rest wait
//! for their turn, and no connection is closed while an answer is on its way to it.
//!
//! What others may do is bounded in five places: every connection and dial passes [`admission`], which asks the peer book
//! ([`peers`]) for trust and scores; every request of others is counted there until its answer is out; the codec bounds
//! what arrives, and [`transport`] what nobody has read yet, at either end, and how long a peer may be silent.

mod address;
mod admission;
mod behaviour;
mod config;
mod error;
mod identity;
mod node;
mod peers;
mod rate;
mod shared;
mod transport;

pub use address::{AddressError, PeerAddress};
pub use admission::inbound::BLOCK_BYTES;
pub use behaviour::gossip::{Gossip, MAX_GOSSIP_BYTES, Verdict};
pub use config::{P2pConfig, Trust, TrustList};
pub use error::P2pError;
pub use identity::{IdentityError, load_or_create};
pub use node::client::P2pClient;
pub use node::start;
pub use node::worker::Responder;
pub use peers::claims::{PeerChain, Standing};
pub use peers::info::PeerInfo;
pub use peers::record::Reputation;
pub use peers::score::Offence;
pub use shared::{DoorStats, GossipStats, InboundStats};

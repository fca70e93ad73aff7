//! libp2p node: identity, peers, requests in both directions, and gossip.
//!
//! One task owns the swarm ([`node`]); other parts hold a [`P2pClient`]. Requests, answers and gossip are opaque bytes
//! here.
//!
//! The node dials configured peers, addresses in the operator's commands, and discovered peers until there are enough.
//! A request never causes a dial to a discovered address.
//!
//! Outbound requests are bounded: few are in flight to a node of the network, the rest are queued, and no connection is
//! closed while an answer is awaited on it.
//!
//! Limits on what peers can do:
//!
//! | limit | enforced by |
//! | --- | --- |
//! | connections, dials, inbound requests | [`admission`], with trust and scores of the peer book ([`peers`]) |
//! | memory of arriving documents | [`codec`](crate::protocol::codec) |
//! | unread and unsent bytes, silence | [`transport`] |

mod address;
mod admission;
mod behaviour;
mod config;
mod error;
mod identity;
mod node;
mod peers;
mod shared;
mod transport;

pub use address::{AddressError, PeerAddress};
pub use admission::inbound::BLOCK_BYTES;
pub use behaviour::gossip::{Gossip, MAX_GOSSIP_BYTES};
pub use config::{P2pConfig, Trust, TrustList};
pub use error::P2pError;
pub use identity::{IdentityError, load_or_create};
/// Result of validating a [`Gossip`] message: only an accepted one is forwarded.
pub use libp2p::gossipsub::MessageAcceptance as Verdict;
pub use node::client::P2pClient;
pub use node::start;
pub use node::worker::{Accepted, MAX_INLINE_BYTES, Responder};
pub use peers::claims::{PeerChain, Standing};
pub use peers::info::PeerInfo;
pub use peers::record::Reputation;
pub use peers::score::Offence;
pub use shared::{EndpointStats, GossipStats, InboundStats};

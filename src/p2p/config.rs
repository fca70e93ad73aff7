//! Settings of a node.

use std::time::Duration;

use libp2p::{Multiaddr, identity::Keypair};

use super::PeerAddress;

/// Settings of a node.
#[derive(Clone)]
pub struct P2pConfig {
    /// Our identity.
    pub keypair: Keypair,
    /// Addresses to listen on; default none. Port 0 takes a free port.
    pub listen: Vec<Multiaddr>,
    /// Peers to stay connected with; default none.
    pub peers: Vec<PeerAddress>,
    /// What we call ourselves in identify; default `modal-gateway/<version>`.
    pub agent: String,
    /// Longest life of any request, ours and others'; default 60 s, as the network's nodes have it.
    pub request_timeout: Duration,
    /// Requests of others answered at once, over all peers; what exceeds it gets no answer. Default 256.
    pub max_inbound: usize,
    /// Requests of ours in flight to one peer; what exceeds it is [`P2pError::Busy`]. Default 64.
    pub max_outbound_per_peer: usize,
    /// Requests that wait for the swarm's task; what exceeds it is [`P2pError::Busy`]. Default 1024.
    pub command_queue: usize,
    /// Delay before a lost configured peer is dialled again; doubles with each failure. Default 1 s.
    pub redial_min: Duration,
    /// Longest delay between two dials of a configured peer. Default 60 s.
    pub redial_max: Duration,
    /// Whether to take part in the gossip about new blocks; default true.
    pub gossip: bool,
    /// Whether to look for nodes on the local network (multicast DNS), and be found; default false.
    pub mdns: bool,
    /// Connections that we care to have, configured peers included: as long as there are fewer, peers that the network
    /// tells of (Kademlia, mDNS) are dialled and kept. Default 8; 0 dials none of them.
    pub target_peers: usize,
    /// How often to see whether peers are missing, and Kademlia or mDNS know others. Default 10 s.
    pub discovery_interval: Duration,
    /// Whether addresses that the network tells of may be private ones (loopback, RFC 1918, link-local and the like).
    /// Configured peers may be anywhere, and Kademlia's own queries dial what other nodes answer. Default true.
    pub private_addresses: bool,
}

impl P2pConfig {
    /// The defaults, for this identity: listens nowhere and knows nobody.
    pub fn new(keypair: Keypair) -> Self {
        Self {
            keypair,
            listen: Vec::new(),
            peers: Vec::new(),
            agent: concat!("modal-gateway/", env!("CARGO_PKG_VERSION")).into(),
            request_timeout: Duration::from_secs(60),
            max_inbound: 256,
            max_outbound_per_peer: 64,
            command_queue: 1024,
            redial_min: Duration::from_secs(1),
            redial_max: Duration::from_secs(60),
            gossip: true,
            mdns: false,
            target_peers: 8,
            discovery_interval: Duration::from_secs(10),
            private_addresses: true,
        }
    }
}

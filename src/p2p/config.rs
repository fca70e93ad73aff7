//! Settings of a node.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId, identity::Keypair};

use super::address::PeerAddress;

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
    /// Requests of others that are held at once, over all peers, from their arrival until the answer is sent, or made for
    /// nobody; strangers leave a quarter of the places, and those of one subnet half of the others. What exceeds it waits for
    /// [`delay_limit`](Self::delay_limit), and is answered `busy` then. Default 256.
    pub max_inbound: usize,
    /// Those of one peer. Default 64.
    pub max_inbound_per_peer: usize,
    /// How long a request of others waits where there is no room for it or its answer, or its asker has used its rate,
    /// before it is refused; 0 refuses it at once. As many wait as may be held, half as many of one peer. Default 8 s: the
    /// nodes of the first release wait 10 s.
    pub delay_limit: Duration,
    /// Requests of ours in flight to one peer that speaks this program's own dialect, of which those that are forwarded
    /// leave a quarter; what exceeds it is [`P2pError::Busy`](super::P2pError::Busy). Default 64.
    pub max_outbound_per_peer: usize,
    /// Requests of ours in flight to a peer that does not speak this program's own dialect, forwarded ones and those
    /// included that were given up; the others wait here for their turn. At least 1. Default 2: a node of the network works
    /// at one request at a time.
    pub node_requests: usize,
    /// How long a request to such a peer counts as in flight after it was sent, if nobody waits for its answer any more.
    /// Default 60 s: as long as the network's nodes may take.
    pub hold_given_up: Duration,
    /// How long a connection that is to be closed waits for the answers to what is in flight; the node's end as well.
    /// Default 10 s.
    pub closing_timeout: Duration,
    /// Requests that wait for the swarm's task; what exceeds it is [`P2pError::Busy`]. Default 1024.
    pub command_queue: usize,
    /// Delay before a lost configured peer is dialled again; doubles with each failure. Default 1 s.
    pub redial_min: Duration,
    /// Longest delay between two dials of a configured peer. Default 60 s.
    pub redial_max: Duration,
    /// How often the other end of each connection is pinged. One from which nothing came for four times that, or
    /// that took nothing of what waits for it, is given up. Default 15 s. With less than 10 s a peer
    /// that has nothing to say is lost if it does not speak libp2p's ping: Yamux pings no more often than that.
    pub ping_interval: Duration,
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
    /// Configured peers may be anywhere. Loopback is dialled only while all connections are of this machine. Default true.
    pub private_addresses: bool,
    /// Ports of this machine's that the network can't make us dial: those of our own other listeners. Default none.
    pub own_ports: Vec<u16>,
    /// With whom we have to do. Default anybody.
    pub trust: TrustList,
    /// Blocks that a peer whom the operator does not trust is given per second, on average; a request costs one more, a
    /// long one as many as it is long, and ten seconds' worth may be had at once. The peers of a subnet together have four
    /// times that. What exceeds it waits for [`delay_limit`](Self::delay_limit), and is answered `rate_limited` then. 0 is no limit. Default 10,000.
    pub peer_rate_limit: u32,
    /// Memory in bytes for requests of others and their answers until they are sent, at least 10 MiB. Strangers leave a
    /// quarter of it, and their answers over 64 KiB three eighths; of those one stranger may have a quarter, a subnet half,
    /// and who has nothing else one of any length. What exceeds it waits for [`delay_limit`](Self::delay_limit), and is answered
    /// `busy` then. Default 24 MiB.
    pub answer_bytes: usize,
    /// Memory in bytes of this process from which on no more connections are made and strangers are disconnected; 0 is
    /// nine tenths of the machine's, or the container's. Default 0.
    pub memory_limit: usize,
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
            max_inbound_per_peer: 64,
            delay_limit: Duration::from_secs(8),
            max_outbound_per_peer: 64,
            node_requests: 2,
            hold_given_up: Duration::from_secs(60),
            closing_timeout: Duration::from_secs(10),
            command_queue: 1024,
            redial_min: Duration::from_secs(1),
            redial_max: Duration::from_secs(60),
            ping_interval: Duration::from_secs(15),
            gossip: true,
            mdns: false,
            target_peers: 8,
            discovery_interval: Duration::from_secs(10),
            private_addresses: true,
            own_ports: Vec::new(),
            trust: TrustList::default(),
            peer_rate_limit: 10_000,
            answer_bytes: 24 << 20,
            memory_limit: 0,
        }
    }
}

/// How far strangers are trusted. Configured peers and those of the allow-list are never strangers; who is on the
/// deny-list is refused in any mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Anybody may connect, be asked and be synced from; what they say is verified.
    #[default]
    Open,
    /// Strangers may connect and are answered, but never asked, nor is their gossip heard.
    Listed,
    /// Strangers may not even connect.
    Closed,
}

impl FromStr for Trust {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "open" => Ok(Self::Open),
            "listed" => Ok(Self::Listed),
            "closed" => Ok(Self::Closed),
            _ => Err("expected open, listed or closed"),
        }
    }
}

/// Who is trusted by the operator's word, and who is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustList {
    /// How far the others are.
    pub mode: Trust,
    /// Trusted, beside the configured peers.
    pub allow: HashSet<PeerId>,
    /// Refused; wins over everything else.
    pub deny: HashSet<PeerId>,
}

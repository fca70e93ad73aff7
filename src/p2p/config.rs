//! Settings of a node.

use std::collections::HashSet;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId, identity::Keypair};

use super::address::PeerAddress;
use crate::chain::words;

/// Settings of a node.
#[derive(Clone)]
pub struct P2pConfig {
    /// Key pair of this node.
    pub keypair: Keypair,
    /// Addresses to listen on; default none. Port 0 takes a free port.
    pub listen: Vec<Multiaddr>,
    /// Peers to stay connected with; default none.
    pub peers: Vec<PeerAddress>,
    /// Agent string sent in identify; default `modal-gateway/<version>`.
    pub agent: String,
    /// Timeout of any request, outbound or inbound; default 60 s, as in the network's nodes.
    pub request_timeout: Duration,
    /// Inbound requests in flight, over all peers, from arrival until the answer is sent and the work is done. A
    /// quarter is reserved for trusted peers; the untrusted peers of one subnet may have half of the rest. A request
    /// over the limit waits for [`delay_limit`](Self::delay_limit) and is then answered `busy`. Default 256.
    pub max_inbound: usize,
    /// Inbound requests in flight of one peer. Default 64.
    pub max_inbound_per_peer: usize,
    /// Time for which an inbound request over a limit waits before it is refused; 0 refuses at once. At most
    /// [`max_inbound`](Self::max_inbound) requests wait, and half of
    /// [`max_inbound_per_peer`](Self::max_inbound_per_peer) of one peer. Default 8 s: the nodes of the first release
    /// wait 10 s for an answer.
    pub delay_limit: Duration,
    /// Outbound requests in flight to one peer that speaks this program's own dialect; a quarter is reserved for the
    /// node's own requests. A request over the limit fails with [`P2pError::Busy`](super::P2pError::Busy). Default 64.
    pub max_outbound_per_peer: usize,
    /// Outbound requests in flight to one peer that does not speak this program's own dialect, abandoned ones included;
    /// the others are queued. At least 1. Default 2: a node of the network handles one request at a time.
    pub node_requests: usize,
    /// Time after sending for which an abandoned request to such a peer stays in flight. Default 60 s: the timeout of
    /// the network's nodes.
    pub hold_given_up: Duration,
    /// Time for which a connection that is to be closed, or the node on shutdown, waits for answers in flight. Default
    /// 10 s.
    pub closing_timeout: Duration,
    /// Commands queued for the worker; one over the limit fails with [`P2pError::Busy`](super::P2pError::Busy). Default
    /// 1024.
    pub command_queue: usize,
    /// Delay before a lost configured peer is dialled again; doubles with each failure. Default 1 s.
    pub redial_min: Duration,
    /// Longest delay between two dials of a configured peer. Default 60 s.
    pub redial_max: Duration,
    /// Interval of pings on each connection. A connection on which nothing arrived, or no pending byte was taken, for
    /// four intervals is closed. Default 15 s. With less than 10 s an idle peer without libp2p's ping is lost: Yamux
    /// pings at most every 10 s.
    pub ping_interval: Duration,
    /// Whether to take part in the gossip about new blocks; default true.
    pub gossip: bool,
    /// Whether to discover nodes on the local network by multicast DNS, and to be discovered; default false.
    pub mdns: bool,
    /// Outgoing connections to keep, configured peers included: while there are fewer, discovered peers (Kademlia,
    /// mDNS) are dialled and kept. Default 8; 0 dials none of them.
    pub target_peers: usize,
    /// Interval of discovery rounds. Default 10 s.
    pub discovery_interval: Duration,
    /// Whether discovered addresses may be private (loopback, RFC 1918 and the like); configured peers may be anywhere.
    /// Loopback is dialled only while all connections are with this machine. Default true.
    pub private_addresses: bool,
    /// Ports of this machine that are never dialled for discovered peers: those of its other listeners. Default none.
    pub own_ports: Vec<u16>,
    /// Trust in peers. Default: open.
    pub trust: TrustList,
    /// Blocks per second, on average, for one untrusted peer; a subnet has four times that. A request costs one block,
    /// and one for each 700 bytes of request and answer; the burst is ten seconds' worth. A request over the limit
    /// waits for [`delay_limit`](Self::delay_limit) and is then answered `rate_limited`. 0 is no limit. Default 10,000.
    pub peer_rate_limit: u32,
    /// Memory in bytes for inbound requests and their answers until they are sent, at least 10 MiB. A quarter is
    /// reserved for trusted peers, and three eighths can't be taken by untrusted peers' answers over 64 KiB. Of such
    /// answers one peer may have a quarter and one subnet half, but one answer of any length where nothing else is in
    /// flight. A request over the limit waits for [`delay_limit`](Self::delay_limit) and is then answered `busy`.
    /// Default 24 MiB.
    pub answer_bytes: usize,
    /// Resident memory of this process in bytes, above which no connections are made and untrusted peers are
    /// disconnected; 0 is nine tenths of the machine's or container's memory. Default 0.
    pub memory_limit: usize,
}

impl P2pConfig {
    /// Default settings with this key pair: no listeners and no configured peers.
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

/// Policy for untrusted peers. Configured peers and those on the allow-list are trusted; peers on the deny-list are
/// refused in any mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Untrusted peers may connect, are asked and synced from; everything is verified.
    #[default]
    Open,
    /// Untrusted peers may connect and are answered, but are never asked, and their gossip is dropped.
    Listed,
    /// Untrusted peers may not connect.
    Closed,
}

words!(Trust { Open = "open", Listed = "listed", Closed = "closed" });

/// Trust policy, with the operator's allow-list and deny-list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustList {
    /// Policy for peers on neither list.
    pub mode: Trust,
    /// Trusted peers, beside the configured ones.
    pub allow: HashSet<PeerId>,
    /// Refused peers; wins over everything else.
    pub deny: HashSet<PeerId>,
}

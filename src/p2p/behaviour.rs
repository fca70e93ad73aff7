//! libp2p behaviours of the node: sync protocol, gossip, identify, ping, Kademlia, mDNS, and libp2p's memory limit.

use std::time::Duration;

use libp2p::memory_connection_limits as memory_limits;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, identify, kad, mdns, ping};

use super::config::P2pConfig;
use super::error::P2pError;
use crate::protocol::codec::JsonCodec;
use crate::protocol::{COMPRESSED_PROTOCOL, IDENTIFY_PROTOCOL, PROTOCOL};

pub(super) mod gossip;
pub(super) mod keep_alive;
mod when_woken;

use keep_alive::KeepAlive;
use when_woken::WhenWoken;

/// Inbound request streams of one connection: twice the requests that a peer may have in flight, so that requests over
/// that limit are refused with an answer. libp2p's nodes open at most 100.
const MAX_INBOUND_STREAMS: usize = 128;
/// Interval of Kademlia's bootstrap (lookups of the local and of random ids).
const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Idle timeout of connections without streams, except those held by [`KeepAlive`].
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The behaviours of the node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub memory: memory_limits::Behaviour,
    /// Outbound requests. libp2p counts the streams of a behaviour and connection in both directions together and
    /// silently drops streams over the limit: with a behaviour per direction, inbound requests can't displace outbound
    /// ones.
    pub requests: request_response::Behaviour<JsonCodec>,
    /// Inbound requests.
    pub inbound: request_response::Behaviour<JsonCodec>,
    pub keep_alive: KeepAlive,
    pub background: WhenWoken<Background>,
}

/// The behaviours that have no part in a request.
#[derive(NetworkBehaviour)]
pub(super) struct Background {
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub kad: kad::Behaviour<kad::store::MemoryStore>,
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    pub gossip: Toggle<gossip::Behaviour>,
}

impl Behaviour {
    /// `memory_limit`: resident bytes of this process, above which no connections are made.
    pub fn new(config: &P2pConfig, memory_limit: usize) -> Result<Self, P2pError> {
        let local = config.keypair.public().to_peer_id();
        let requests = |codec, support: ProtocolSupport, streams, timeout| {
            // The peers agree on the first one that both support.
            let protocols = [COMPRESSED_PROTOCOL, PROTOCOL].map(|id| (StreamProtocol::new(id), support.clone()));
            let settings = request_response::Config::default().with_request_timeout(timeout);
            let settings = settings.with_max_concurrent_streams(streams);
            request_response::Behaviour::with_codec(codec, protocols, settings)
        };
        // Not shorter than the codec's deadline.
        let outbound_timeout = config.request_timeout.max(config.hold_given_up);
        let identify = identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.into(), config.keypair.public())
                .with_agent_version(config.agent.clone())
                .with_push_listen_addr_updates(true)
                // With a cache, identify would dial any address that a peer claims to listen on.
                .with_cache_size(0),
        );
        let mut kad_config = kad::Config::new(kad::PROTOCOL_NAME);
        kad_config.set_periodic_bootstrap_interval(Some(BOOTSTRAP_INTERVAL));
        // Records of other nodes are filtered: the store stays empty.
        kad_config.set_record_filtering(kad::StoreInserts::FilterBoth);
        let mut kad = kad::Behaviour::with_config(local, kad::store::MemoryStore::new(local), kad_config);
        kad.set_mode(Some(kad::Mode::Server));
        let failed = |error: std::io::Error| P2pError::Setup { part: "mDNS", reason: error.to_string() };
        let mdns = config.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local));
        let gossip = config.gossip.then(|| gossip::behaviour(&config.keypair)).transpose()?;
        let background = Background {
            identify,
            // Only measures latency; the transport's socket detects dead connections.
            ping: ping::Behaviour::new(ping::Config::new().with_interval(config.ping_interval)),
            kad,
            mdns: mdns.transpose().map_err(failed)?.into(),
            gossip: gossip.into(),
        };
        Ok(Self {
            memory: memory_limits::Behaviour::with_max_bytes(memory_limit),
            requests: requests(
                JsonCodec::default(),
                ProtocolSupport::Outbound,
                config.max_outbound_per_peer,
                outbound_timeout,
            ),
            inbound: requests(
                JsonCodec::serving(),
                ProtocolSupport::Inbound,
                MAX_INBOUND_STREAMS,
                config.request_timeout,
            ),
            keep_alive: KeepAlive::default(),
            background: WhenWoken::new(background),
        })
    }
}

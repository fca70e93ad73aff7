//! What our node speaks: the sync protocol, gossip, identify, ping, Kademlia, mDNS; and a limit on memory.

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

use keep_alive::KeepAlive;

/// Streams of requests that one connection may have open with us, those included that are only being read: twice what
/// a peer may have answered at once, so that what exceeds that is told so. Of libp2p's nodes none opens more than 100.
const MAX_INBOUND_STREAMS: usize = 128;
/// Records that others may leave in our Kademlia store; the network's protocol uses none.
const MAX_KAD_RECORDS: usize = 128;
/// How often Kademlia walks through the network.
const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How long a connection without streams is kept, unless its peer is configured.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The behaviours of our node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub memory: memory_limits::Behaviour,
    /// Ours to others. libp2p counts the streams of a behaviour and connection in both directions together and silently
    /// drops what exceeds its limit: so each direction has a behaviour, and theirs can't take the place of ours.
    pub requests: request_response::Behaviour<JsonCodec>,
    /// Theirs to us.
    pub inbound: request_response::Behaviour<JsonCodec>,
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub kad: kad::Behaviour<kad::store::MemoryStore>,
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    pub gossip: Toggle<gossip::Behaviour>,
    pub keep_alive: KeepAlive,
}

impl Behaviour {
    /// `memory_limit` in bytes of this process, from which on no more connections are made.
    pub fn new(config: &P2pConfig, memory_limit: usize) -> Result<Self, P2pError> {
        let local = config.keypair.public().to_peer_id();
        let requests = |codec, support: ProtocolSupport, streams, timeout| {
            // Both sides take the first that both know.
            let protocols = [COMPRESSED_PROTOCOL, PROTOCOL].map(|id| (StreamProtocol::new(id), support.clone()));
            let settings = request_response::Config::default().with_request_timeout(timeout);
            let settings = settings.with_max_concurrent_streams(streams);
            request_response::Behaviour::with_codec(codec, protocols, settings)
        };
        // Not before the codec's own deadline.
        let outbound_timeout = config.request_timeout.max(config.hold_given_up);
        let identify = identify::Behaviour::new(
            identify::Config::new(IDENTIFY_PROTOCOL.into(), config.keypair.public())
                .with_agent_version(config.agent.clone())
                .with_push_listen_addr_updates(true)
                // No cache: it would have us dial whatever addresses a peer claims to listen on.
                .with_cache_size(0),
        );
        let mut kad_config = kad::Config::new(kad::PROTOCOL_NAME);
        kad_config.set_periodic_bootstrap_interval(Some(BOOTSTRAP_INTERVAL));
        // Records of others wait for an approval that never comes: nobody fills our memory with them.
        kad_config.set_record_filtering(kad::StoreInserts::FilterBoth);
        let store = kad::store::MemoryStore::with_config(
            local,
            kad::store::MemoryStoreConfig {
                max_records: MAX_KAD_RECORDS,
                max_provided_keys: MAX_KAD_RECORDS,
                ..Default::default()
            },
        );
        let mut kad = kad::Behaviour::with_config(local, store, kad_config);
        kad.set_mode(Some(kad::Mode::Server));
        let failed = |error: std::io::Error| P2pError::Setup { part: "mDNS", reason: error.to_string() };
        let mdns = config.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local));
        let gossip = config.gossip.then(|| gossip::behaviour(&config.keypair)).transpose()?;
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
            identify,
            // It only measures: `socket` notices who is gone.
            ping: ping::Behaviour::new(ping::Config::new().with_interval(config.ping_interval)),
            kad,
            mdns: mdns.transpose().map_err(failed)?.into(),
            gossip: gossip.into(),
            keep_alive: KeepAlive::default(),
        })
    }
}

//! Public information on peers.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::{Multiaddr, PeerId};
use serde::Serialize;

use super::claims::PeerChain;
use super::record::unix;
use super::score::Offence;
use super::{Peer, PeerBook};

/// Public information on a peer. Ip addresses are not serialized.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PeerInfo {
    /// Id in base58; null for a configured address that was given without an id and has not been reached yet.
    #[schema(required)]
    pub peer_id: Option<String>,
    /// Alias given by the operator.
    #[schema(required)]
    pub alias: Option<String>,
    /// Whether it is configured by the operator rather than discovered.
    pub configured: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// Agent string (identify).
    #[schema(required)]
    pub agent: Option<String>,
    /// Role in the network, from its agent string: `Miner`, `Observer`, `Validator`.
    #[schema(required)]
    pub role: Option<String>,
    /// URL of its status page, from its agent string: http or https.
    #[schema(required)]
    pub status_url: Option<String>,
    /// Supported protocols (identify).
    pub protocols: Vec<String>,
    /// Moving mean of its answer times in milliseconds; without requests, the latest ping time.
    #[schema(required)]
    pub latency_ms: Option<f64>,
    /// Requests sent to it.
    pub requests: u64,
    /// Requests that it did not answer.
    pub failures: u64,
    /// Code of the latest failure; a later success does not clear it.
    #[schema(required)]
    pub last_error: Option<&'static str>,
    /// Sum of its offences' weights; halves every ten minutes.
    pub score: f64,
    /// Whether the operator trusts it: configured, on the allow-list, or dialled by a command.
    pub trusted: bool,
    /// End of its ban, in unix seconds; null without a ban.
    #[schema(required)]
    pub banned_until: Option<u64>,
    /// Whether its score is too high for it to be sent requests, or for its gossip to be accepted.
    pub shunned: bool,
    /// Number of its offences.
    pub penalties: u64,
    /// Name of the latest offence.
    #[schema(required)]
    pub last_penalty: Option<&'static str>,
    /// Verified work of its chain: a decimal number.
    #[schema(required)]
    pub verified_work: Option<String>,
    /// Its claims about its chain; null until the sync has asked it.
    #[schema(required)]
    pub chain: Option<PeerChain>,
    /// Time at which it last connected, identified itself or answered, in unix seconds.
    #[schema(required)]
    pub last_seen: Option<i64>,
    /// Configured addresses, and that of the connection.
    #[serde(skip)]
    #[schema(ignore)]
    pub addresses: Vec<Multiaddr>,
}

impl Peer {
    pub(super) fn info(&self, id: Option<&PeerId>, trusted: bool, now: Instant) -> PeerInfo {
        PeerInfo {
            peer_id: id.map(ToString::to_string),
            alias: self.alias.clone(),
            configured: self.configured,
            connected: self.connections > 0,
            agent: self.agent.clone(),
            role: self.role.clone(),
            status_url: self.status_url.clone(),
            protocols: self.protocols.clone(),
            latency_ms: self.latency_ms.or(self.ping_ms),
            requests: self.requests,
            failures: self.failures,
            last_error: self.last_error,
            score: self.offences.score(now),
            trusted,
            banned_until: self.offences.banned_until(now).filter(|_| !trusted).map(|until| unix(until).unsigned_abs()),
            shunned: self.offences.shunned(now),
            penalties: self.offences.count,
            last_penalty: self.offences.latest.map(Offence::as_str),
            verified_work: self.verified_work.map(|work| work.to_string()),
            chain: self.chain.clone(),
            last_seen: self.last_seen,
            addresses: self.addresses.iter().chain(&self.remote).cloned().collect(),
        }
    }
}

impl PeerBook {
    /// Information on all peers: configured ones first in the operator's order, then by id.
    pub fn infos(&self, now: Instant) -> Vec<PeerInfo> {
        let unreached = self.configured.iter().filter(|peer| peer.peer.is_none()).map(|configured| {
            let peer = Peer {
                alias: configured.alias.clone(),
                configured: true,
                addresses: vec![configured.address.clone()],
                ..Peer::default()
            };
            peer.info(None, true, now)
        });
        let mut infos: Vec<_> = self
            .peers
            .iter()
            .map(|(id, peer)| peer.info(Some(id), self.is_trusted(id), now))
            .chain(unreached)
            .collect();
        let positions: HashMap<_, _> =
            self.configured.iter().enumerate().rev().map(|(position, peer)| (&peer.address, position)).collect();
        let position = |info: &PeerInfo| {
            let known = info.addresses.iter().filter(|_| info.configured).filter_map(|address| positions.get(address));
            known.min().copied().unwrap_or(usize::MAX)
        };
        infos.sort_by_cached_key(|info| (position(info), info.peer_id.clone()));
        infos
    }
}

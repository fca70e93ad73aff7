//! What is told about a peer.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId};
use serde::Serialize;

use super::claims::PeerChain;
use super::record::unix;
use super::score::Offence;
use super::{Configured, Peer, PeerBook};

/// What we tell about a peer. Its ip addresses are not part of the serialized form: strangers may read that.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PeerInfo {
    /// Id in base58; null for a configured address that was given without an id and has not been reached yet.
    #[schema(required)]
    pub peer_id: Option<String>,
    /// The operator's name for it.
    #[schema(required)]
    pub alias: Option<String>,
    /// Whether the operator named it, rather than the network.
    pub configured: bool,
    /// Whether a connection stands now.
    pub connected: bool,
    /// What it calls itself (identify).
    #[schema(required)]
    pub agent: Option<String>,
    /// What it is to the network, as its agent says: `Miner`, `Observer`, `Validator`.
    #[schema(required)]
    pub role: Option<String>,
    /// The address of its status page, as its agent says: http or https.
    #[schema(required)]
    pub status_url: Option<String>,
    /// Protocols that it says it speaks (identify).
    pub protocols: Vec<String>,
    /// Moving mean of the time it took to answer, in milliseconds; of pings while there were no requests.
    #[schema(required)]
    pub latency_ms: Option<f64>,
    /// Requests that we sent it.
    pub requests: u64,
    /// Those of them that got no answer.
    pub failures: u64,
    /// Code of the latest failure ([`P2pError::code`]); a later success leaves it.
    #[schema(required)]
    pub last_error: Option<&'static str>,
    /// Offences of late, by weight; halves every ten minutes. 0 is a clean slate.
    pub score: f64,
    /// Whether the operator trusts it: configured, on the allow-list, or dialled by a command.
    pub trusted: bool,
    /// Until when its connections are refused, in unix seconds; null where they aren't.
    #[schema(required)]
    pub banned_until: Option<u64>,
    /// Whether its offences are too many for it to be asked, or to be listened to, for now.
    pub shunned: bool,
    /// Offences since we know it.
    pub penalties: u64,
    /// Name of the latest offence.
    #[schema(required)]
    pub last_penalty: Option<&'static str>,
    /// Work of its chain as far as it has been verified here: a decimal number.
    #[schema(required)]
    pub verified_work: Option<String>,
    /// What it said of its chain, and how that stands to ours; null where the sync has not asked it.
    #[schema(required)]
    pub chain: Option<PeerChain>,
    /// When it last connected, identified itself or answered, in unix seconds.
    #[schema(required)]
    pub last_seen: Option<i64>,
    /// Its addresses: configured, and of the connection.
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
    /// Every peer, configured ones first in the operator's order, then by id.
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
        let place = |info: &PeerInfo| {
            let configured = |peer: &Configured| info.addresses.contains(&peer.address);
            self.configured.iter().position(configured).filter(|_| info.configured).unwrap_or(usize::MAX)
        };
        infos.sort_by_cached_key(|info| (place(info), info.peer_id.clone()));
        infos
    }
}

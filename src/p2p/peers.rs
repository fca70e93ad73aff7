//! Peer book: known peers, their names, trust, and how they behaved.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use super::address::PeerAddress;
use super::config::TrustList;
use super::error::P2pError;
use crate::chain::{CumulativeDifficulty, unix_now};
use crate::protocol::{COMPRESSED_PROTOCOL, PROTOCOL};

mod admission;
pub(super) mod claims;
pub(super) mod info;
pub(super) mod record;
pub(super) mod score;

use claims::PeerChain;
use score::{DecayingSum, Offence, Offences};

/// Peers remembered, connected ones included; over it, the one unseen for longest is forgotten, but no configured one.
const MAX_PEERS: usize = 1024;
/// Configured peers, of the settings and added at run time.
const MAX_CONFIGURED: usize = 256;
/// Addresses kept of a peer that the operator dialled.
const MAX_ADDRESSES: usize = 8;
/// Longest agent kept, in characters; identify allows some 4000.
const MAX_AGENT_CHARS: usize = 256;
/// Most protocols kept of a peer.
const MAX_PROTOCOLS: usize = 64;
/// Longest ban.
const MAX_BAN: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Time after which a failure counts half.
const FAILURE_HALF_LIFE: Duration = Duration::from_secs(60);

/// Record of a peer.
#[derive(Default)]
struct Peer {
    alias: Option<String>,
    configured: bool,
    connections: u32,
    agent: Option<String>,
    role: Option<String>,
    status_url: Option<String>,
    protocols: Vec<String>,
    /// Whether it speaks the sync protocol, in either dialect.
    speaks: bool,
    /// Whether it speaks this program's own dialect.
    speaks_own_dialect: bool,
    latency_ms: Option<f64>,
    ping_ms: Option<f64>,
    requests: u64,
    failures: u64,
    /// Recent failures: each counts half after [`FAILURE_HALF_LIFE`].
    recent_failures: DecayingSum,
    offences: Offences,
    verified_work: Option<CumulativeDifficulty>,
    /// Its claims about its chain.
    chain: Option<PeerChain>,
    /// Error of the latest dial, if it failed.
    dial_error: Option<P2pError>,
    last_error: Option<&'static str>,
    last_seen: Option<i64>,
    /// Addresses that the operator configured or dialled.
    addresses: Vec<Multiaddr>,
    /// Remote address of the latest connection.
    remote: Option<Multiaddr>,
}

impl Peer {
    /// Sets the time at which the peer was last seen.
    fn touch(&mut self) {
        self.last_seen = Some(unix_now());
    }

    fn add_address(&mut self, address: &Multiaddr) {
        if !self.addresses.contains(address) && self.addresses.len() < MAX_ADDRESSES {
            self.addresses.push(address.clone());
        }
    }
}

/// A configured address, with the id of its peer once known.
struct Configured {
    alias: Option<String>,
    address: Multiaddr,
    peer: Option<PeerId>,
}

/// All known peers. Its lock is never held across an `await`; every call is short.
pub(super) struct PeerBook {
    /// Configured addresses, in the order of the dialer's targets.
    configured: Vec<Configured>,
    peers: HashMap<PeerId, Peer>,
    trust: TrustList,
    /// Number of changes to [`reputations`](Self::reputations).
    version: u64,
}

impl PeerBook {
    pub fn new(configured: &[PeerAddress]) -> Self {
        let mut book = Self { configured: Vec::new(), peers: HashMap::new(), trust: TrustList::default(), version: 0 };
        for peer in configured {
            book.configure(peer);
        }
        book
    }

    /// Sets the trust policy and lists.
    pub fn with_trust(self, trust: TrustList) -> Self {
        Self { trust, ..self }
    }

    fn configure(&mut self, peer: &PeerAddress) {
        let PeerAddress { alias, address } = peer.clone();
        self.configured.push(Configured { alias, address, peer: None });
        if let Some(id) = peer.peer_id() {
            self.assign_id(self.configured.len() - 1, id);
        }
    }

    /// Adds a configured peer at the end of the list. Returns false if it is there already.
    ///
    /// # Errors
    /// [`P2pError::DuplicateAlias`]; [`P2pError::Busy`] when there are 256.
    pub fn add(&mut self, peer: &PeerAddress) -> Result<bool, P2pError> {
        if self.configured.iter().any(|known| known.address == peer.address && known.alias == peer.alias) {
            return Ok(false);
        }
        if let Some(alias) =
            peer.alias.as_ref().filter(|alias| self.configured.iter().any(|p| p.alias.as_ref() == Some(alias)))
        {
            return Err(P2pError::DuplicateAlias(alias.clone()));
        }
        if self.configured.len() >= MAX_CONFIGURED {
            return Err(P2pError::Busy);
        }
        self.configure(peer);
        Ok(true)
    }

    /// Makes the peer with this alias or id an untrusted one. Returns its id, unless it was never reached, and the
    /// removed indexes of the list, last one first; `None` for an unknown peer.
    pub fn remove(&mut self, name: &str) -> Option<(Option<PeerId>, Vec<usize>)> {
        let id = self.find_any(name);
        let matches = |peer: &Configured| match id {
            Some(_) => peer.peer == id,
            None => peer.peer.is_none() && peer.alias.as_deref() == Some(name),
        };
        let removed: Vec<_> =
            (0..self.configured.len()).rev().filter(|index| matches(&self.configured[*index])).collect();
        for index in &removed {
            self.configured.remove(*index);
        }
        if let Some(id) = id {
            self.trust.allow.remove(&id);
            if let Some(peer) = self.peers.get_mut(&id) {
                (peer.configured, peer.alias) = (false, None);
                peer.addresses.clear();
            }
        }
        (id.is_some() || !removed.is_empty()).then_some((id, removed))
    }

    /// Records that the peer at the configured address `index` is `id`.
    pub fn assign_id(&mut self, index: usize, id: PeerId) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let before = configured.peer.replace(id);
        let (alias, address) = (configured.alias.clone(), configured.address.clone());
        if let Some(before) = before.filter(|before| *before != id)
            && let Some(peer) = self.peers.get_mut(&before)
        {
            // Another peer is at this address now; other addresses may still belong to the former one.
            let others = || self.configured.iter().filter(|other| other.peer == Some(before));
            peer.alias = others().find_map(|other| other.alias.clone());
            peer.configured = others().next().is_some();
            peer.addresses.retain(|known| *known != address);
        }
        let peer = self.entry(id);
        peer.configured = true;
        peer.alias = alias.or(peer.alias.take());
        peer.add_address(&address);
    }

    /// Returns the record of a peer, new if needed; forgets another one over [`MAX_PEERS`].
    fn entry(&mut self, id: PeerId) -> &mut Peer {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            let idle = self.peers.iter().filter(|(_, peer)| peer.connections == 0 && !peer.configured);
            // Ids are free to make: a crowd of new ones must displace neither a ban nor an offender, also of an earlier
            // run. Of bans, the one that ends first is forgotten.
            let now = Instant::now();
            let priority = |(_, peer): &(&PeerId, &Peer)| {
                let offended = peer.offences.count > 0;
                (peer.offences.banned_until(now), offended, offended && peer.last_seen.is_none(), peer.last_seen)
            };
            if let Some(oldest) = idle.min_by_key(priority).map(|(id, _)| *id) {
                self.peers.remove(&oldest);
            }
        }
        self.peers.entry(id).or_default()
    }

    /// Finds the peer of an alias or a base58 id.
    ///
    /// # Errors
    /// [`P2pError::UnknownPeer`]; [`P2pError::Unreachable`] for a configured peer that was never reached.
    pub fn find(&self, name: &str) -> Result<PeerId, P2pError> {
        if let Some(configured) = self.configured.iter().find(|peer| peer.alias.as_deref() == Some(name)) {
            let id = configured.peer.ok_or_else(|| P2pError::Unreachable("it has not been reached yet".into()))?;
            return if self.is_denied(&id) { Err(P2pError::UnknownPeer) } else { Ok(id) };
        }
        let id = name.parse().map_err(|_| P2pError::UnknownPeer)?;
        if self.peers.contains_key(&id) && self.may_be_asked(&id) { Ok(id) } else { Err(P2pError::UnknownPeer) }
    }

    /// Finds the peer of an alias or a base58 id, denied ones included: for the operator.
    pub fn find_any(&self, name: &str) -> Option<PeerId> {
        let named = self.configured.iter().find(|peer| peer.alias.as_deref() == Some(name));
        let id = named.map_or_else(|| name.parse().ok(), |configured| configured.peer)?;
        (self.peers.contains_key(&id) || self.trust.allow.contains(&id)).then_some(id)
    }

    /// Addresses to dial a configured peer at; empty for others, `None` for an unknown peer.
    pub fn addresses(&self, id: &PeerId) -> Option<&[Multiaddr]> {
        self.peers.get(id).map(|peer| peer.addresses.as_slice())
    }

    pub fn is_configured(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.configured)
    }

    /// Whether the peer is connected and has identified itself.
    pub fn is_ready(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.connections > 0 && peer.agent.is_some())
    }

    /// Remote address of the peer's latest connection.
    pub fn remote(&self, id: &PeerId) -> Option<&Multiaddr> {
        self.peers.get(id).and_then(|peer| peer.remote.as_ref())
    }

    pub fn connected(&mut self, id: PeerId, connections: u32, remote: Multiaddr) {
        let peer = self.entry(id);
        if peer.connections == 0 {
            // Another program may run there now; it has not identified itself yet.
            peer.speaks_own_dialect = false;
        }
        peer.connections = connections;
        peer.remote = Some(remote);
        peer.dial_error = None;
        peer.touch();
    }

    pub fn disconnected(&mut self, id: &PeerId, remaining: u32) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.connections = remaining;
        }
    }

    /// Records an address that the operator dialled successfully, for later dials.
    pub fn record_dialled(&mut self, id: PeerId, address: &Multiaddr) {
        self.entry(id).add_address(address);
    }

    pub fn record_dial_failure(&mut self, id: &PeerId, reason: String) {
        if let Some(peer) = self.peers.get_mut(id) {
            let error = P2pError::Unreachable(reason);
            peer.last_error = Some(error.code());
            peer.dial_error = Some(error);
        }
    }

    pub fn dial_error(&self, id: &PeerId) -> Option<P2pError> {
        self.peers.get(id)?.dial_error.clone()
    }

    pub fn record_identify(&mut self, id: PeerId, agent: &str, protocols: &[libp2p::StreamProtocol]) {
        let peer = self.entry(id);
        (peer.role, peer.status_url) = (claims::role(agent), claims::status_url(agent));
        peer.agent = Some(agent.chars().take(MAX_AGENT_CHARS).collect());
        peer.speaks = protocols.iter().any(|id| [PROTOCOL, COMPRESSED_PROTOCOL].contains(&id.as_ref()));
        peer.speaks_own_dialect = protocols.iter().any(|id| id.as_ref() == COMPRESSED_PROTOCOL);
        peer.protocols = protocols.iter().take(MAX_PROTOCOLS).map(ToString::to_string).collect();
        peer.touch();
    }

    pub fn record_ping(&mut self, id: &PeerId, time: Duration) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.ping_ms = Some(time.as_secs_f64() * 1e3);
            peer.touch();
        }
    }

    /// Records an offence. Returns whether it bans the peer.
    pub fn penalise(&mut self, id: PeerId, offence: Offence, now: Instant) -> bool {
        self.version += 1;
        self.entry(id).offences.add(offence, now) && !self.is_trusted(&id)
    }

    /// Bans the peer for `time`, a year at most.
    pub fn ban(&mut self, id: PeerId, time: Duration, now: Instant) {
        self.version += 1;
        self.entry(id).offences.ban(now + time.min(MAX_BAN), now);
    }

    pub fn is_shunned(&self, id: &PeerId, now: Instant) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.offences.shunned(now))
    }

    /// Whether the peer is connected, speaks the sync protocol and is eligible.
    pub fn is_useful(&self, id: &PeerId, now: Instant) -> bool {
        self.is_eligible(id, now) && self.peers.get(id).is_some_and(|peer| peer.connections > 0 && peer.speaks)
    }

    pub fn note_work(&mut self, id: PeerId, work: CumulativeDifficulty) {
        self.entry(id).verified_work = Some(work);
    }

    pub fn verified_work(&self, id: &PeerId) -> CumulativeDifficulty {
        self.peers.get(id).and_then(|peer| peer.verified_work).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

//! The peer book: whom we know, under which names, and how they did.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libp2p::{Multiaddr, PeerId};

use super::address::PeerAddress;
use super::config::TrustList;
use super::error::P2pError;
use crate::chain::CumulativeDifficulty;
use crate::protocol::{COMPRESSED_PROTOCOL, PROTOCOL};

mod admission;
pub(super) mod claims;
pub(super) mod info;
pub(super) mod record;
pub(super) mod score;

use claims::PeerChain;
use score::{Fading, Offence, Offences};

/// Peers remembered, connected ones included; the one unseen for longest goes first, configured ones stay.
const MAX_PEERS: usize = 1024;
/// Peers that the operator may name, in the settings and while we run.
const MAX_CONFIGURED: usize = 256;
/// Addresses kept of a peer that the operator dialled.
const MAX_ADDRESSES: usize = 8;
/// Longest agent kept, in characters; identify allows some 4000.
const MAX_AGENT_CHARS: usize = 256;
/// Most protocols kept of a peer.
const MAX_PROTOCOLS: usize = 64;
/// Longest ban.
const MAX_BAN: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// After this time a failure counts half.
const FAILURE_HALF_LIFE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Peer {
    alias: Option<String>,
    configured: bool,
    connections: u32,
    agent: Option<String>,
    role: Option<String>,
    status_url: Option<String>,
    protocols: Vec<String>,
    speaks: bool,
    /// It speaks this program's own dialect as well.
    speaks_own_dialect: bool,
    latency_ms: Option<f64>,
    ping_ms: Option<f64>,
    requests: u64,
    failures: u64,
    /// Failures of late: each counts half after [`FAILURE_HALF_LIFE`].
    recent_failures: Fading,
    offences: Offences,
    verified_work: Option<CumulativeDifficulty>,
    /// What it said of its chain.
    chain: Option<PeerChain>,
    /// The latest dial failed, and why.
    dial_error: Option<String>,
    last_error: Option<&'static str>,
    last_seen: Option<i64>,
    /// Where the operator says it is.
    addresses: Vec<Multiaddr>,
    /// The other end of the latest connection.
    remote: Option<Multiaddr>,
}

impl Peer {
    fn seen(&mut self) {
        self.last_seen = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs() as i64);
    }

    fn add_address(&mut self, address: &Multiaddr) {
        if !self.addresses.contains(address) && self.addresses.len() < MAX_ADDRESSES {
            self.addresses.push(address.clone());
        }
    }
}

/// A configured address, and who is there.
struct Configured {
    alias: Option<String>,
    address: Multiaddr,
    peer: Option<PeerId>,
}

/// The peers that we know. Behind a lock that is never held across an `await`; every call is short.
pub(super) struct PeerBook {
    /// In the order of the dialer's targets.
    configured: Vec<Configured>,
    peers: HashMap<PeerId, Peer>,
    trust: TrustList,
    /// Counts what [`reputations`](Self::reputations) would tell differently.
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

    /// The same, with whom to have to do.
    pub fn trusting(self, trust: TrustList) -> Self {
        Self { trust, ..self }
    }

    fn configure(&mut self, peer: &PeerAddress) {
        let PeerAddress { alias, address } = peer.clone();
        self.configured.push(Configured { alias, address, peer: None });
        if let Some(id) = peer.peer_id() {
            self.learn(self.configured.len() - 1, id);
        }
    }

    /// The operator names one more peer, which goes to the end of the list. False if it is there already.
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

    /// The peer with this alias or id is no longer one of the operator's. Tells who it is, unless it was never reached,
    /// and which places of the list are gone, last one first; `None` for one that we don't know.
    pub fn forget(&mut self, name: &str) -> Option<(Option<PeerId>, Vec<usize>)> {
        let id = self.known(name);
        let meant = |peer: &Configured| match id {
            Some(_) => peer.peer == id,
            None => peer.peer.is_none() && peer.alias.as_deref() == Some(name),
        };
        let gone: Vec<_> = (0..self.configured.len()).rev().filter(|index| meant(&self.configured[*index])).collect();
        for index in &gone {
            self.configured.remove(*index);
        }
        if let Some(id) = id {
            self.trust.allow.remove(&id);
            if let Some(peer) = self.peers.get_mut(&id) {
                (peer.configured, peer.alias) = (false, None);
                peer.addresses.clear();
            }
        }
        (id.is_some() || !gone.is_empty()).then_some((id, gone))
    }

    /// The configured address at `index` is that of `id`.
    pub fn learn(&mut self, index: usize, id: PeerId) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let before = configured.peer.replace(id);
        let (alias, address) = (configured.alias.clone(), configured.address.clone());
        if let Some(before) = before.filter(|before| *before != id)
            && let Some(peer) = self.peers.get_mut(&before)
        {
            // Somebody else answers at this address now; others may lead to it still.
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

    fn entry(&mut self, id: PeerId) -> &mut Peer {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            let idle = self.peers.iter().filter(|(_, peer)| peer.connections == 0 && !peer.configured);
            // Ids are free to make: a crowd of new ones must not make us forget a ban, nor an old offender, of an earlier
            // run and not seen since. Of bans the one goes that ends first.
            let now = Instant::now();
            let place = |(_, peer): &(&PeerId, &Peer)| {
                let offended = peer.offences.count > 0;
                (peer.offences.banned_until(now), offended, offended && peer.last_seen.is_none(), peer.last_seen)
            };
            if let Some(oldest) = idle.min_by_key(place).map(|(id, _)| *id) {
                self.peers.remove(&oldest);
            }
        }
        self.peers.entry(id).or_default()
    }

    /// The id behind an alias or a base58 id; `None` for a peer that we don't know (yet).
    pub fn resolve(&self, name: &str) -> Option<PeerId> {
        self.find(name).ok()
    }

    /// Like [`resolve`](Self::resolve), and tells an unknown name from a configured peer that was never reached.
    pub fn find(&self, name: &str) -> Result<PeerId, P2pError> {
        if let Some(configured) = self.configured.iter().find(|peer| peer.alias.as_deref() == Some(name)) {
            let id = configured.peer.ok_or_else(|| P2pError::Unreachable("it has not been reached yet".into()))?;
            return if self.is_denied(&id) { Err(P2pError::UnknownPeer) } else { Ok(id) };
        }
        let id = name.parse().map_err(|_| P2pError::UnknownPeer)?;
        if self.peers.contains_key(&id) && self.may_be_asked(&id) { Ok(id) } else { Err(P2pError::UnknownPeer) }
    }

    /// The id behind an alias or a base58 id of anybody whom we know, denied ones included: for the operator.
    pub fn known(&self, name: &str) -> Option<PeerId> {
        let named = self.configured.iter().find(|peer| peer.alias.as_deref() == Some(name));
        let id = named.map_or_else(|| name.parse().ok(), |configured| configured.peer)?;
        (self.peers.contains_key(&id) || self.trust.allow.contains(&id)).then_some(id)
    }

    /// Where to dial a peer of the operator's; empty for others, `None` for one that we don't know.
    pub fn addresses(&self, id: &PeerId) -> Option<&[Multiaddr]> {
        self.peers.get(id).map(|peer| peer.addresses.as_slice())
    }

    pub fn is_configured(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.configured)
    }

    /// Whether it is connected and has identified itself.
    pub fn is_ready(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.connections > 0 && peer.agent.is_some())
    }

    /// The other end of the peer's latest connection.
    pub fn remote(&self, id: &PeerId) -> Option<&Multiaddr> {
        self.peers.get(id).and_then(|peer| peer.remote.as_ref())
    }

    pub fn connected(&mut self, id: PeerId, connections: u32, remote: Multiaddr) {
        let peer = self.entry(id);
        if peer.connections == 0 {
            // Another program may be there now: it has yet to identify itself.
            peer.speaks_own_dialect = false;
        }
        peer.connections = connections;
        peer.remote = Some(remote);
        peer.dial_error = None;
        peer.seen();
    }

    pub fn disconnected(&mut self, id: &PeerId, remaining: u32) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.connections = remaining;
        }
    }

    /// The operator dialled this address and the peer answered: it may be dialled again for a request.
    pub fn dialled(&mut self, id: PeerId, address: &Multiaddr) {
        self.entry(id).add_address(address);
    }

    pub fn dial_failed(&mut self, id: &PeerId, reason: String) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.last_error = Some(P2pError::Unreachable(String::new()).code());
            peer.dial_error = Some(reason);
        }
    }

    pub fn dial_error(&self, id: &PeerId) -> Option<&str> {
        self.peers.get(id)?.dial_error.as_deref()
    }

    pub fn identified(&mut self, id: PeerId, agent: &str, protocols: &[libp2p::StreamProtocol]) {
        let peer = self.entry(id);
        (peer.role, peer.status_url) = (claims::role(agent), claims::status_url(agent));
        peer.agent = Some(agent.chars().take(MAX_AGENT_CHARS).collect());
        peer.speaks = protocols.iter().any(|id| [PROTOCOL, COMPRESSED_PROTOCOL].contains(&id.as_ref()));
        peer.speaks_own_dialect = protocols.iter().any(|id| id.as_ref() == COMPRESSED_PROTOCOL);
        peer.protocols = protocols.iter().take(MAX_PROTOCOLS).map(ToString::to_string).collect();
        peer.seen();
    }

    pub fn pinged(&mut self, id: &PeerId, time: Duration) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.ping_ms = Some(time.as_secs_f64() * 1e3);
            peer.seen();
        }
    }

    /// Returns whether it is banned by this.
    pub fn penalise(&mut self, id: PeerId, offence: Offence, now: Instant) -> bool {
        self.version += 1;
        self.entry(id).offences.add(offence, now) && !self.is_trusted(&id)
    }

    /// Refuses the peer for a while; none is longer than a year.
    pub fn ban(&mut self, id: PeerId, time: Duration, now: Instant) {
        self.version += 1;
        self.entry(id).offences.ban(now + time.min(MAX_BAN), now);
    }

    pub fn is_shunned(&self, id: &PeerId, now: Instant) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.offences.shunned(now))
    }

    /// Whether it is connected, speaks the sync protocol and is not shunned.
    pub fn is_useful(&self, id: &PeerId, now: Instant) -> bool {
        self.is_heard(id, now) && self.peers.get(id).is_some_and(|peer| peer.connections > 0 && peer.speaks)
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

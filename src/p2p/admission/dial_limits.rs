//! Limits on dials: the operator's dials go anywhere, those for discovered peers only where the settings allow.
//!
//! Addresses are discovered in many ways (identify, Kademlia's answers, mDNS), and some of libp2p's behaviours dial
//! them by themselves. So they are checked where every dial passes, in [`Admission`](super::Admission). Only ip
//! addresses are allowed: discovered DNS names are never resolved, so that nothing remains to be checked after DNS.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;

use crate::limits::{Rate, TokenBuckets};
use crate::p2p::address::is_dialable;
use crate::p2p::address::scope::{AddressScope, ip};

/// Addresses of one peer that are dialled in parallel.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// Discovered addresses dialled: limited, so that no peer can use this node to scan or flood others.
const RATE: Rate = Rate { per_second: 8, burst: 128 };
/// Dials to one ip address within [`WINDOW`], over all ports.
const MAX_PER_TARGET: u32 = 8;
/// Time after which the dials to an ip address are forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// Time after a connection closed for which addresses from its peer may still be dialled: Kademlia's queries end within
/// a minute.
const REMOTE_GRACE: Duration = Duration::from_secs(120);

/// The operator's dials, and the addresses and the budget of all others.
pub(crate) struct DialLimits {
    private_addresses: bool,
    own_ports: Vec<u16>,
    /// Addresses of this node's listeners.
    own_addresses: HashSet<IpAddr>,
    operator_dials: HashSet<ConnectionId>,
    /// Connections with other machines.
    remote_connections: HashSet<ConnectionId>,
    /// End of the grace period after the latest of them closed.
    remote_until: Option<Instant>,
    budget: TokenBuckets<()>,
    /// Dials per ip address. Bounded by the budget for a window.
    targets: HashMap<IpAddr, (u32, Instant)>,
}

impl DialLimits {
    pub fn new(private_addresses: bool, own_ports: &[u16]) -> Self {
        Self {
            private_addresses,
            own_ports: own_ports.to_vec(),
            own_addresses: HashSet::new(),
            operator_dials: HashSet::new(),
            remote_connections: HashSet::new(),
            remote_until: None,
            budget: TokenBuckets::new(RATE, 0),
            targets: HashMap::new(),
        }
    }

    /// Marks a dial as the operator's.
    pub fn permit(&mut self, connection: ConnectionId) {
        self.operator_dials.insert(connection);
    }

    pub fn is_operator_dial(&self, connection: &ConnectionId) -> bool {
        self.operator_dials.contains(connection)
    }

    /// Whether a discovered address may be dialled and kept; `local`: it was learned from a peer on this machine.
    pub fn allows(&self, address: &Multiaddr, local: bool) -> bool {
        let (Some(ip), true) = (ip(address), is_dialable(address)) else { return false };
        let allowed = match AddressScope::of(ip) {
            AddressScope::Public => true,
            AddressScope::Private => self.private_addresses,
            AddressScope::Loopback => self.private_addresses && local,
            AddressScope::Special => false,
        };
        let own = ip.is_loopback() || self.own_addresses.contains(&ip);
        allowed && !(own && port(address).is_some_and(|port| self.own_ports.contains(&port)))
    }

    /// Whether all peers, of recently closed connections too, are on this machine.
    fn all_local(&self, now: Instant) -> bool {
        self.remote_connections.is_empty() && self.remote_until.is_none_or(|until| until <= now)
    }

    /// Like [`allows`](Self::allows), for an address from an unknown peer.
    pub fn allows_now(&self, address: &Multiaddr, now: Instant) -> bool {
        self.allows(address, self.all_local(now))
    }

    /// Whether an address may be advertised to other peers: one that would be allowed as a discovered address, or a
    /// bare id. Addresses of configured peers may be internal.
    pub fn may_advertise(&self, address: &Multiaddr) -> bool {
        matches!(address.iter().next(), Some(Protocol::P2p(_))) || self.allows(address, true)
    }

    /// Returns those of the `known` addresses that may be dialled now, and charges the budget for them.
    pub fn select(&mut self, known: Vec<Multiaddr>, now: Instant) -> Vec<Multiaddr> {
        let mut selected = Vec::new();
        for address in known {
            if selected.len() < MAX_ADDRESSES && !selected.contains(&address) && self.consume(&address, now) {
                selected.push(address);
            }
        }
        selected
    }

    fn consume(&mut self, address: &Multiaddr, now: Instant) -> bool {
        let Some(ip) = ip(address).filter(|_| self.allows_now(address, now)) else { return false };
        // Only peers on this machine can cause a dial to loopback.
        if ip.is_loopback() {
            return true;
        }
        let (count, since) = self.targets.get(&ip).copied().unwrap_or((0, now));
        if count >= MAX_PER_TARGET && now - since < WINDOW || self.budget.take((), 1, now).is_err() {
            return false;
        }
        self.targets.retain(|_, (_, since)| now - *since < WINDOW);
        self.targets.entry(ip).or_insert((0, now)).0 += 1;
        true
    }

    /// Records an established connection.
    pub fn established(&mut self, connection: ConnectionId, remote: &Multiaddr) {
        self.operator_dials.remove(&connection);
        if ip(remote).is_none_or(|ip| !ip.is_loopback()) {
            self.remote_connections.insert(connection);
        }
    }

    /// Records that a dial failed or a connection closed.
    pub fn ended(&mut self, connection: &ConnectionId, now: Instant) {
        self.operator_dials.remove(connection);
        if self.remote_connections.remove(connection) {
            self.remote_until = Some(now + REMOTE_GRACE);
        }
    }

    /// Records an address of this node's listeners.
    pub fn add_own_address(&mut self, address: &Multiaddr) {
        self.own_addresses.extend(ip(address));
    }
}

fn port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dials(private_addresses: bool) -> DialLimits {
        DialLimits::new(private_addresses, &[9090])
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn discovered_addresses_are_dialled_only_where_the_settings_allow() {
        let public = ["/ip4/1.1.1.1/tcp/1", "/ip4/100.63.0.1/tcp/1/ws", "/ip6/2606:4700::1/tcp/1"];
        let private =
            ["/ip4/10.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1/ws", "/ip4/100.64.0.1/tcp/1", "/ip6/fd00::1/tcp/1"];
        let loopback = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1"];
        let special = [
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.251/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/64:ff9b::7f00:1/tcp/1",
            "/dns4/example.org/tcp/1",
            "/dns/localhost/tcp/1",
            "/dnsaddr/example.org",
            "/ip4/1.1.1.1/udp/1/quic-v1",
            "/ip4/1.1.1.1/tcp/0",
            "/ip4/127.0.0.1/tcp/9090",
        ];
        let (strict, loose) = (dials(false), dials(true));
        let all =
            |dials: &DialLimits, list: &[&str], local| list.iter().filter(|a| dials.allows(&address(a), local)).count();
        for local in [false, true] {
            assert_eq!((all(&strict, &public, local), all(&loose, &public, local)), (3, 3));
            assert_eq!((all(&strict, &private, local), all(&loose, &private, local)), (0, 4));
            assert_eq!((all(&strict, &loopback, local), all(&loose, &loopback, local)), (0, if local { 3 } else { 0 }));
            assert_eq!((all(&strict, &special, local), all(&loose, &special, local)), (0, 0));
        }
    }

    #[test]
    fn loopback_is_dialled_only_while_all_peers_are_local() {
        let (mut dials, now, here) = (dials(true), Instant::now(), address("/ip4/127.0.0.1/tcp/1"));
        assert!(dials.allows_now(&here, now));
        dials.established(id(1), &here);
        assert!(dials.allows_now(&here, now));
        dials.established(id(2), &address("/ip4/10.0.0.1/tcp/1"));
        assert!(!dials.allows_now(&here, now));
        dials.ended(&id(2), now);
        assert!(!dials.allows_now(&here, now + REMOTE_GRACE / 2), "addresses from it may still arrive");
        assert!(dials.allows_now(&here, now + REMOTE_GRACE));
    }

    #[test]
    fn dials_per_address_and_in_all_are_limited() {
        let (mut dials, now) = (dials(false), Instant::now());
        let ports = |ip: &str| (1..50).map(|port| address(&format!("/ip4/{ip}/tcp/{port}"))).collect::<Vec<_>>();
        assert_eq!(dials.select(ports("1.1.1.1"), now).len(), MAX_ADDRESSES);
        assert_eq!(dials.select(ports("1.1.1.1"), now), [], "whatever the port");
        let taken: usize = (0..100).map(|n| dials.select(ports(&format!("1.1.2.{n}")), now).len()).sum();
        assert_eq!(taken + MAX_ADDRESSES, RATE.burst as usize);
        assert!(!dials.select(ports("1.1.1.1"), now + WINDOW).is_empty());
        assert_eq!(dials.targets.len(), 1, "the others are forgotten");
    }

    #[test]
    fn a_dial_is_the_operators_until_it_ends() {
        let (mut dials, now) = (dials(false), Instant::now());
        for n in [1, 2] {
            dials.permit(id(n));
            assert!(dials.is_operator_dial(&id(n)));
        }
        dials.established(id(1), &address("/ip4/1.1.1.1/tcp/1"));
        dials.ended(&id(2), now);
        assert!(dials.operator_dials.is_empty());
    }
}

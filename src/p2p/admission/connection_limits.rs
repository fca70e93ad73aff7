//! Limits on connections: in all, of untrusted peers, of discovered peers, per peer and per subnet.
//!
//! libp2p's `connection_limits` (0.7.0) keeps an entry for every peer id that it ever saw. Here each connection has one
//! entry, and a check scans all of them: the limits keep them few.

use std::collections::HashMap;
use std::net::IpAddr;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use crate::p2p::address::scope::Subnet;
use crate::p2p::error::Refusal;

/// Incoming connections. Together with [`MAX_OUTGOING`] the process stays well under the usual limit of 1024 open
/// files, HTTP clients and database included.
const MAX_INCOMING: usize = 256;
/// Outgoing connections: to configured peers, to discovered peers, and Kademlia's.
const MAX_OUTGOING: usize = 64;
/// Connections of [`MAX_OUTGOING`] that dials of discovered peers may make, pending ones included: the others are
/// reserved for the operator's dials.
const MAX_DISCOVERED: usize = 48;
/// Pending dials of discovered peers, each with several addresses.
const MAX_PENDING_DISCOVERED: usize = 16;
/// Pending connections (handshake not finished), in each direction.
const MAX_PENDING: usize = 64;
/// Connections with one peer: each side may dial the other, over TCP and over WebSocket.
const MAX_PER_PEER: usize = 4;
/// Connections of [`MAX_INCOMING`] that are reserved for trusted peers.
const RESERVED_FOR_TRUSTED: usize = 32;
/// Incoming connections of one subnet, pending ones included: an eighth of [`MAX_INCOMING`].
const MAX_PER_SUBNET: usize = 32;
/// Pending connections of one subnet, which could otherwise renew them at will and keep others out.
const MAX_PENDING_PER_SUBNET: usize = 8;
/// Connections of [`MAX_PENDING`] that are reserved for the addresses of configured peers and for this machine.
const RESERVED_PENDING: usize = 16;

/// Permits of all pending and established connections.
#[derive(Default)]
pub(super) struct ConnectionLimits(HashMap<ConnectionId, Connection>);

#[derive(Clone, Copy)]
struct Connection {
    incoming: bool,
    /// Whether this node dialled it by itself.
    discovered: bool,
    /// Subnet whose limits the connection counts for.
    subnet: Option<Subnet>,
    /// Peer at the other end, once the handshake is finished.
    peer: Option<PeerId>,
    /// Whether the peer is known and not trusted.
    untrusted: bool,
}

impl ConnectionLimits {
    fn count(&self, matches: impl Fn(&Connection) -> bool) -> usize {
        self.0.values().filter(|connection| matches(connection)).count()
    }

    /// Takes a permit for an incoming connection. Subnet limits don't hold for `exempt` addresses (of configured peers)
    /// and for this machine.
    ///
    /// # Errors
    /// The limit that is exceeded.
    pub fn begin_incoming(
        &mut self,
        connection: ConnectionId,
        ip: Option<IpAddr>,
        exempt: bool,
    ) -> Result<(), Refusal> {
        let subnet = ip.and_then(Subnet::of).filter(|_| !exempt);
        let pending = |connection: &Connection| connection.incoming && connection.peer.is_none();
        if subnet.is_some() {
            let same_subnet = |connection: &Connection| connection.subnet == subnet;
            if self.count(same_subnet) >= MAX_PER_SUBNET
                || self.count(|connection| same_subnet(connection) && pending(connection)) >= MAX_PENDING_PER_SUBNET
            {
                return Err(Refusal::SubnetLimitExceeded);
            }
            if self.count(|connection| connection.subnet.is_some() && pending(connection))
                >= MAX_PENDING - RESERVED_PENDING
            {
                return Err(Refusal::LimitExceeded);
            }
        }
        if self.count(pending) >= MAX_PENDING {
            return Err(Refusal::LimitExceeded);
        }
        let new = Connection { incoming: true, discovered: false, subnet, peer: None, untrusted: false };
        self.0.insert(connection, new);
        Ok(())
    }

    /// Takes a permit for a dial, of the operator or of a `discovered` peer.
    pub fn begin_outgoing(&mut self, connection: ConnectionId, discovered: bool) -> Result<(), Refusal> {
        let pending = |connection: &Connection| !connection.incoming && connection.peer.is_none();
        if self.count(pending) >= MAX_PENDING
            || discovered
                && (self.count(|connection| connection.discovered) >= MAX_DISCOVERED
                    || self.count(|connection| connection.discovered && pending(connection)) >= MAX_PENDING_DISCOVERED)
        {
            return Err(Refusal::LimitExceeded);
        }
        self.0
            .insert(connection, Connection { incoming: false, discovered, subnet: None, peer: None, untrusted: false });
        Ok(())
    }

    /// Turns the permit of a pending connection into one of an established connection with `peer`.
    pub fn establish(&mut self, connection: ConnectionId, peer: PeerId, trusted: bool) -> Result<(), Refusal> {
        let Some(&Connection { incoming, .. }) = self.0.get(&connection) else { return Ok(()) };
        let established = self.count(|connection| connection.incoming == incoming && connection.peer.is_some());
        let untrusted = self.count(|connection| connection.incoming && connection.untrusted);
        let max = if incoming { MAX_INCOMING } else { MAX_OUTGOING };
        if established >= max
            || incoming && !trusted && untrusted >= MAX_INCOMING - RESERVED_FOR_TRUSTED
            || self.count(|connection| connection.peer == Some(peer)) >= MAX_PER_PEER
        {
            return Err(Refusal::LimitExceeded);
        }
        if let Some(connection) = self.0.get_mut(&connection) {
            // Trusted peers don't count for their subnet.
            let subnet = connection.subnet.filter(|_| !trusted);
            *connection = Connection { subnet, peer: Some(peer), untrusted: !trusted, ..*connection };
        }
        Ok(())
    }

    /// Gives the permit back.
    pub fn release(&mut self, connection: &ConnectionId) {
        self.0.remove(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn ip(text: String) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn establish(limits: &mut ConnectionLimits, n: usize, trusted: bool) -> Result<(), Refusal> {
        limits.establish(id(n), PeerId::random(), trusted)
    }

    #[test]
    fn connections_of_a_subnet_are_limited() {
        let mut limits = ConnectionLimits::default();
        for n in 0..MAX_PER_SUBNET {
            limits.begin_incoming(id(n), ip(format!("192.0.2.{n}")), false).unwrap();
            establish(&mut limits, n, false).unwrap();
        }
        let more = |limits: &mut ConnectionLimits, ip, exempt| limits.begin_incoming(id(1000), ip, exempt);
        assert_eq!(more(&mut limits, ip("192.0.2.200".into()), false), Err(Refusal::SubnetLimitExceeded));
        assert_eq!(more(&mut limits, ip("::ffff:192.0.2.200".into()), false), Err(Refusal::SubnetLimitExceeded));
        assert_eq!(more(&mut limits, ip("192.0.2.200".into()), true), Ok(()), "the operator's own peer");
        assert_eq!(more(&mut limits, ip("192.0.3.1".into()), false), Ok(()));
        limits.release(&id(0));
        assert_eq!(more(&mut limits, ip("192.0.2.200".into()), false), Ok(()), "a permit was given back");
        assert_eq!(limits.begin_incoming(id(1001), ip("192.0.2.201".into()), false), Err(Refusal::SubnetLimitExceeded));
        establish(&mut limits, 1000, true).unwrap();
        assert_eq!(
            limits.begin_incoming(id(1001), ip("192.0.2.201".into()), false),
            Ok(()),
            "a trusted peer does not count"
        );
    }

    #[test]
    fn pending_connections_are_limited_per_subnet_and_in_all() {
        let mut limits = ConnectionLimits::default();
        let most = MAX_PENDING - RESERVED_PENDING;
        for n in 0..most {
            let subnet = n / MAX_PENDING_PER_SUBNET;
            limits.begin_incoming(id(n), ip(format!("10.0.{subnet}.{n}")), false).unwrap();
            if n % MAX_PENDING_PER_SUBNET == MAX_PENDING_PER_SUBNET - 1 {
                let more = limits.begin_incoming(id(1000), ip(format!("10.0.{subnet}.200")), false);
                assert_eq!(more, Err(Refusal::SubnetLimitExceeded), "{n}");
            }
        }
        assert_eq!(limits.begin_incoming(id(1000), ip("10.1.0.1".into()), false), Err(Refusal::LimitExceeded));
        for n in most..MAX_PENDING {
            let (from, exempt) = if n % 2 == 0 { ("127.0.0.1", false) } else { ("10.0.0.1", true) };
            limits.begin_incoming(id(n), ip(from.into()), exempt).unwrap();
        }
        assert_eq!(limits.begin_incoming(id(1000), ip("127.0.0.1".into()), false), Err(Refusal::LimitExceeded));
        for n in 2000..2000 + MAX_PENDING {
            limits.begin_outgoing(id(n), false).unwrap();
        }
        assert_eq!(
            limits.begin_outgoing(id(1000), false),
            Err(Refusal::LimitExceeded),
            "dials have a limit of their own"
        );
        establish(&mut limits, 0, false).unwrap();
        establish(&mut limits, 2000, false).unwrap();
        assert_eq!(limits.begin_incoming(id(1000), ip("10.0.0.200".into()), false), Ok(()), "a handshake is done");
        assert_eq!(limits.begin_outgoing(id(1001), false), Ok(()));
    }

    #[test]
    fn connections_are_reserved_for_trusted_peers() {
        let mut limits = ConnectionLimits::default();
        let begin_incoming = |limits: &mut ConnectionLimits, n| {
            limits.begin_incoming(id(n), ip(format!("10.{}.{}.1", n / 256, n % 256)), false)
        };
        for n in 0..MAX_INCOMING {
            begin_incoming(&mut limits, n).unwrap();
            if n == MAX_INCOMING - RESERVED_FOR_TRUSTED {
                assert_eq!(establish(&mut limits, n, false), Err(Refusal::LimitExceeded));
            }
            establish(&mut limits, n, n >= MAX_INCOMING - RESERVED_FOR_TRUSTED).unwrap();
        }
        begin_incoming(&mut limits, MAX_INCOMING).unwrap();
        assert_eq!(establish(&mut limits, MAX_INCOMING, true), Err(Refusal::LimitExceeded), "the limit is reached");
        limits.release(&id(0));
        assert_eq!(establish(&mut limits, MAX_INCOMING, false), Ok(()));
    }

    #[test]
    fn connections_are_reserved_for_dials_of_the_operator() {
        let mut limits = ConnectionLimits::default();
        for n in 0..MAX_PENDING_DISCOVERED {
            limits.begin_outgoing(id(n), true).unwrap();
        }
        assert_eq!(limits.begin_outgoing(id(100), true), Err(Refusal::LimitExceeded));
        limits.release(&id(0));
        limits.begin_outgoing(id(100), true).unwrap();
        for n in 0..=100 {
            limits.release(&id(n));
        }
        for n in 200..200 + MAX_DISCOVERED {
            limits.begin_outgoing(id(n), true).unwrap();
            if n == 199 + MAX_DISCOVERED {
                assert_eq!(limits.begin_outgoing(id(101), true), Err(Refusal::LimitExceeded), "pending ones count");
            }
            establish(&mut limits, n, false).unwrap();
        }
        assert_eq!(limits.begin_outgoing(id(101), true), Err(Refusal::LimitExceeded));
        assert_eq!(limits.begin_outgoing(id(101), false), Ok(()), "a dial of the operator");
    }

    #[test]
    fn outgoing_connections_and_those_of_one_peer_are_limited_and_closed_ones_forgotten() {
        let mut limits = ConnectionLimits::default();
        let one = PeerId::random();
        for n in 0..=MAX_OUTGOING {
            limits.begin_outgoing(id(n), false).unwrap();
            let peer = if n < MAX_PER_PEER { one } else { PeerId::random() };
            let expected = if n < MAX_OUTGOING { Ok(()) } else { Err(Refusal::LimitExceeded) };
            assert_eq!(limits.establish(id(n), peer, true), expected);
        }
        limits.begin_incoming(id(1000), ip("10.0.0.1".into()), false).unwrap();
        assert_eq!(limits.establish(id(1000), one, true), Err(Refusal::LimitExceeded), "in both directions together");
        assert_eq!(establish(&mut limits, 1000, false), Ok(()));
        for n in 0..=1000 {
            limits.release(&id(n));
        }
        assert!(limits.0.is_empty());
    }
}

//! Who finds a place with us: so many connections, so many strangers, and so many of one subnet.
//!
//! libp2p's own behaviour for limits (0.7.0) keeps an entry for every id that it ever saw. Here each connection has one,
//! and all are looked through: the limits keep them few.

use std::collections::HashMap;
use std::net::IpAddr;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use crate::p2p::address::scope::Subnet;
use crate::p2p::error::Refused;

/// Connections that others may hold open with us. With [`MAX_OUTGOING`] it keeps the process well under the usual
/// limit of 1024 open files, HTTP clients and database included.
const MAX_INCOMING: usize = 256;
/// Connections that we open: to configured peers, to those that the network tells of, and Kademlia's.
const MAX_OUTGOING: usize = 64;
/// Handshakes at once, in each direction.
const MAX_PENDING: usize = 64;
/// Connections with one peer: each side may dial the other, over TCP and over WebSocket.
const MAX_PER_PEER: usize = 4;
/// Places of [`MAX_INCOMING`] that strangers can't take.
const RESERVED: usize = 32;
/// Connections of one subnet, those included whose handshake is not done: an eighth of the places.
const MAX_PER_SUBNET: usize = 32;
/// Handshakes of one subnet: it can renew them at will, and would keep others out.
const MAX_PENDING_PER_SUBNET: usize = 8;
/// Places of [`MAX_PENDING`] for configured peers' addresses and this machine alone.
const RESERVED_PENDING: usize = 16;

/// Every connection, from its first packet or its dial on. At most those that are established and pending.
#[derive(Default)]
pub(super) struct Entrance(HashMap<ConnectionId, Guest>);

#[derive(Clone, Copy)]
struct Guest {
    incoming: bool,
    /// Of those that count for their subnet.
    subnet: Option<Subnet>,
    /// Who it is, once its handshake is done.
    peer: Option<PeerId>,
    /// It is nobody whom the operator trusts.
    stranger: bool,
}

impl Entrance {
    fn count(&self, what: impl Fn(&Guest) -> bool) -> usize {
        self.0.values().filter(|guest| what(guest)).count()
    }

    /// A connection arrives. Configured peers' addresses are `exempt`; so is this machine.
    pub fn knock(&mut self, connection: ConnectionId, ip: Option<IpAddr>, exempt: bool) -> Result<(), Refused> {
        let subnet = ip.and_then(Subnet::of).filter(|_| !exempt);
        let pending = |guest: &Guest| guest.incoming && guest.peer.is_none();
        if subnet.is_some() {
            let neighbour = |guest: &Guest| guest.subnet == subnet;
            if self.count(neighbour) >= MAX_PER_SUBNET
                || self.count(|guest| neighbour(guest) && pending(guest)) >= MAX_PENDING_PER_SUBNET
            {
                return Err(Refused::Subnet);
            }
            if self.count(|guest| guest.subnet.is_some() && pending(guest)) >= MAX_PENDING - RESERVED_PENDING {
                return Err(Refused::Full);
            }
        }
        if self.count(pending) >= MAX_PENDING {
            return Err(Refused::Full);
        }
        self.0.insert(connection, Guest { incoming: true, subnet, peer: None, stranger: false });
        Ok(())
    }

    /// We dial.
    pub fn dial(&mut self, connection: ConnectionId) -> Result<(), Refused> {
        if self.count(|guest| !guest.incoming && guest.peer.is_none()) >= MAX_PENDING {
            return Err(Refused::Full);
        }
        self.0.insert(connection, Guest { incoming: false, subnet: None, peer: None, stranger: false });
        Ok(())
    }

    /// Its handshake is done.
    pub fn enter(&mut self, connection: ConnectionId, peer: PeerId, trusted: bool) -> Result<(), Refused> {
        let Some(&Guest { incoming, .. }) = self.0.get(&connection) else { return Ok(()) };
        let inside = self.count(|guest| guest.incoming == incoming && guest.peer.is_some());
        let strangers = self.count(|guest| guest.incoming && guest.stranger);
        let most = if incoming { MAX_INCOMING } else { MAX_OUTGOING };
        if inside >= most
            || incoming && !trusted && strangers >= MAX_INCOMING - RESERVED
            || self.count(|guest| guest.peer == Some(peer)) >= MAX_PER_PEER
        {
            return Err(Refused::Full);
        }
        if let Some(guest) = self.0.get_mut(&connection) {
            // A trusted one takes none of its neighbours' places.
            let subnet = guest.subnet.filter(|_| !trusted);
            *guest = Guest { subnet, peer: Some(peer), stranger: !trusted, ..*guest };
        }
        Ok(())
    }

    /// It is gone, or was refused.
    pub fn leave(&mut self, connection: &ConnectionId) {
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

    fn enter(entrance: &mut Entrance, n: usize, trusted: bool) -> Result<(), Refused> {
        entrance.enter(id(n), PeerId::random(), trusted)
    }

    #[test]
    fn a_subnet_has_its_share_and_no_more() {
        let mut entrance = Entrance::default();
        for n in 0..MAX_PER_SUBNET {
            entrance.knock(id(n), ip(format!("192.0.2.{n}")), false).unwrap();
            enter(&mut entrance, n, false).unwrap();
        }
        let more = |entrance: &mut Entrance, ip, exempt| entrance.knock(id(1000), ip, exempt);
        assert_eq!(more(&mut entrance, ip("192.0.2.200".into()), false), Err(Refused::Subnet));
        assert_eq!(more(&mut entrance, ip("::ffff:192.0.2.200".into()), false), Err(Refused::Subnet));
        assert_eq!(more(&mut entrance, ip("192.0.2.200".into()), true), Ok(()), "the operator's own peer");
        assert_eq!(more(&mut entrance, ip("192.0.3.1".into()), false), Ok(()));
        entrance.leave(&id(0));
        assert_eq!(more(&mut entrance, ip("192.0.2.200".into()), false), Ok(()), "a place has become free");
        assert_eq!(entrance.knock(id(1001), ip("192.0.2.201".into()), false), Err(Refused::Subnet));
        enter(&mut entrance, 1000, true).unwrap();
        assert_eq!(entrance.knock(id(1001), ip("192.0.2.201".into()), false), Ok(()), "a trusted peer takes no place");
    }

    #[test]
    fn handshakes_of_one_subnet_and_of_all_leave_places_to_others() {
        let mut entrance = Entrance::default();
        let most = MAX_PENDING - RESERVED_PENDING;
        for n in 0..most {
            let subnet = n / MAX_PENDING_PER_SUBNET;
            entrance.knock(id(n), ip(format!("10.0.{subnet}.{n}")), false).unwrap();
            if n % MAX_PENDING_PER_SUBNET == MAX_PENDING_PER_SUBNET - 1 {
                let more = entrance.knock(id(1000), ip(format!("10.0.{subnet}.200")), false);
                assert_eq!(more, Err(Refused::Subnet), "{n}");
            }
        }
        assert_eq!(entrance.knock(id(1000), ip("10.1.0.1".into()), false), Err(Refused::Full));
        for n in most..MAX_PENDING {
            let (from, exempt) = if n % 2 == 0 { ("127.0.0.1", false) } else { ("10.0.0.1", true) };
            entrance.knock(id(n), ip(from.into()), exempt).unwrap();
        }
        assert_eq!(entrance.knock(id(1000), ip("127.0.0.1".into()), false), Err(Refused::Full));
        for n in 2000..2000 + MAX_PENDING {
            entrance.dial(id(n)).unwrap();
        }
        assert_eq!(entrance.dial(id(1000)), Err(Refused::Full), "dials have places of their own");
        enter(&mut entrance, 0, false).unwrap();
        enter(&mut entrance, 2000, false).unwrap();
        assert_eq!(entrance.knock(id(1000), ip("10.0.0.200".into()), false), Ok(()), "a handshake is done");
        assert_eq!(entrance.dial(id(1001)), Ok(()));
    }

    #[test]
    fn strangers_leave_places_for_trusted_peers() {
        let mut entrance = Entrance::default();
        let knock =
            |entrance: &mut Entrance, n| entrance.knock(id(n), ip(format!("10.{}.{}.1", n / 256, n % 256)), false);
        for n in 0..MAX_INCOMING {
            knock(&mut entrance, n).unwrap();
            if n == MAX_INCOMING - RESERVED {
                assert_eq!(enter(&mut entrance, n, false), Err(Refused::Full));
            }
            enter(&mut entrance, n, n >= MAX_INCOMING - RESERVED).unwrap();
        }
        knock(&mut entrance, MAX_INCOMING).unwrap();
        assert_eq!(enter(&mut entrance, MAX_INCOMING, true), Err(Refused::Full), "all are taken");
        entrance.leave(&id(0));
        assert_eq!(enter(&mut entrance, MAX_INCOMING, false), Ok(()));
    }

    #[test]
    fn outgoing_ones_and_those_of_one_peer_are_so_many_and_nobody_is_remembered() {
        let mut entrance = Entrance::default();
        let one = PeerId::random();
        for n in 0..=MAX_OUTGOING {
            entrance.dial(id(n)).unwrap();
            let peer = if n < MAX_PER_PEER { one } else { PeerId::random() };
            let expected = if n < MAX_OUTGOING { Ok(()) } else { Err(Refused::Full) };
            assert_eq!(entrance.enter(id(n), peer, true), expected);
        }
        entrance.knock(id(1000), ip("10.0.0.1".into()), false).unwrap();
        assert_eq!(entrance.enter(id(1000), one, true), Err(Refused::Full), "in both directions together");
        assert_eq!(enter(&mut entrance, 1000, false), Ok(()));
        for n in 0..=1000 {
            entrance.leave(&id(n));
        }
        assert!(entrance.0.is_empty());
    }
}

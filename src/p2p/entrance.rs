//! Who of those that connect with us finds a place: so many strangers, and so many of one subnet.

use std::collections::HashMap;
use std::net::IpAddr;

use libp2p::swarm::ConnectionId;

use super::behaviour::MAX_INCOMING;
use super::guard::Refused;
use super::place::Subnet;

/// Places of [`MAX_INCOMING`] that strangers can't take.
const RESERVED: usize = 32;
/// Connections of one subnet, those included whose handshake is not done: a seventh of the places.
const MAX_PER_SUBNET: usize = 32;

/// The connections that others made, from their first packet on. At most those that are established and pending.
#[derive(Default)]
pub(super) struct Entrance(HashMap<ConnectionId, Guest>);

#[derive(Clone, Copy)]
struct Guest {
    subnet: Option<Subnet>,
    /// Whether its handshake is done, and it is nobody whom the operator trusts.
    stranger: bool,
}

impl Entrance {
    /// A connection arrives. Configured peers' addresses are `exempt`; so is this machine.
    pub fn knock(&mut self, connection: ConnectionId, ip: Option<IpAddr>, exempt: bool) -> Result<(), Refused> {
        let subnet = ip.and_then(Subnet::of).filter(|_| !exempt);
        if subnet.is_some() && self.0.values().filter(|guest| guest.subnet == subnet).count() >= MAX_PER_SUBNET {
            return Err(Refused::Subnet);
        }
        self.0.insert(connection, Guest { subnet, stranger: false });
        Ok(())
    }

    /// Its handshake is done.
    pub fn enter(&mut self, connection: ConnectionId, trusted: bool) -> Result<(), Refused> {
        let strangers = self.0.values().filter(|guest| guest.stranger).count();
        let Some(guest) = self.0.get_mut(&connection) else { return Ok(()) };
        if trusted {
            // It takes none of its neighbours' places.
            guest.subnet = None;
        } else if strangers >= MAX_INCOMING as usize - RESERVED {
            return Err(Refused::Full);
        } else {
            guest.stranger = true;
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

    #[test]
    fn a_subnet_has_its_share_and_no_more() {
        let mut entrance = Entrance::default();
        for n in 0..MAX_PER_SUBNET {
            entrance.knock(id(n), ip(format!("192.0.2.{n}")), false).unwrap();
        }
        let more = |entrance: &mut Entrance, ip, exempt| entrance.knock(id(1000), ip, exempt);
        assert_eq!(more(&mut entrance, ip("192.0.2.200".into()), false), Err(Refused::Subnet));
        assert_eq!(more(&mut entrance, ip("::ffff:192.0.2.200".into()), false), Err(Refused::Subnet));
        assert_eq!(more(&mut entrance, ip("192.0.2.200".into()), true), Ok(()), "the operator's own peer");
        assert_eq!(more(&mut entrance, ip("192.0.3.1".into()), false), Ok(()));
        entrance.leave(&id(0));
        assert_eq!(more(&mut entrance, ip("192.0.2.200".into()), false), Ok(()), "a place has become free");
        assert_eq!(entrance.knock(id(1001), ip("192.0.2.201".into()), false), Err(Refused::Subnet));
        entrance.enter(id(1), true).unwrap();
        assert_eq!(entrance.knock(id(1001), ip("192.0.2.201".into()), false), Ok(()), "a trusted peer takes no place");
        for n in 2000..2000 + 2 * MAX_PER_SUBNET {
            entrance.knock(id(n), ip("127.0.0.1".into()), false).unwrap();
        }
    }

    #[test]
    fn strangers_leave_places_for_trusted_peers() {
        let mut entrance = Entrance::default();
        let most = MAX_INCOMING as usize - RESERVED;
        for n in 0..most {
            entrance.knock(id(n), ip(format!("10.0.{n}.1")), false).unwrap();
            entrance.enter(id(n), false).unwrap();
        }
        for n in [most, most + 1] {
            entrance.knock(id(n), ip(format!("10.1.{n}.1")), false).unwrap();
        }
        assert_eq!(entrance.enter(id(most), false), Err(Refused::Full));
        assert_eq!(entrance.enter(id(most + 1), true), Ok(()));
        entrance.leave(&id(0));
        assert_eq!(entrance.enter(id(most), false), Ok(()));
    }
}

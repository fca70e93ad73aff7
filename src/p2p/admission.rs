//! What every connection passes, in either direction, whichever behaviour asked for it.
//!
//! The guard is the swarm's outermost behaviour. It holds all others, so it sees each dial with every address that they
//! have for it, Kademlia's own queries included, and drops what may not be dialled; see [`dials`]. It also
//! refuses those with whom we have nothing to do, and those for whom there is no place; see [`connection_limits`].

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, swarm};

use super::address::scope::ip;
use super::behaviour::{Behaviour, BehaviourEvent};
use super::config::P2pConfig;
use super::error::Refused;
use super::shared::Shared;

mod connection_limits;
pub(super) mod dials;
pub(super) mod inbound;
pub(super) mod memory;

use connection_limits::Entrance;
use dials::Dials;

/// The outermost behaviour.
pub(super) struct Guard {
    /// All others.
    pub parts: Behaviour,
    pub dials: Dials,
    entrance: Entrance,
    shared: Arc<Shared>,
    /// No new connections are made.
    closed: bool,
}

impl Guard {
    pub fn new(parts: Behaviour, config: &P2pConfig, shared: Arc<Shared>) -> Self {
        let dials = Dials::new(config.private_addresses, &config.own_ports, Instant::now());
        Self { parts, dials, entrance: Entrance::default(), shared, closed: false }
    }

    /// Refuses every connection from now on, those under way included; the ones that stand are not touched.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The addresses that behaviours have for a dial, as far as they may be dialled; or why there is no dial.
    fn addresses(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let operators = self.dials.is_operators(&connection);
        if let Some(peer) = peer {
            self.admits(&peer, operators)?;
        }
        self.entrance.dial(connection).map_err(ConnectionDenied::new)?;
        let told = self.parts.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        if operators {
            return Ok(Vec::new());
        }
        // Whoever the operator named is dialled where he says, by the dialer: a stranger that tells of it must not lead us
        // elsewhere, nor keep us from dialling.
        if peer.is_some_and(|peer| self.shared.book().is_configured(&peer)) {
            return Err(ConnectionDenied::new(Refused::Address));
        }
        let now = Instant::now();
        // Ours to give are filtered before: see `discovery`.
        if addresses.iter().any(|address| !self.dials.allows_now(address, now)) {
            return Err(ConnectionDenied::new(Refused::Address));
        }
        let (count, room) = (told.len(), self.dials.begin(connection));
        room.map_err(ConnectionDenied::new)?;
        let taken = self.dials.take(told, now);
        if taken.is_empty() && count > 0 && addresses.is_empty() {
            return Err(ConnectionDenied::new(Refused::Address));
        }
        Ok(taken)
    }

    /// Counts a refusal, the parts' too: of what behaviours dial by themselves, nobody else hears.
    fn counted<T>(&self, outcome: Result<T, ConnectionDenied>) -> Result<T, ConnectionDenied> {
        if let Some(why) = outcome.as_ref().err().and_then(Refused::of) {
            self.shared.counters.refuse(why);
        }
        outcome
    }

    fn admits(&self, peer: &PeerId, operators: bool) -> Result<(), ConnectionDenied> {
        if self.closed {
            return Err(ConnectionDenied::new(Refused::Full));
        }
        match self.shared.book().admits(peer, Instant::now()) {
            // The operator may dial whomever no list refuses.
            Err(Refused::Banned | Refused::Stranger) if operators => Ok(()),
            admitted => admitted.map_err(ConnectionDenied::new),
        }
    }
}

impl NetworkBehaviour for Guard {
    type ConnectionHandler = THandler<Behaviour>;
    type ToSwarm = BehaviourEvent;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let ip = ip(remote);
        let exempt = ip.is_some_and(|ip| self.shared.book().is_at_configured_address(ip));
        let place = self.entrance.knock(connection, ip, exempt).map_err(ConnectionDenied::new);
        let accepted = place.and_then(|()| self.parts.handle_pending_inbound_connection(connection, local, remote));
        if accepted.is_err() {
            self.entrance.leave(&connection);
        }
        self.counted(accepted)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let trusted = self.shared.book().is_trusted(&peer);
        let admitted = self.admits(&peer, false);
        let place =
            admitted.and_then(|()| self.entrance.enter(connection, peer, trusted).map_err(ConnectionDenied::new));
        let handler =
            place.and_then(|()| self.parts.handle_established_inbound_connection(connection, peer, local, remote));
        self.counted(handler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let addresses = self.addresses(connection, peer, addresses, role);
        self.counted(addresses)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let trusted = self.shared.book().is_trusted(&peer);
        let admitted = self.admits(&peer, self.dials.is_operators(&connection));
        let place =
            admitted.and_then(|()| self.entrance.enter(connection, peer, trusted).map_err(ConnectionDenied::new));
        let handler = place
            .and_then(|()| self.parts.handle_established_outbound_connection(connection, peer, address, role, port));
        self.counted(handler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        let now = Instant::now();
        match &event {
            FromSwarm::ConnectionEstablished(swarm::behaviour::ConnectionEstablished {
                connection_id,
                endpoint,
                ..
            }) => {
                let (remote, dialled) = match endpoint {
                    ConnectedPoint::Dialer { address, .. } => (address, true),
                    ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, false),
                };
                self.dials.established(*connection_id, remote, dialled);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.dials.ended(&closed.connection_id, now);
                self.entrance.leave(&closed.connection_id);
            }
            FromSwarm::DialFailure(failed) => {
                self.dials.ended(&failed.connection_id, now);
                self.entrance.leave(&failed.connection_id);
            }
            FromSwarm::ListenFailure(failed) => self.entrance.leave(&failed.connection_id),
            FromSwarm::NewListenAddr(new) => self.dials.listening(new.addr),
            _ => {}
        }
        self.parts.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.parts.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<BehaviourEvent, THandlerInEvent<Self>>> {
        loop {
            match self.parts.poll(context) {
                // What other behaviours are told of a peer, they dial and pass on.
                Poll::Ready(ToSwarm::NewExternalAddrOfPeer { address, .. })
                    if !self.dials.allows_now(&address, Instant::now()) => {}
                event => return event,
            }
        }
    }
}

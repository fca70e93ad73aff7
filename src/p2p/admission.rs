//! Admission control: limits on connections, dials, inbound requests and memory.
//!
//! [`Admission`] is the swarm's outermost behaviour and wraps all others, so that every connection passes it in either
//! direction. Of each dial, Kademlia's own queries included, it sees every address and drops those that may not be
//! dialled ([`dial_limits`]). It refuses peers that the peer book does not admit, and connections over a limit
//! ([`connection_limits`]).

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use super::address::scope::ip;
use super::behaviour::{Behaviour, BehaviourEvent};
use super::config::P2pConfig;
use super::error::Refusal;
use super::shared::Shared;

mod connection_limits;
pub(super) mod dial_limits;
pub(super) mod inbound;
pub(super) mod memory;

use connection_limits::ConnectionLimits;
use dial_limits::DialLimits;

/// Outermost behaviour of the swarm: admits or refuses connections and dials.
pub(super) struct Admission {
    /// All other behaviours.
    pub inner: Behaviour,
    pub dials: DialLimits,
    connections: ConnectionLimits,
    shared: Arc<Shared>,
    /// Whether every new connection is refused.
    closed: bool,
}

impl Admission {
    pub fn new(inner: Behaviour, config: &P2pConfig, shared: Arc<Shared>) -> Self {
        let dials = DialLimits::new(config.private_addresses, &config.own_ports);
        Self { inner, dials, connections: ConnectionLimits::default(), shared, closed: false }
    }

    /// Refuses every connection from now on, pending ones included; established ones stay.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Returns the addresses that the inner behaviours have for a dial and that may be dialled.
    ///
    /// # Errors
    /// The [`Refusal`] where the dial is not allowed.
    fn addresses(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let by_operator = self.dials.is_operator_dial(&connection);
        if let Some(peer) = peer {
            self.check_peer(&peer, by_operator)?;
        }
        self.connections.begin_outgoing(connection, !by_operator)?;
        let known = self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        if by_operator {
            return Ok(Vec::new());
        }
        // The dialer dials configured peers, at their configured addresses: discovered addresses of them are not
        // dialled, and don't use up attempts.
        if peer.is_some_and(|peer| self.shared.book().is_configured(&peer)) {
            return Err(Refusal::AddressNotAllowed.into());
        }
        let now = Instant::now();
        // Discovery has filtered the addresses of its dials.
        if addresses.iter().any(|address| !self.dials.allows_now(address, now)) {
            return Err(Refusal::AddressNotAllowed.into());
        }
        let count = known.len();
        let selected = self.dials.select(known, now);
        if selected.is_empty() && count > 0 && addresses.is_empty() {
            return Err(Refusal::AddressNotAllowed.into());
        }
        Ok(selected)
    }

    /// Counts a refusal. Refused dials of the inner behaviours are reported nowhere else.
    fn counted<T>(&self, outcome: Result<T, ConnectionDenied>) -> Result<T, ConnectionDenied> {
        if let Some(reason) = outcome.as_ref().err().and_then(Refusal::of) {
            self.shared.stats().count_refusal(reason);
        }
        outcome
    }

    /// Checks whether the peer book admits the peer.
    fn check_peer(&self, peer: &PeerId, by_operator: bool) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::LimitExceeded);
        }
        match self.shared.book().admits(peer, Instant::now()) {
            // The operator may dial every peer that is not on the deny-list.
            Err(Refusal::Banned | Refusal::Untrusted) if by_operator => Ok(()),
            admitted => admitted,
        }
    }

    /// Checks the peer of a connection whose handshake is done, and the limits on established connections.
    fn establish(&mut self, connection: ConnectionId, peer: PeerId, by_operator: bool) -> Result<(), Refusal> {
        self.check_peer(&peer, by_operator)?;
        let trusted = self.shared.book().is_trusted(&peer);
        self.connections.establish(connection, peer, trusted)
    }
}

impl NetworkBehaviour for Admission {
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
        let permitted = self.connections.begin_incoming(connection, ip, exempt).map_err(ConnectionDenied::from);
        let accepted = permitted.and_then(|()| self.inner.handle_pending_inbound_connection(connection, local, remote));
        if accepted.is_err() {
            self.connections.release(&connection);
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
        let permitted = self.establish(connection, peer, false).map_err(ConnectionDenied::from);
        let handler =
            permitted.and_then(|()| self.inner.handle_established_inbound_connection(connection, peer, local, remote));
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
        let by_operator = self.dials.is_operator_dial(&connection);
        let permitted = self.establish(connection, peer, by_operator).map_err(ConnectionDenied::from);
        let handler = permitted
            .and_then(|()| self.inner.handle_established_outbound_connection(connection, peer, address, role, port));
        self.counted(handler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        let now = Instant::now();
        match &event {
            FromSwarm::ConnectionEstablished(new) => {
                self.dials.established(new.connection_id, new.endpoint.get_remote_address());
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.dials.ended(&closed.connection_id, now);
                self.connections.release(&closed.connection_id);
            }
            FromSwarm::DialFailure(failed) => {
                self.dials.ended(&failed.connection_id, now);
                self.connections.release(&failed.connection_id);
            }
            FromSwarm::ListenFailure(failed) => self.connections.release(&failed.connection_id),
            FromSwarm::NewListenAddr(new) => self.dials.add_own_address(new.addr),
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<BehaviourEvent, THandlerInEvent<Self>>> {
        loop {
            match self.inner.poll(context) {
                // The inner behaviours would dial these addresses and pass them on.
                Poll::Ready(ToSwarm::NewExternalAddrOfPeer { address, .. })
                    if !self.dials.allows_now(&address, Instant::now()) => {}
                event => return event,
            }
        }
    }
}

//! Keeps chosen connections open although nothing is sent on them.
//!
//! libp2p closes a connection that carried no stream for the swarm's idle timeout. That is right for strangers; the
//! connections to the operator's own peers stay, so that a request does not start with a dial.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

/// A behaviour that speaks no protocol and holds the connections it is told to hold.
#[derive(Default)]
pub struct KeepAlive {
    /// Emptied whenever the swarm polls; grows by one per connection established to a configured peer.
    pending: VecDeque<(PeerId, ConnectionId)>,
}

impl KeepAlive {
    /// Keeps this connection until either side closes it.
    pub fn hold(&mut self, peer: PeerId, connection: ConnectionId) {
        self.pending.push_back((peer, connection));
    }
}

impl NetworkBehaviour for KeepAlive {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { hold: false })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { hold: false })
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.pending.pop_front() {
            Some((peer_id, connection)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event: Hold })
            }
            None => Poll::Pending,
        }
    }
}

/// Told to a [`Handler`]: hold your connection.
#[derive(Debug)]
pub struct Hold;

/// The part of [`KeepAlive`] that lives with one connection.
pub struct Handler {
    hold: bool,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Hold;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.hold
    }

    fn on_behaviour_event(&mut self, Hold: Hold) {
        self.hold = true;
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {}
}

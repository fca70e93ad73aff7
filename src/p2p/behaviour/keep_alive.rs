//! Behaviour that exempts chosen connections from the idle timeout.
//!
//! libp2p closes a connection that carried no stream for the swarm's idle timeout. Connections to configured and to
//! discovered useful peers stay open, so that a request does not start with a dial.

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

/// Behaviour without a protocol that keeps chosen connections open.
#[derive(Default)]
pub struct KeepAlive {
    /// Connections to hold, emptied whenever the swarm polls; at most one entry per connection.
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

/// Message to a [`Handler`] to hold its connection.
#[derive(Debug)]
pub struct Hold;

/// Connection handler of [`KeepAlive`].
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;
    use libp2p::swarm::SwarmEvent;
    use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};

    use super::*;

    fn swarm(idle: Duration) -> Swarm<KeepAlive> {
        SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| KeepAlive::default())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(idle))
            .build()
    }

    /// A swarm that would keep its connections, and where it listens.
    async fn patient() -> Multiaddr {
        let mut swarm = swarm(Duration::from_secs(60));
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await else { panic!("it listens") };
        tokio::spawn(swarm.collect::<Vec<_>>());
        address
    }

    #[tokio::test]
    async fn only_a_held_connection_outlives_the_idle_timeout() {
        let (held, other) = (patient().await, patient().await);
        let mut swarm = swarm(Duration::from_millis(100));
        let mut connect = async |address: Multiaddr, hold: bool| {
            swarm.dial(address).unwrap();
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                        if hold {
                            swarm.behaviour_mut().hold(peer_id, connection_id);
                        }
                        break peer_id;
                    }
                    SwarmEvent::Dialing { .. } => {}
                    event => panic!("{event:?}"),
                }
            }
        };
        let held = connect(held, true).await;
        let other = connect(other, false).await;
        // The held connection is the older one: were it idle, it would be closed first.
        let SwarmEvent::ConnectionClosed { peer_id, .. } = swarm.select_next_some().await else { panic!("one closes") };
        assert_eq!(peer_id, other);
        assert!(swarm.is_connected(&held));
    }
}

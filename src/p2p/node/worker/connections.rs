//! Connections in the worker: listeners, dials, and events of connections and behaviours.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use libp2p::core::transport::TransportError;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, gossipsub, identify, kad, ping};
use tokio::sync::oneshot;

use super::{CloseReason, NEVER, Worker};
use crate::p2p::address::scope::ip;
use crate::p2p::address::{PeerAddress, is_dialable, peer_id};
use crate::p2p::admission::Admission;
use crate::p2p::admission::dial_limits::MAX_ADDRESSES;
use crate::p2p::behaviour::{BackgroundEvent, BehaviourEvent};
use crate::p2p::error::P2pError;
use crate::p2p::node::dialer::{DialProblem, dial_address_now, dial_error_text};
use crate::p2p::transport::check_free;

/// Dials that commands wait for.
const MAX_DIAL_COMMANDS: usize = 32;
/// Timeout of binding an address.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

impl Worker {
    /// Binds all addresses.
    ///
    /// # Errors
    /// [`P2pError::Listen`] with the address that can't be bound.
    pub async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), P2pError> {
        let failed = |address: &Multiaddr, reason: String| P2pError::Listen { address: address.clone(), reason };
        for address in addresses {
            check_free(address).map_err(|error| failed(address, error.to_string()))?;
        }
        let mut waiting = HashMap::new();
        for address in addresses {
            let listener = self.swarm.listen_on(address.clone()).map_err(|error| match error {
                TransportError::MultiaddrNotSupported(_) => failed(address, "no such transport".into()),
                TransportError::Other(error) => failed(address, error.to_string()),
            })?;
            waiting.insert(listener, address);
        }
        let timeout = tokio::time::sleep(LISTEN_TIMEOUT);
        tokio::pin!(timeout);
        while let Some(address) = waiting.values().next() {
            let event = tokio::select! {
                event = self.swarm.select_next_some() => event,
                () = &mut timeout => return Err(failed(address, "no interface came up".into())),
            };
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => _ = waiting.remove(listener_id),
                SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } => {
                    if let Some(address) = waiting.get(listener_id) {
                        return Err(failed(address, error.to_string()));
                    }
                }
                _ => {}
            }
            self.on_event(event);
        }
        // `0.0.0.0` reports one address per interface; the others are ready by now.
        while let Some(Some(event)) = self.swarm.next().now_or_never() {
            self.on_event(event);
        }
        Ok(())
    }

    /// Dials all due targets and sets the timer for the next one.
    pub fn dial_due(&mut self) {
        let now = Instant::now();
        while let Some(options) = self.dialer.take_due(now) {
            let connection = options.connection_id();
            if let Err(error) = self.dial_for_operator(options) {
                self.dial_failed(connection, None, &error);
            }
        }
        self.schedule_redial();
    }

    fn schedule_redial(&mut self) {
        let next = self.dialer.next().unwrap_or_else(|| Instant::now() + NEVER);
        self.redial_timer.as_mut().reset(next.into());
    }

    /// Handles a client's dial command.
    pub fn dial(&mut self, address: Multiaddr, reply: oneshot::Sender<Result<PeerId, P2pError>>) {
        let result = match peer_id(&address) {
            Some(peer) if self.swarm.is_connected(&peer) => {
                self.shared.book_mut().record_dialled(peer, &address);
                Some(Ok(peer))
            }
            _ if !is_dialable(&address) => Some(Err(P2pError::Unreachable("no transport for this address".into()))),
            _ if self.dial_commands.len() >= MAX_DIAL_COMMANDS => Some(Err(P2pError::Busy)),
            _ => None,
        };
        if let Some(result) = result {
            let _ = reply.send(result);
            return;
        }
        let options = dial_address_now(address.clone());
        let connection = options.connection_id();
        self.dial_commands.insert(connection, (address, reply));
        if let Err(error) = self.dial_for_operator(options) {
            self.dial_failed(connection, None, &error);
        }
    }

    /// Starts a dial that may go to any address.
    pub fn dial_for_operator(&mut self, options: DialOpts) -> Result<(), DialError> {
        self.swarm.behaviour_mut().dials.permit(options.connection_id());
        self.swarm.dial(options)
    }

    pub fn add(&mut self, peer: &PeerAddress) -> Result<bool, P2pError> {
        let new = self.shared.book_mut().add(peer)?;
        if new {
            self.dialer.add(peer, Instant::now());
            self.dial_due();
        }
        Ok(new)
    }

    pub fn remove(&mut self, name: &str) -> Result<Option<PeerId>, P2pError> {
        let (peer, indexes) = self.shared.book_mut().remove(name).ok_or(P2pError::UnknownPeer)?;
        for index in indexes {
            self.dialer.remove(index);
        }
        if let Some(peer) = peer {
            self.close_when_idle(peer, CloseReason::Removed);
        }
        self.schedule_redial();
        Ok(peer)
    }

    fn dial_failed(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        tracing::debug!(?peer, %error, "a dial failed");
        if let Some((address, reply)) = self.dial_commands.remove(&connection) {
            // Another connection may have been made meanwhile, in either direction.
            let connected = peer_id(&address).filter(|peer| self.swarm.is_connected(peer));
            if let Some(peer) = connected {
                self.shared.book_mut().record_dialled(peer, &address);
            }
            let _ = reply.send(connected.ok_or_else(|| P2pError::Unreachable(dial_error_text(error))));
        }
        if let Some(peer) = peer
            && !self.swarm.is_connected(&peer)
        {
            self.shared.book_mut().record_dial_failure(&peer, dial_error_text(error));
        }
        match self.dialer.failed(connection, error, Instant::now()) {
            Some(DialProblem::OwnAddress(address)) => {
                tracing::warn!(%address, "a configured peer is this node itself: it is ignored");
            }
            Some(DialProblem::Unreachable(address)) => {
                let reason = dial_error_text(error);
                tracing::warn!(%address, reason, "a configured peer can't be reached; retrying");
            }
            None => {}
        }
        self.schedule_redial();
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId, count: u32, remote: Multiaddr) {
        let reached = self.dialer.established(connection, peer, Instant::now());
        {
            let mut book = self.shared.book_mut();
            book.connected(peer, count, remote);
            for index in reached {
                book.assign_id(index, peer);
            }
        }
        if let Some((address, reply)) = self.dial_commands.remove(&connection) {
            self.shared.book_mut().record_dialled(peer, &address);
            let _ = reply.send(Ok(peer));
        }
        let book = self.shared.book();
        if book.is_configured(&peer) {
            tracing::info!(%peer, "connected with a configured peer");
            let Admission { inner: behaviour, dials, .. } = self.swarm.behaviour_mut();
            behaviour.keep_alive.hold(peer, connection);
            for address in book.addresses(&peer).unwrap_or_default() {
                // Kademlia gives its addresses to any peer. A bare id is enough to query the peer while it is
                // connected.
                let advertised = if dials.may_advertise(address) { address.clone() } else { Multiaddr::empty() };
                behaviour.background.kad.add_address(&peer, advertised);
            }
        }
        drop(book);
        self.schedule_redial();
        self.notify_change();
    }

    pub fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let listen = &self.shared.listen;
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                tracing::debug!(peer = %peer_id, outbound = endpoint.is_dialer(), "connected");
                self.shared.stats().count_connection(endpoint.is_dialer());
                if endpoint.is_dialer() {
                    self.discovery.connected(peer_id, connection_id);
                }
                let remote = endpoint.get_remote_address().clone();
                self.connected(peer_id, connection_id, num_established.get(), remote);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "disconnected");
                self.shared.book_mut().disconnected(&peer_id, num_established);
                if num_established == 0 {
                    self.closing.remove(&peer_id);
                    self.discovery.disconnected(&peer_id);
                    self.dialer.disconnected(peer_id, Instant::now());
                    self.schedule_redial();
                }
                self.notify_change();
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.dial_failed(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "a connection was not accepted");
            }
            SwarmEvent::NewListenAddr { address, .. } => listen.send_modify(|addresses| addresses.push(address)),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                listen.send_modify(|addresses| addresses.retain(|known| *known != address));
            }
            SwarmEvent::ListenerClosed { addresses: closed, reason, .. } => {
                if let Err(error) = reason {
                    tracing::error!(%error, addresses = ?closed, "a listener failed");
                }
                listen.send_modify(|addresses| addresses.retain(|known| !closed.contains(known)));
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener reports an error"),
            _ => {}
        }
    }

    pub fn on_background_event(&mut self, event: BackgroundEvent) {
        match event {
            BackgroundEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.identified(peer_id, info)
            }
            BackgroundEvent::Mdns(event) => self.on_mdns_event(event),
            BackgroundEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                self.on_gossip(propagation_source, message_id, message);
            }
            BackgroundEvent::Kad(kad::Event::RoutingUpdated { peer, .. }) => self.remove_unadvertised(peer),
            BackgroundEvent::Ping(ping::Event { peer, result: Ok(time), .. }) => {
                self.shared.book_mut().record_ping(&peer, time)
            }
            _ => {}
        }
    }

    fn identified(&mut self, peer: PeerId, info: identify::Info) {
        self.shared.book_mut().record_identify(peer, &info.agent_version, &info.protocols);
        if info.protocols.contains(&kad::PROTOCOL_NAME) {
            // A loopback address that a peer on another machine announces would lead to this machine.
            let local = self.shared.book().remote(&peer).and_then(ip).is_some_and(|ip| ip.is_loopback());
            let dials = &self.swarm.behaviour().dials;
            let announced =
                info.listen_addrs.into_iter().filter(|address| dials.allows(address, local)).take(MAX_ADDRESSES);
            let announced: Vec<_> = announced.filter_map(|address| address.with_p2p(peer).ok()).collect();
            self.set_kad_addresses(peer, announced);
        }
        // The limit on requests in flight depends on the peer's protocols.
        self.send_queued(peer);
        self.notify_change();
    }

    fn notify_change(&self) {
        self.shared.changes.send_replace(());
    }
}

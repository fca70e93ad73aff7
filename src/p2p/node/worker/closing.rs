//! Connections that this node closes: none while an answer is on its way to it.
//!
//! A node of the network may go deaf for good when the connection of a request in its queue closes. Who is to be
//! disconnected is sent nothing new, and goes when nothing is in flight to it, or when its time is over.

use std::time::Instant;

use libp2p::PeerId;

use super::{Parting, Why, Worker};
use crate::p2p::error::Refused;
use crate::telemetry::resident_bytes;

impl Worker {
    /// Disconnects a peer as soon as nothing is in flight to it. False if it is not connected, or about to go already.
    pub(super) fn part(&mut self, peer: PeerId, why: Why) -> bool {
        if !self.swarm.is_connected(&peer) || self.parting.contains_key(&peer) {
            return false;
        }
        self.drop_waiting(&peer);
        if self.outbound.in_flight_to(&peer) == 0 {
            // It may be gone by itself.
            return self.swarm.disconnect_peer_id(peer).is_ok();
        }
        let until = Instant::now() + self.closing_timeout;
        tracing::debug!(%peer, ?why, "it is disconnected once it has answered");
        self.parting.insert(peer, Parting { why, until });
        self.wake_at(until);
        true
    }

    /// Whether the peer is about to be disconnected, so that nothing is sent to it.
    pub fn is_parting(&mut self, peer: &PeerId) -> bool {
        let Some(Parting { why, .. }) = self.parting.get(peer) else { return false };
        let stands = self.is_cause(peer, *why);
        if !stands {
            self.parting.remove(peer);
        }
        stands
    }

    /// Whether the cause still holds: the operator may have changed his mind.
    fn is_cause(&self, peer: &PeerId, why: Why) -> bool {
        let book = self.shared.book();
        match why {
            Why::Removed => !book.is_configured(peer),
            Why::NotAdmitted => book.admits(peer, Instant::now()).is_err(),
            Why::Memory => !book.is_trusted(peer),
        }
    }

    /// Disconnects the peer if it is about to go and nothing is in flight to it.
    pub fn part_if_done(&mut self, peer: &PeerId) {
        if self.parting.contains_key(peer) && self.outbound.in_flight_to(peer) == 0 && self.is_parting(peer) {
            self.parting.remove(peer);
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
    }

    /// Disconnects those whose time is over.
    pub fn part_overdue(&mut self, now: Instant) {
        let overdue: Vec<_> =
            self.parting.iter().filter(|(_, parting)| parting.until <= now).map(|(peer, _)| *peer).collect();
        for peer in overdue {
            if self.is_parting(&peer) {
                self.parting.remove(&peer);
                tracing::debug!(%peer, "it is disconnected with requests in flight");
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        if let Some(next) = self.parting.values().map(|parting| parting.until).min() {
            self.wake_at(next);
        }
    }

    /// Disconnects who is no longer admitted, once it has answered.
    pub fn enforce(&mut self) {
        let intruders = self.shared.book().intruders(Instant::now());
        for peer in intruders {
            if self.part(peer, Why::NotAdmitted) {
                tracing::debug!(%peer, "a peer that is no longer admitted is disconnected");
            }
        }
    }

    /// Disconnects strangers as long as this process has more than it may: what their connections hold is theirs to fill.
    /// Those that owe an answer go once it is there.
    pub fn relieve(&mut self) {
        if resident_bytes().is_none_or(|bytes| bytes <= self.memory_limit as u64) {
            self.relieved_of.clear();
            return;
        }
        let strangers = self.shared.book().strangers();
        let before = self.relieved_of.len();
        for peer in strangers {
            // It may be gone by itself, or about to: a close takes seconds where the other end does not read.
            if self.part(peer, Why::Memory) && self.relieved_of.insert(peer) {
                self.shared.counters.refuse(Refused::Memory);
            }
        }
        let strangers = self.relieved_of.len() - before;
        if strangers > 0 {
            tracing::warn!(strangers, "too little memory: strangers are disconnected");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use futures::StreamExt;
    use libp2p::{PeerId, identity::Keypair};
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::p2p::error::P2pError;
    use crate::p2p::node::outbound::Reply;
    use crate::p2p::node::queue::OnBehalf;
    use crate::p2p::node::worker::Responder;
    use crate::p2p::node::worker::discovery::tests::Mute;
    use crate::p2p::{self, P2pConfig, node::build};
    use crate::protocol::codec::Request;

    fn config() -> P2pConfig {
        let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        P2pConfig { listen, target_peers: 0, ..P2pConfig::new(Keypair::generate_ed25519()) }
    }

    /// Lets the swarm work until this holds.
    async fn drive(worker: &mut Worker, holds: impl Fn(&Worker) -> bool) {
        let working = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while !holds(worker) {
                tokio::select! {
                    event = worker.swarm.select_next_some() => worker.on_event(event),
                    // What holds may be told by another node.
                    _ = ticks.tick() => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), working).await.expect("it comes to hold in time");
    }

    #[tokio::test]
    async fn strangers_go_when_there_is_too_little_memory_and_trusted_peers_stay() {
        let stop = CancellationToken::new();
        let start = async || p2p::start(config(), Arc::new(Mute), stop.clone()).await.unwrap().0;
        let (friend, stranger) = (start().await, start().await);
        let mut config = config();
        config.trust.allow = [friend.local_peer_id()].into();
        let (client, mut worker) = build(config, Arc::new(Mute)).unwrap();
        for node in [&friend, &stranger] {
            worker.swarm.dial(node.dial_addresses()[0].clone()).unwrap();
        }
        let ids = [friend.local_peer_id(), stranger.local_peer_id()];
        drive(&mut worker, |worker| ids.iter().all(|id| worker.swarm.is_connected(id))).await;
        worker.relieve();
        assert!(ids.iter().all(|id| worker.swarm.is_connected(id)), "there is enough");
        worker.memory_limit = 1;
        worker.relieve();
        drive(&mut worker, |worker| !worker.swarm.is_connected(&ids[1])).await;
        worker.relieve();
        assert!(worker.swarm.is_connected(&ids[0]));
        assert!(client.door().refused.contains(&("memory", 1)), "{:?}", client.door().refused);
        stop.cancel();
    }

    /// Answers with the request, once it may.
    struct Late(Arc<Semaphore>);

    #[async_trait::async_trait]
    impl Responder for Late {
        async fn respond(&self, _: PeerId, request: Bytes) -> Bytes {
            self.0.acquire().await.unwrap().forget();
            request
        }
    }

    #[tokio::test]
    async fn a_stranger_that_owes_an_answer_goes_once_it_is_there() {
        let (gate, stop) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let (stranger, _) = p2p::start(config(), Arc::new(Late(gate.clone())), stop.clone()).await.unwrap();
        let (client, mut worker) = build(config(), Arc::new(Mute)).unwrap();
        let (id, deadline) = (stranger.local_peer_id(), Instant::now() + Duration::from_secs(20));
        worker.swarm.dial(stranger.dial_addresses()[0].clone()).unwrap();
        drive(&mut worker, |worker| worker.swarm.is_connected(&id)).await;
        let (reply, awaited) = Reply::new();
        worker.ask(id, OnBehalf::Own, Request::until(deadline, "1".into()), reply);
        drive(&mut worker, |_| stranger.inbound().requests == 1).await;
        worker.memory_limit = 1;
        worker.relieve();
        worker.relieve();
        let (reply, refused) = Reply::new();
        worker.ask(id, OnBehalf::Own, Request::until(deadline, "2".into()), reply);
        assert!(matches!(refused.until(deadline).await, Err(P2pError::Unreachable(_))), "nothing new is sent to it");
        assert!(worker.swarm.is_connected(&id) && worker.is_parting(&id));
        gate.add_permits(1);
        drive(&mut worker, |worker| !worker.swarm.is_connected(&id)).await;
        assert_eq!(awaited.until(deadline).await.unwrap().body, "1");
        assert_eq!(stranger.inbound().requests, 1);
        assert!(client.door().refused.contains(&("memory", 1)), "{:?}", client.door().refused);
        stop.cancel();
    }
}

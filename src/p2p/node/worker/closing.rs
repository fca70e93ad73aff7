//! Closing of connections by this node.
//!
//! A node of the network may stop responding for good when the connection of a request in its queue closes. So a peer
//! that is to be disconnected is sent nothing new, and its connections close when nothing is in flight to it, or after
//! a timeout.

use std::time::Instant;

use libp2p::PeerId;

use super::{CloseReason, Closing, Worker};
use crate::p2p::admission::memory;
use crate::p2p::error::Refusal;
use crate::telemetry::resident_bytes;

impl Worker {
    /// Disconnects a peer as soon as nothing is in flight to it. Returns false if it is not connected, or closing
    /// already.
    pub(super) fn close_when_idle(&mut self, peer: PeerId, reason: CloseReason) -> bool {
        if !self.swarm.is_connected(&peer) || self.closing.contains_key(&peer) {
            return false;
        }
        self.drop_queued(&peer);
        if self.outbound.in_flight_to(&peer) == 0 {
            return self.swarm.disconnect_peer_id(peer).is_ok();
        }
        let until = Instant::now() + self.closing_timeout;
        tracing::debug!(%peer, ?reason, "a peer is disconnected once nothing is in flight to it");
        self.closing.insert(peer, Closing { reason, until });
        self.wake_at(until);
        true
    }

    /// Whether the peer is closing, so that nothing may be sent to it.
    pub fn is_closing(&mut self, peer: &PeerId) -> bool {
        let Some(Closing { reason, .. }) = self.closing.get(peer) else { return false };
        let holds = self.still_holds(peer, *reason);
        if !holds {
            self.closing.remove(peer);
        }
        holds
    }

    /// Whether the reason still holds: the operator may have reverted it.
    fn still_holds(&self, peer: &PeerId, reason: CloseReason) -> bool {
        let book = self.shared.book();
        match reason {
            CloseReason::Removed => !book.is_configured(peer),
            CloseReason::NotAdmitted => book.admits(peer, Instant::now()).is_err(),
            CloseReason::Memory => !book.is_trusted(peer),
        }
    }

    /// Disconnects a closing peer if nothing is in flight to it.
    pub fn close_if_idle(&mut self, peer: &PeerId) {
        if self.closing.contains_key(peer) && self.outbound.in_flight_to(peer) == 0 && self.is_closing(peer) {
            self.closing.remove(peer);
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
    }

    /// Disconnects closing peers whose timeout has passed.
    pub fn close_overdue(&mut self, now: Instant) {
        let overdue: Vec<_> =
            self.closing.iter().filter(|(_, closing)| closing.until <= now).map(|(peer, _)| *peer).collect();
        for peer in overdue {
            if self.is_closing(&peer) {
                self.closing.remove(&peer);
                tracing::debug!(%peer, "a peer is disconnected with requests in flight");
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        if let Some(next) = self.closing.values().map(|closing| closing.until).min() {
            self.wake_at(next);
        }
    }

    /// Disconnects peers that are no longer admitted.
    pub fn enforce_admission(&mut self) {
        let not_admitted = self.shared.book().not_admitted(Instant::now());
        for peer in not_admitted {
            if self.close_when_idle(peer, CloseReason::NotAdmitted) {
                tracing::debug!(%peer, "a peer that is no longer admitted is disconnected");
            }
        }
    }

    /// Disconnects untrusted peers while the process is over its memory limit, a share of them at a time.
    pub fn shed_untrusted(&mut self) {
        if !self.memory.is_shedding_due(resident_bytes(), Instant::now()) {
            return;
        }
        // A close takes seconds where the peer does not read: such peers were shed before.
        self.shed.retain(|peer| self.swarm.is_connected(peer));
        let mut untrusted = self.shared.book().untrusted();
        untrusted.retain(|peer| !self.shed.contains(peer));
        untrusted.truncate(memory::shed_count(untrusted.len()));
        let mut peers = 0;
        for peer in untrusted {
            if self.close_when_idle(peer, CloseReason::Memory) {
                self.shed.insert(peer);
                self.shared.stats().count_refusal(Refusal::MemoryLimitExceeded);
                peers += 1;
            }
        }
        if peers > 0 {
            tracing::warn!(peers, "memory limit exceeded: untrusted peers are disconnected");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use futures::StreamExt;
    use tokio::sync::{Semaphore, oneshot};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::p2p::admission::memory::MemoryPressure;
    use crate::p2p::error::P2pError;
    use crate::p2p::node::queue::Origin;
    use crate::p2p::node::worker::test::{PATIENCE, Silent, listening};
    use crate::p2p::node::worker::{Accepted, Responder};
    use crate::p2p::{self, P2pConfig, node::build};
    use crate::protocol::codec::WireRequest;

    fn config() -> P2pConfig {
        P2pConfig { target_peers: 0, ..listening() }
    }

    /// Lets the swarm work until this holds.
    async fn drive(worker: &mut Worker, holds: impl Fn(&Worker) -> bool) {
        let working = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while !holds(worker) {
                tokio::select! {
                    event = worker.swarm.select_next_some() => worker.on_event(event),
                    // The condition may depend on another node.
                    _ = ticks.tick() => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, working).await.expect("it comes to hold in time");
    }

    #[tokio::test]
    async fn untrusted_peers_are_disconnected_over_the_memory_limit_and_trusted_ones_stay() {
        let stop = CancellationToken::new();
        let start = async || p2p::start(config(), Arc::new(Silent), stop.clone()).await.unwrap().0;
        let (trusted, untrusted) = (start().await, start().await);
        let mut config = config();
        config.trust.allow = [trusted.local_peer_id()].into();
        let (client, mut worker) = build(&config, Arc::new(Silent)).unwrap();
        for node in [&trusted, &untrusted] {
            worker.swarm.dial(node.dial_addresses()[0].clone()).unwrap();
        }
        let ids = [trusted.local_peer_id(), untrusted.local_peer_id()];
        drive(&mut worker, |worker| ids.iter().all(|id| worker.swarm.is_connected(id))).await;
        worker.shed_untrusted();
        assert!(ids.iter().all(|id| worker.swarm.is_connected(id)), "below the limit");
        worker.memory = MemoryPressure::new(1);
        worker.shed_untrusted();
        drive(&mut worker, |worker| !worker.swarm.is_connected(&ids[1])).await;
        worker.shed_untrusted();
        assert!(worker.swarm.is_connected(&ids[0]));
        assert!(client.endpoint_stats().refused.contains(&("memory", 1)), "{:?}", client.endpoint_stats().refused);
        stop.cancel();
    }

    /// Answers with the request, after a permit.
    struct Late(Arc<Semaphore>);

    impl Responder for Late {
        fn accept(self: Arc<Self>, request: Bytes) -> Accepted {
            Accepted::short(async move {
                self.0.acquire().await.unwrap().forget();
                request
            })
        }
    }

    #[tokio::test]
    async fn an_untrusted_peer_is_disconnected_once_it_has_answered() {
        let (gate, stop) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let (untrusted, _) = p2p::start(config(), Arc::new(Late(gate.clone())), stop.clone()).await.unwrap();
        let (client, mut worker) = build(&config(), Arc::new(Silent)).unwrap();
        let (id, deadline) = (untrusted.local_peer_id(), Instant::now() + PATIENCE);
        worker.swarm.dial(untrusted.dial_addresses()[0].clone()).unwrap();
        drive(&mut worker, |worker| worker.swarm.is_connected(&id)).await;
        let (reply, answer) = oneshot::channel();
        worker.send_or_queue(id, Origin::Own, WireRequest::with_deadline(deadline, "1".into()), reply);
        drive(&mut worker, |_| untrusted.inbound_stats().requests == 1).await;
        worker.memory = MemoryPressure::new(1);
        worker.shed_untrusted();
        worker.shed_untrusted();
        let (reply, refused) = oneshot::channel();
        worker.send_or_queue(id, Origin::Own, WireRequest::with_deadline(deadline, "2".into()), reply);
        assert!(matches!(refused.await.unwrap(), Err(P2pError::Unreachable(_))), "nothing new is sent to it");
        assert!(worker.swarm.is_connected(&id) && worker.is_closing(&id));
        gate.add_permits(1);
        drive(&mut worker, |worker| !worker.swarm.is_connected(&id)).await;
        assert_eq!(answer.await.unwrap().unwrap().body, "1");
        assert_eq!(untrusted.inbound_stats().requests, 1);
        assert!(client.endpoint_stats().refused.contains(&("memory", 1)), "{:?}", client.endpoint_stats().refused);
        stop.cancel();
    }
}

//! Wrapper that polls a behaviour, and its connection handlers, only when they have something to do.
//!
//! libp2p polls every behaviour at each event of the swarm, and every handler of a connection at each event of that
//! connection: identify, ping, Kademlia and gossip would be polled several times for each request that passes. Here
//! each has a waker of its own, and is polled once it was woken, received an event, or had more to report.
//!
//! Some of them rely on being polled anyway. Gossip starts its heartbeat's timer again, and ping the read of the next
//! ping, and both report `Pending` without a poll of what they started, so that it wakes nobody. So each is polled as
//! well when the last poll was [`MOST_BETWEEN_POLLS`] ago, as soon as anything else polls the swarm or the connection.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

/// Time after which the next poll is passed on in any case. Short beside a heartbeat of gossip (1 s), long beside a
/// request.
const MOST_BETWEEN_POLLS: Duration = Duration::from_millis(100);

/// A behaviour or connection handler that is polled only when it is due.
pub struct WhenWoken<T> {
    inner: T,
    wakeup: Arc<Wakeup>,
    polled_at: Instant,
    /// Waker that is given to `inner`.
    waker: Waker,
}

/// Waker that remembers that it was used.
struct Wakeup {
    due: AtomicBool,
    /// Task that polls the wrapper.
    task: AtomicWaker,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<T> WhenWoken<T> {
    pub fn new(inner: T) -> Self {
        let wakeup = Arc::new(Wakeup { due: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { inner, waker: Arc::clone(&wakeup).into(), wakeup, polled_at: Instant::now() }
    }

    fn poll_due<R>(
        &mut self,
        context: &Context<'_>,
        poll: impl FnOnce(&mut T, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        // Before the flag is read: a wake-up in between reaches the task.
        self.wakeup.task.register(context.waker());
        let (due, now) = (self.wakeup.due.swap(false, Ordering::Acquire), Instant::now());
        if !due && now.duration_since(self.polled_at) < MOST_BETWEEN_POLLS {
            return Poll::Pending;
        }
        self.polled_at = now;
        let result = poll(&mut self.inner, &mut Context::from_waker(&self.waker));
        if result.is_ready() {
            // There may be more.
            self.wakeup.due.store(true, Ordering::Release);
        }
        result
    }
}

impl<T> Deref for WhenWoken<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

/// What is changed is polled: behaviours and handlers need not wake anyone for a change from outside.
impl<T> DerefMut for WhenWoken<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.wakeup.due.store(true, Ordering::Release);
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for WhenWoken<B> {
    type ConnectionHandler = WhenWoken<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        (**self).handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        (**self).handle_established_inbound_connection(connection, peer, local, remote).map(WhenWoken::new)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        (**self).handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handler = (**self).handle_established_outbound_connection(connection, peer, address, role, port);
        handler.map(WhenWoken::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        (**self).on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        (**self).on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<B::ToSwarm, THandlerInEvent<Self>>> {
        self.poll_due(context, B::poll)
    }
}

impl<H: ConnectionHandler> ConnectionHandler for WhenWoken<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<H::InboundProtocol, H::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<H::OutboundProtocol, H::OutboundOpenInfo, H::ToBehaviour>> {
        self.poll_due(context, H::poll)
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Option<H::ToBehaviour>> {
        self.inner.poll_close(context)
    }

    fn on_behaviour_event(&mut self, event: H::FromBehaviour) {
        (**self).on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<H::InboundProtocol, H::OutboundProtocol, H::InboundOpenInfo, H::OutboundOpenInfo>,
    ) {
        (**self).on_connection_event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Polled {
        times: usize,
        waker: Option<Waker>,
    }

    /// Polls, and returns how often the inner one was polled so far.
    fn poll(wrapper: &mut WhenWoken<Polled>, task: &Arc<Wakeup>, result: Poll<()>) -> usize {
        let waker = Waker::from(Arc::clone(task));
        let polled = wrapper.poll_due(&Context::from_waker(&waker), |inner, context| {
            inner.times += 1;
            inner.waker = Some(context.waker().clone());
            result
        });
        assert!(polled.is_pending() || result.is_ready());
        wrapper.times
    }

    #[test]
    fn it_is_polled_when_it_was_woken_or_changed_or_has_more_or_some_time_has_passed() {
        let task = Arc::new(Wakeup { due: AtomicBool::new(false), task: AtomicWaker::new() });
        let mut wrapper = WhenWoken::new(Polled::default());
        assert_eq!(poll(&mut wrapper, &task, Poll::Pending), 1, "at first");
        assert_eq!(poll(&mut wrapper, &task, Poll::Pending), 1);

        wrapper.inner.waker.take().unwrap().wake();
        assert!(task.due.load(Ordering::Relaxed), "the task is woken");
        assert_eq!(poll(&mut wrapper, &task, Poll::Ready(())), 2, "woken");
        assert_eq!(poll(&mut wrapper, &task, Poll::Pending), 3, "there may be more");
        assert_eq!(poll(&mut wrapper, &task, Poll::Pending), 3);

        let _: &mut Polled = &mut wrapper;
        assert_eq!(poll(&mut wrapper, &task, Poll::Pending), 4, "changed");

        wrapper.polled_at -= MOST_BETWEEN_POLLS;
        assert_eq!(poll(&mut wrapper, &task, Poll::Pending), 5, "some time has passed");
        assert_eq!(poll(&mut wrapper, &task, Poll::Pending), 5);
    }
}

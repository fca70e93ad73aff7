//! How many connections there may be, in all and of one client, and which one makes room.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::state::{Limits, Order, Pulse};
use crate::http::{
    counters::{Connections, Ending},
    limits::{
        Share, Shares,
        client::{ClientKey, Proxies},
    },
};

/// The connections of a listener.
pub(super) struct Admission {
    most: usize,
    clients: Option<Arc<Shares>>,
    proxies: Proxies,
    open: Mutex<Open>,
    counters: Arc<Connections>,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Arc<Pulse>>,
    number: u64,
}

/// A connection's place, free again once this is dropped.
pub(super) struct Ticket {
    pub(super) pulse: Arc<Pulse>,
    number: u64,
    admission: Arc<Admission>,
    _share: Option<Share>,
}

impl Admission {
    pub(super) fn new(limits: &Limits, proxies: Proxies, counters: Arc<Connections>) -> Arc<Self> {
        let clients = (limits.client_connections > 0).then(|| Shares::new(limits.client_connections));
        Arc::new(Self { most: limits.connections.max(1), clients, proxies, open: Mutex::default(), counters })
    }

    /// A place for a connection from `remote`, if there is one or can be made one.
    pub(super) fn admit(self: &Arc<Self>, remote: IpAddr, pulse: Arc<Pulse>) -> Option<Ticket> {
        let remote = remote.to_canonical();
        let share = match &self.clients {
            Some(clients) if !(remote.is_loopback() || self.proxies.trust(remote)) => {
                let share = clients.take(ClientKey::of(remote), 1);
                if share.is_none() {
                    self.counters.count(Ending::ClientCap);
                }
                Some(share?)
            }
            _ => None,
        };
        let mut open = self.lock();
        if open.connections.len() >= self.most && !open.close_longest_waiting() {
            self.counters.count(Ending::Full);
            return None;
        }
        open.number += 1;
        let number = open.number;
        open.connections.insert(number, pulse.clone());
        self.counters.set_open(open.connections.len());
        drop(open);
        Some(Ticket { pulse, number, admission: self.clone(), _share: share })
    }

    /// Closes one connection that waits for a request.
    pub(super) fn make_room(&self) {
        self.lock().close_longest_waiting();
    }

    /// Tells all connections.
    pub(super) fn tell_all(&self, order: Order) {
        self.lock().connections.values().for_each(|pulse| pulse.tell(order));
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Closes the connection that has waited longest for a request: who holds many for nothing loses them first, and a
    /// client in good faith just connects again. False if all are at work.
    fn close_longest_waiting(&mut self) -> bool {
        let waiting = self.connections.iter().filter_map(|(number, pulse)| Some((pulse.waiting_since()?, *number)));
        let Some((_, number)) = waiting.min() else { return false };
        if let Some(pulse) = self.connections.remove(&number) {
            pulse.tell(Order::Close);
        }
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.admission.lock();
        open.connections.remove(&self.number);
        self.admission.counters.set_open(open.connections.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_and_a_proxy_any_number() {
        let limits = Limits { client_connections: 2, ..Limits::default() };
        let counters = Arc::new(Connections::default());
        let proxies = Proxies::new(vec!["198.51.100.7/32".parse().unwrap()]);
        let admission = Admission::new(&limits, proxies, counters.clone());
        let admit = |remote: &str| admission.admit(remote.parse().unwrap(), Pulse::new(&limits));
        let mut held = vec![admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert!(admit("2001:db8::3").is_none(), "one /64 is one client");
        assert_eq!(counters.ended(Ending::ClientCap), 1);
        for exempt in ["127.0.0.1", "::ffff:127.0.0.1", "::1", "198.51.100.7"] {
            held.extend((0..3).map(|_| admit(exempt).unwrap()));
        }
        assert_eq!(counters.open(), held.len());
        held.remove(0);
        held.push(admit("2001:db8::3").unwrap());
        drop(held);
        assert_eq!((counters.open(), admission.lock().connections.len()), (0, 0));
    }
}

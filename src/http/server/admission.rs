//! Connection limits: how many connections there may be, in all and of one client, and which is evicted.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::state::{ConnectionLimits, ConnectionState, Shutdown};
use crate::http::{
    counters::{CloseReason, ConnectionCounters},
    limits::{
        ClientPermit, PerClientLimit,
        client::{AddressRules, ClientKey},
    },
};

/// Admits the connections of a listener.
pub(super) struct Admission {
    most: usize,
    per_client: Option<Arc<PerClientLimit>>,
    addresses: AddressRules,
    open: Mutex<Open>,
    counters: Arc<ConnectionCounters>,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Arc<ConnectionState>>,
    number: u64,
}

/// The permit of an open connection, given back when it is dropped.
pub(super) struct ConnectionPermit {
    pub(super) state: Arc<ConnectionState>,
    number: u64,
    admission: Arc<Admission>,
    _client: Option<ClientPermit>,
}

impl Admission {
    pub(super) fn new(
        limits: &ConnectionLimits,
        addresses: AddressRules,
        counters: Arc<ConnectionCounters>,
    ) -> Arc<Self> {
        let per_client = (limits.client_connections > 0).then(|| PerClientLimit::new(limits.client_connections));
        let most = limits.connections.max(1);
        counters.set_most(most);
        Arc::new(Self { most, per_client, addresses, open: Mutex::default(), counters })
    }

    /// A permit for a connection from `remote`; evicts another connection if there are too many.
    pub(super) fn admit(self: &Arc<Self>, remote: IpAddr, state: Arc<ConnectionState>) -> Option<ConnectionPermit> {
        let remote = remote.to_canonical();
        let client = match &self.per_client {
            Some(limit) if !self.addresses.connects_freely(remote) => {
                let permit = limit.take(ClientKey::of(remote), 1);
                if permit.is_none() {
                    self.counters.count(CloseReason::ClientCap);
                }
                Some(permit?)
            }
            _ => None,
        };
        let mut open = self.lock();
        if open.connections.len() >= self.most && !open.evict() {
            self.counters.count(CloseReason::Full);
            return None;
        }
        open.number += 1;
        let number = open.number;
        open.connections.insert(number, state.clone());
        self.counters.set_open(open.connections.len());
        drop(open);
        Some(ConnectionPermit { state, number, admission: self.clone(), _client: client })
    }

    /// Closes the connection that has waited longest for a request, if there is one.
    pub(super) fn evict(&self) {
        self.lock().evict();
    }

    /// Shuts all connections down once their requests have finished.
    pub(super) fn shut_down(&self) {
        self.lock().connections.values().for_each(|connection| connection.shut_down(Shutdown::Graceful));
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Closes the connection that has waited longest for a request; false if all have one in flight. A client that
    /// holds many idle connections loses them first; others just connect again.
    fn evict(&mut self) -> bool {
        let waiting = self.connections.iter().filter_map(|(number, state)| Some((state.waiting_since()?, *number)));
        let Some((_, number)) = waiting.min() else { return false };
        if let Some(state) = self.connections.remove(&number) {
            state.shut_down(Shutdown::Evict);
        }
        true
    }
}

impl Drop for ConnectionPermit {
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
    fn clients_have_a_limit_and_proxies_and_unlimited_clients_have_none() {
        let limits = ConnectionLimits { client_connections: 2, ..ConnectionLimits::default() };
        let counters = Arc::new(ConnectionCounters::default());
        let addresses = AddressRules {
            proxies: vec!["198.51.100.7/32".parse().unwrap()],
            unlimited: vec!["127.0.0.0/8".parse().unwrap()],
        };
        let admission = Admission::new(&limits, addresses, counters.clone());
        let admit = |remote: &str| admission.admit(remote.parse().unwrap(), ConnectionState::new(&limits));
        let mut held = vec![admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert!(admit("2001:db8::3").is_none(), "one /64 is one client");
        assert_eq!(counters.closed(CloseReason::ClientCap), 1);
        for exempt in ["127.0.0.1", "::ffff:127.0.0.1", "198.51.100.7"] {
            held.extend((0..3).map(|_| admit(exempt).unwrap()));
        }
        assert_eq!(counters.open(), held.len());
        held.remove(0);
        held.push(admit("2001:db8::3").unwrap());
        drop(held);
        assert_eq!((counters.open(), admission.lock().connections.len()), (0, 0));
    }
}

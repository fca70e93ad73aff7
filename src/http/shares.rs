//! How many of something each client holds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::client::ClientKey;

/// As much as so many clients, the clients of one [network](ClientKey::network) have together.
pub(super) const NETWORK: usize = 4;

/// Of which each client may hold so many. Who holds none takes no memory.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    clients: HashMap<ClientKey, usize>,
    networks: HashMap<ClientKey, usize>,
}

impl Shares {
    /// At most `most` for each client, and four times that for those of one network.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// At most so many for each client.
    pub fn most(&self) -> usize {
        self.most
    }

    /// `count` more for `client`, unless it or its network holds all that it may.
    pub fn take(self: &Arc<Self>, client: ClientKey, count: usize) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |holders: &HashMap<_, usize>, key, most| holders.get(&key).copied().unwrap_or(0) + count <= most;
        let network = client.network();
        if !fits(&held.clients, client, self.most)
            || network.is_some_and(|network| !fits(&held.networks, network, NETWORK * self.most))
        {
            return None;
        }
        *held.clients.entry(client).or_default() += count;
        if let Some(network) = network {
            *held.networks.entry(network).or_default() += count;
        }
        Some(Share { of: self.clone(), client, count })
    }
}

/// So many of them, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Shares>,
    client: ClientKey,
    count: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut held.clients, self.client, self.count);
        if let Some(network) = self.client.network() {
            give_back(&mut held.networks, network, self.count);
        }
    }
}

fn give_back(holders: &mut HashMap<ClientKey, usize>, key: ClientKey, count: usize) {
    if let Some(held) = holders.get_mut(&key) {
        *held -= count;
        if *held == 0 {
            holders.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ClientKey {
        ClientKey::of(text.parse().unwrap())
    }

    #[test]
    fn each_client_has_its_own() {
        let shares = Shares::new(2);
        let first = shares.take(key("2001:db8::1"), 1).unwrap();
        let _second = shares.take(key("2001:db8::2"), 1).unwrap();
        assert!(shares.take(key("2001:db8::3"), 1).is_none(), "one /64 is one client");
        assert!(shares.take(key("2001:db8:0:1::1"), 3).is_none());
        assert!(shares.take(key("2001:db8:0:1::1"), 2).is_some());
        drop(first);
        assert!(shares.take(key("2001:db8::3"), 1).is_some());
        assert_eq!(shares.held.lock().unwrap().clients.len(), 1, "who holds none is forgotten");
    }

    #[test]
    fn a_network_of_many_clients_has_that_of_four() {
        let shares = Shares::new(2);
        let nth = |n: usize| key(&format!("2001:db8:0:{n:x}::1"));
        let held: Vec<_> = (0..100).filter_map(|n| shares.take(nth(n), 1)).collect();
        assert_eq!(held.len(), 2 * NETWORK);
        assert!(shares.take(key("2001:db8:1::1"), 1).is_some(), "another network");
        assert!((0..100).all(|n| shares.take(key(&format!("192.0.2.{n}")), 1).is_some()), "IPv4");
        drop(held);
        assert!(shares.take(nth(200), 2).is_some());
        assert!(shares.held.lock().unwrap().networks.is_empty());
    }
}

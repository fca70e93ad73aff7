//! How many of something each client holds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::client::ClientKey;

/// Of which each client may hold so many. Who holds none takes no memory.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    held: Mutex<HashMap<ClientKey, usize>>,
}

impl Shares {
    /// At most `most` for each client.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// One more for `client`, unless it holds all that it may.
    pub fn take(self: &Arc<Self>, client: ClientKey) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(client).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { of: self.clone(), client })
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Shares>,
    client: ClientKey,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own() {
        let shares = Shares::new(2);
        let key = |text: &str| ClientKey::of(text.parse().unwrap());
        let first = shares.take(key("2001:db8::1")).unwrap();
        let _second = shares.take(key("2001:db8::2")).unwrap();
        assert!(shares.take(key("2001:db8::3")).is_none(), "one /64 is one client");
        assert!(shares.take(key("2001:db8:0:1::1")).is_some());
        drop(first);
        assert!(shares.take(key("2001:db8::3")).is_some());
        assert_eq!(shares.held.lock().unwrap().len(), 1, "who holds none is forgotten");
    }
}

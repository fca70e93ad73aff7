//! Fair queue of outbound requests to one peer.
//!
//! The node's own requests (sync, commands) and forwarded ones alternate, so that neither starves the other. Clients
//! take turns in round robin. Requests of one origin are sent in order.

use std::collections::{HashMap, VecDeque};

/// Queued requests of one origin.
pub(super) const MAX_PER_ORIGIN: usize = 64;
/// Queued requests of all clients.
pub(super) const MAX_OF_CLIENTS: usize = 256;

/// Origin of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// This node itself.
    Own,
    /// A client whose request this node forwards.
    Client(u64),
}

/// Queue of requests to one peer, bounded per origin and in all.
#[derive(Debug)]
pub(super) struct Queue<T> {
    own: VecDeque<T>,
    clients: HashMap<u64, VecDeque<T>>,
    /// Clients with queued requests, in the order of their turns.
    turns: VecDeque<u64>,
    of_clients: usize,
    /// Whether the latest turn was a client's.
    own_is_next: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let (own, clients, turns) = (VecDeque::new(), HashMap::new(), VecDeque::new());
        Self { own, clients, turns, of_clients: 0, own_is_next: true }
    }
}

impl<T> Queue<T> {
    /// Number of queued requests.
    pub fn len(&self) -> usize {
        self.own.len() + self.of_clients
    }

    /// Number of requests that would be sent before one that this origin adds now.
    pub fn ahead(&self, origin: Origin) -> usize {
        match origin {
            // Turns alternate.
            Origin::Own => self.own.len() + self.of_clients.min(self.own.len() + 1),
            Origin::Client(key) => {
                let mine = self.clients.get(&key).map_or(0, VecDeque::len);
                // Each other client has as many turns before, and perhaps one more.
                let others = self.clients.iter().filter(|(other, _)| **other != key);
                let clients = mine + others.map(|(_, queue)| queue.len().min(mine + 1)).sum::<usize>();
                clients + self.own.len().min(clients + 1)
            }
        }
    }

    /// Adds a request. Over the limit of all clients, it displaces the latest request of the client that has most; the
    /// displaced request is returned.
    ///
    /// # Errors
    /// The request, where the queue is full.
    pub fn push(&mut self, origin: Origin, request: T) -> Result<Option<T>, T> {
        let Origin::Client(key) = origin else {
            if self.own.len() >= MAX_PER_ORIGIN {
                return Err(request);
            }
            self.own.push_back(request);
            return Ok(None);
        };
        let mine = self.clients.get(&key).map_or(0, VecDeque::len);
        if mine >= MAX_PER_ORIGIN {
            return Err(request);
        }
        let mut displaced = None;
        if self.of_clients >= MAX_OF_CLIENTS {
            let most = self.clients.values_mut().max_by_key(|queue| queue.len());
            // At least two more: otherwise the two clients would only swap.
            let Some(queue) = most.filter(|queue| queue.len() >= mine + 2) else { return Err(request) };
            displaced = queue.pop_back();
            self.of_clients -= 1;
        }
        let queue = self.clients.entry(key).or_default();
        if queue.is_empty() {
            self.turns.push_back(key);
        }
        queue.push_back(request);
        self.of_clients += 1;
        Ok(displaced)
    }

    /// Takes the next request; with `own_only` the next of the node's own.
    pub fn pop(&mut self, own_only: bool) -> Option<T> {
        if own_only || self.own_is_next || self.of_clients == 0 {
            let own = self.own.pop_front();
            if own.is_some() || own_only {
                self.own_is_next = false;
                return own;
            }
        }
        let key = self.turns.pop_front()?;
        let queue = self.clients.get_mut(&key)?;
        let request = queue.pop_front();
        match queue.is_empty() {
            true => _ = self.clients.remove(&key),
            false => self.turns.push_back(key),
        }
        self.of_clients -= 1;
        self.own_is_next = true;
        request
    }

    /// Iterates over all queued requests.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.own.iter().chain(self.clients.values().flatten())
    }

    /// Removes and returns the requests that `keep` rejects.
    pub fn take_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for queue in std::iter::once(&mut self.own).chain(self.clients.values_mut()) {
            if queue.iter().all(&keep) {
                continue;
            }
            for request in std::mem::take(queue) {
                if keep(&request) { queue.push_back(request) } else { taken.push(request) }
            }
        }
        self.clients.retain(|_, queue| !queue.is_empty());
        self.turns.retain(|key| self.clients.contains_key(key));
        self.of_clients = self.clients.values().map(VecDeque::len).sum();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(key: u64) -> Origin {
        Origin::Client(key)
    }

    /// Everything in the order of its turns.
    fn drained<T>(queue: &mut Queue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop(false)).collect()
    }

    #[test]
    fn clients_take_turns_and_requests_of_each_stay_in_order() {
        let mut queue = Queue::default();
        for request in ["a1", "a2", "a3", "b1", "c1", "c2"] {
            queue.push(client(u64::from(request.as_bytes()[0])), request).unwrap();
        }
        assert_eq!(queue.len(), 6);
        assert_eq!(drained(&mut queue), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        assert_eq!((queue.len(), queue.clients.len(), queue.turns.len()), (0, 0, 0));
    }

    #[test]
    fn own_and_forwarded_requests_alternate() {
        let mut queue = Queue::default();
        for n in 0..3 {
            queue.push(client(n), format!("client {n}")).unwrap();
            queue.push(Origin::Own, format!("own {n}")).unwrap();
        }
        let turns = drained(&mut queue);
        assert_eq!(turns, ["own 0", "client 0", "own 1", "client 1", "own 2", "client 2"]);
        queue.push(client(1), "client".into()).unwrap();
        assert_eq!(queue.pop(true), None, "only own requests");
        assert_eq!(queue.pop(false).as_deref(), Some("client"));
    }

    #[test]
    fn ahead_counts_the_requests_that_are_sent_before() {
        let mut queue = Queue::default();
        for request in 0..10 {
            queue.push(client(1), request).unwrap();
        }
        for request in 10..13 {
            queue.push(client(2), request).unwrap();
        }
        for request in 20..25 {
            queue.push(Origin::Own, request).unwrap();
        }
        for origin in [Origin::Own, client(1), client(2), client(3)] {
            let mut queue = Queue { clients: queue.clients.clone(), own: queue.own.clone(), ..Queue::default() };
            queue.turns = [1, 2].into();
            queue.of_clients = 13;
            let ahead = queue.ahead(origin);
            queue.push(origin, 99).unwrap();
            let turn = drained(&mut queue).iter().position(|request| *request == 99).unwrap();
            assert!(ahead.abs_diff(turn) <= 1, "{origin:?}: {ahead} ahead, and the turn {turn}");
        }
    }

    #[test]
    fn the_queue_is_limited_per_origin_and_in_all_and_the_longest_gives_way() {
        let mut queue = Queue::default();
        for request in 0..MAX_PER_ORIGIN {
            queue.push(client(0), request).unwrap();
            queue.push(Origin::Own, request).unwrap();
        }
        assert_eq!(queue.push(client(0), 1000), Err(1000));
        assert_eq!(queue.push(Origin::Own, 1000), Err(1000));
        let rest = (MAX_OF_CLIENTS - MAX_PER_ORIGIN) as u64;
        for key in 1..=rest {
            assert_eq!(queue.push(client(key), 0), Ok(None));
        }
        assert_eq!(queue.push(client(9999), 1000), Ok(Some(MAX_PER_ORIGIN - 1)), "the latest of the first client");
        assert_eq!(queue.len(), MAX_OF_CLIENTS + MAX_PER_ORIGIN);
        while queue.clients[&0].len() > 2 {
            let (key, before) = (10_000 + queue.clients[&0].len() as u64, queue.clients[&0].len());
            assert_eq!(queue.push(client(key), 0), Ok(Some(before - 1)));
        }
        queue.push(client(20_000), 0).unwrap();
        assert_eq!(queue.push(client(20_001), 7), Err(7), "no client has two more");
        assert_eq!(drained(&mut queue).len(), MAX_OF_CLIENTS + MAX_PER_ORIGIN);
    }

    #[test]
    fn removed_requests_have_no_turn() {
        let mut queue = Queue::default();
        for n in 0..9 {
            queue.push(if n % 3 == 0 { Origin::Own } else { client(n % 3) }, n).unwrap();
        }
        assert_eq!(queue.iter().count(), 9);
        let mut taken = queue.take_unless(|n| n % 3 != 1);
        taken.sort_unstable();
        assert_eq!((taken, queue.len(), queue.clients.len()), (vec![1, 4, 7], 6, 1));
        assert_eq!(drained(&mut queue), [0, 2, 3, 5, 6, 8]);
    }
}

//! Requests of ours that wait for a place with one peer: fair among those who ask.
//!
//! What this node asks for itself (the sync, the commands) and what it forwards take turns, so that neither starves the
//! other. The clients take turns among themselves. Within one asker the first to come is the first to go.

use std::collections::{HashMap, VecDeque};

/// Requests of one asker that wait for one peer.
pub(super) const MAX_PER_ASKER: usize = 64;
/// Requests of all clients that wait for one peer.
pub(super) const MAX_OF_CLIENTS: usize = 256;

/// For whom a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OnBehalf {
    /// This node itself.
    Own,
    /// A client that asks through this node.
    Client(u64),
}

/// A queue of one peer, bounded per asker and in all.
#[derive(Debug)]
pub(super) struct Queue<T> {
    own: VecDeque<T>,
    clients: HashMap<u64, VecDeque<T>>,
    /// The clients with something in the queue, in the order of their turns.
    turns: VecDeque<u64>,
    of_clients: usize,
    /// A client had the latest turn.
    own_is_next: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let (own, clients, turns) = (VecDeque::new(), HashMap::new(), VecDeque::new());
        Self { own, clients, turns, of_clients: 0, own_is_next: true }
    }
}

impl<T> Queue<T> {
    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.own.len() + self.of_clients
    }

    /// How many of them get their turn before one that this asker would add now.
    pub fn ahead(&self, asker: OnBehalf) -> usize {
        match asker {
            // Turns alternate.
            OnBehalf::Own => self.own.len() + self.of_clients.min(self.own.len() + 1),
            OnBehalf::Client(key) => {
                let mine = self.clients.get(&key).map_or(0, VecDeque::len);
                // Each other client has as many turns before it, and perhaps one more.
                let others = self.clients.iter().filter(|(other, _)| **other != key);
                let clients = mine + others.map(|(_, queue)| queue.len().min(mine + 1)).sum::<usize>();
                clients + self.own.len().min(clients + 1)
            }
        }
    }

    /// Adds a request. Where the clients' part is full, the latest of the client that has most gives way to one that has
    /// less, and comes back.
    ///
    /// # Errors
    /// The request, where there is no room.
    pub fn push(&mut self, asker: OnBehalf, request: T) -> Result<Option<T>, T> {
        let OnBehalf::Client(key) = asker else {
            if self.own.len() >= MAX_PER_ASKER {
                return Err(request);
            }
            self.own.push_back(request);
            return Ok(None);
        };
        let mine = self.clients.get(&key).map_or(0, VecDeque::len);
        if mine >= MAX_PER_ASKER {
            return Err(request);
        }
        let mut displaced = None;
        if self.of_clients >= MAX_OF_CLIENTS {
            let most = self.clients.values_mut().max_by_key(|queue| queue.len());
            // Two more: with one more it would only change places with it.
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

    /// The request whose turn it is; with `own_only` the next of this node's own.
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

    /// Every request that waits.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.own.iter().chain(self.clients.values().flatten())
    }

    /// Takes out the requests that are not to be kept.
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

    fn client(key: u64) -> OnBehalf {
        OnBehalf::Client(key)
    }

    /// Everything in the order of its turns.
    fn drained<T>(queue: &mut Queue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop(false)).collect()
    }

    #[test]
    fn clients_take_turns_and_each_has_its_own_order() {
        let mut queue = Queue::default();
        for request in ["a1", "a2", "a3", "b1", "c1", "c2"] {
            queue.push(client(u64::from(request.as_bytes()[0])), request).unwrap();
        }
        assert_eq!(queue.len(), 6);
        assert_eq!(drained(&mut queue), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        assert_eq!((queue.len(), queue.clients.len(), queue.turns.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_our_own_and_what_is_forwarded_take_turns() {
        let mut queue = Queue::default();
        for n in 0..3 {
            queue.push(client(n), format!("client {n}")).unwrap();
            queue.push(OnBehalf::Own, format!("own {n}")).unwrap();
        }
        let turns = drained(&mut queue);
        assert_eq!(turns, ["own 0", "client 0", "own 1", "client 1", "own 2", "client 2"]);
        queue.push(client(1), "client".into()).unwrap();
        assert_eq!(queue.pop(true), None, "only our own");
        assert_eq!(queue.pop(false).as_deref(), Some("client"));
    }

    #[test]
    fn as_many_go_first_as_are_ahead() {
        let mut queue = Queue::default();
        for request in 0..10 {
            queue.push(client(1), request).unwrap();
        }
        for request in 10..13 {
            queue.push(client(2), request).unwrap();
        }
        for request in 20..25 {
            queue.push(OnBehalf::Own, request).unwrap();
        }
        for asker in [OnBehalf::Own, client(1), client(2), client(3)] {
            let mut queue = Queue { clients: queue.clients.clone(), own: queue.own.clone(), ..Queue::default() };
            queue.turns = [1, 2].into();
            queue.of_clients = 13;
            let ahead = queue.ahead(asker);
            queue.push(asker, 99).unwrap();
            let turn = drained(&mut queue).iter().position(|request| *request == 99).unwrap();
            assert!(ahead.abs_diff(turn) <= 1, "{asker:?}: {ahead} ahead, and the turn {turn}");
        }
    }

    #[test]
    fn each_asker_and_all_clients_have_so_much_room_and_who_has_most_gives_way() {
        let mut queue = Queue::default();
        for request in 0..MAX_PER_ASKER {
            queue.push(client(0), request).unwrap();
            queue.push(OnBehalf::Own, request).unwrap();
        }
        assert_eq!(queue.push(client(0), 1000), Err(1000));
        assert_eq!(queue.push(OnBehalf::Own, 1000), Err(1000));
        let rest = (MAX_OF_CLIENTS - MAX_PER_ASKER) as u64;
        for key in 1..=rest {
            assert_eq!(queue.push(client(key), 0), Ok(None));
        }
        assert_eq!(queue.push(client(9999), 1000), Ok(Some(MAX_PER_ASKER - 1)), "the latest of the first client");
        assert_eq!(queue.len(), MAX_OF_CLIENTS + MAX_PER_ASKER);
        while queue.clients[&0].len() > 2 {
            let (key, before) = (10_000 + queue.clients[&0].len() as u64, queue.clients[&0].len());
            assert_eq!(queue.push(client(key), 0), Ok(Some(before - 1)));
        }
        queue.push(client(20_000), 0).unwrap();
        assert_eq!(queue.push(client(20_001), 7), Err(7), "nobody has two more");
        assert_eq!(drained(&mut queue).len(), MAX_OF_CLIENTS + MAX_PER_ASKER);
    }

    #[test]
    fn what_is_taken_out_has_no_turn() {
        let mut queue = Queue::default();
        for n in 0..9 {
            queue.push(if n % 3 == 0 { OnBehalf::Own } else { client(n % 3) }, n).unwrap();
        }
        assert_eq!(queue.iter().count(), 9);
        let mut taken = queue.take_unless(|n| n % 3 != 1);
        taken.sort_unstable();
        assert_eq!((taken, queue.len(), queue.clients.len()), (vec![1, 4, 7], 6, 1));
        assert_eq!(drained(&mut queue), [0, 2, 3, 5, 6, 8]);
    }
}

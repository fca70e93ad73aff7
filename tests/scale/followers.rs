//! Followers of events, and when each of them was sent which event.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

use crate::support::{
    follower::{self, Received},
    gateway::PATIENCE,
};

/// When each event arrived, by version.
type Times = Arc<Mutex<HashMap<u64, Instant>>>;

/// Followers.
pub struct Followers {
    received: Vec<watch::Receiver<Received>>,
    times: Vec<Times>,
    _tasks: JoinSet<()>,
}

impl Followers {
    /// One at each of these.
    pub fn of(bases: &[String]) -> Self {
        let received: Vec<_> = bases.iter().map(|base| follower::follow(base)).collect();
        let (mut times, mut tasks) = (Vec::new(), JoinSet::new());
        for follower in &received {
            let (arrived, mut follower) = (Times::default(), follower.clone());
            times.push(arrived.clone());
            tasks.spawn(async move {
                while follower.changed().await.is_ok() {
                    let now = Instant::now();
                    let received = follower.borrow_and_update();
                    let mut arrived = arrived.lock().unwrap();
                    for id in received.ids.iter().rev() {
                        if arrived.contains_key(id) {
                            break;
                        }
                        arrived.insert(*id, now);
                    }
                }
            });
        }
        Self { received, times, _tasks: tasks }
    }

    /// Waits until each follower that counts has an event whose tip is at least this high.
    pub async fn reach(&mut self, index: u64, counts: &[bool], when: &str) {
        for (number, follower) in self.received.iter_mut().enumerate().filter(|(number, _)| counts[*number]) {
            let there = follower.wait_for(|received| received.tip["index"].as_u64().is_some_and(|tip| tip >= index));
            let waited = tokio::time::timeout(PATIENCE, there).await.is_ok();
            assert!(waited, "{when}: follower {number} does not reach {index}: {}", follower.borrow().tip);
        }
    }

    /// The last version that the first follower has.
    pub fn last(&self) -> u64 {
        self.received[0].borrow().ids.last().copied().unwrap_or_default()
    }

    /// How long after the first of the followers that `count` the last one had each event after the version `after`, in
    /// ascending order.
    pub fn spreads(&self, after: u64, counts: &[bool]) -> Vec<Duration> {
        let times = self.times.iter().zip(counts).filter(|(_, counts)| **counts);
        let times: Vec<_> = times.map(|(times, _)| times.lock().unwrap().clone()).collect();
        let ids = times[0].keys().filter(|id| **id > after);
        let arrivals =
            ids.filter_map(|id| times.iter().map(|times| times.get(id).copied()).collect::<Option<Vec<_>>>());
        let spread = |all: Vec<Instant>| *all.iter().max().unwrap() - *all.iter().min().unwrap();
        let mut spreads: Vec<_> = arrivals.map(spread).collect();
        spreads.sort();
        spreads
    }

    /// Checks that each follower had all of these events, once each and in order.
    pub fn have_all(&self, ids: &[u64]) {
        for (number, follower) in self.received.iter().enumerate() {
            let received = follower.borrow();
            assert!(received.broken.is_empty(), "follower {number}: {:#?}", received.broken);
            assert!(received.resets.is_empty(), "follower {number}: {:?}", received.resets);
            assert_eq!(received.ids, ids, "follower {number}");
        }
    }
}

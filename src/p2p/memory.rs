//! How much memory this process may have before it takes no more connections, and lets strangers go.

use std::fs;
use std::time::Duration;

use libp2p::memory_connection_limits::Behaviour;

use super::guard::Refused;
use super::parting::Why;
use super::worker::Worker;
use crate::telemetry::resident_bytes;

/// Of what the machine, or the container, has.
const SHARE: f64 = 0.9;

/// How often to look whether it is too much.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The limit in bytes: what is configured, and where that is 0, nine tenths of what there is.
pub(super) fn limit(configured: usize) -> usize {
    let read = |file: &str| fs::read_to_string(file).ok();
    let machine = Behaviour::with_max_percentage(SHARE).max_allowed_bytes();
    choose(configured, machine, container(read))
}

/// The limit, of what is configured, nine tenths of what the machine has, and what the container has.
fn choose(configured: usize, machine: usize, container: Option<u64>) -> usize {
    if configured > 0 {
        return configured;
    }
    container.map_or(machine, |bytes| machine.min((bytes as f64 * SHARE) as usize))
}

/// What the control group of this process may have, if it has a limit: version 2 as a container and as a service sees it,
/// and version 1. `read` gives a file's text.
fn container(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let group = read("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let files = [
        format!("/sys/fs/cgroup{group}/memory.max"),
        "/sys/fs/cgroup/memory.max".into(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".into(),
    ];
    files.iter().filter_map(|file| read(file)?.trim().parse().ok()).min()
}

impl Worker {
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
    use std::time::Instant;

    use bytes::Bytes;
    use futures::StreamExt;
    use libp2p::{PeerId, identity::Keypair};
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::p2p::outbound::Reply;
    use crate::p2p::queue::OnBehalf;
    use crate::p2p::{self, P2pConfig, P2pError, Responder, discovery::tests::Mute};
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
        let (client, mut worker) = p2p::build(config, Arc::new(Mute)).unwrap();
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
        let (client, mut worker) = p2p::build(config(), Arc::new(Mute)).unwrap();
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

    #[test]
    fn the_limit_is_what_is_configured_or_nine_tenths_of_the_least_there_is() {
        assert_eq!(choose(12345, 9, Some(1)), 12345);
        assert_eq!(choose(0, 900, None), 900);
        assert_eq!(choose(0, 900, Some(100)), 90);
        assert_eq!(choose(0, 900, Some(1 << 62)), 900);
        let machine = Behaviour::with_max_percentage(SHARE).max_allowed_bytes();
        assert!((1..=machine).contains(&limit(0)), "this machine's, or less");
    }

    #[test]
    fn a_container_has_the_least_that_its_files_say() {
        let (own, root) = ("/sys/fs/cgroup/a.slice/b.service/memory.max", "/sys/fs/cgroup/memory.max");
        let first_version = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        type Files = [(&'static str, &'static str)];
        let cases: [(&str, &Files, Option<u64>); 6] = [
            ("", &[], None),
            ("0::/a.slice/b.service\n", &[(own, "max\n")], None),
            ("0::/a.slice/b.service\n", &[(own, "1000\n"), (root, "max\n")], Some(1000)),
            ("0::/a.slice/b.service\n", &[(own, "3000\n"), (root, "2000\n")], Some(2000)),
            ("0::/\n", &[(root, "2000\n")], Some(2000)),
            ("4:memory:/docker/a\n1:cpu:/docker/a\n", &[(first_version, "4000\n")], Some(4000)),
        ];
        for (groups, files, expected) in cases {
            let group = [("/proc/self/cgroup", groups)];
            let read = |path: &str| {
                let file = group.iter().chain(files).find(|(file, _)| *file == path);
                file.map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(container(read), expected, "{groups}{files:?}");
        }
    }
}

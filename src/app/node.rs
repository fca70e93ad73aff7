//! A node, and the parts of it that run.

use std::{sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    error::{AppError, DRAIN},
    reputation,
};
use crate::{
    chain::{Network, PowOptions},
    config::Config,
    p2p::{self, P2pClient, P2pConfig, TrustList},
    source::{self, LocalSource, Source},
    store::{self, BlockStore, OpenOptions},
    sync::{self, Mining, mining},
    telemetry::notice,
};

/// How long the libp2p part may take to stop: it waits for answers that are on their way, and closes no connection
/// before.
const SWARM_DRAIN: Duration = Duration::from_secs(15);

/// Longest wait at the start for a database server that isn't up yet.
const STORE_WAIT: Duration = Duration::from_secs(60);

/// How a node mines.
#[derive(Debug, Clone)]
pub struct Mine {
    /// The peer that its blocks nominate; `None`: the node itself.
    pub nominee: Option<PeerId>,
    /// Threads that search nonces; 0 for as many as there are cores.
    pub threads: usize,
}

/// A node: answers the protocol from its own store, which it keeps in sync with the network.
pub struct Node {
    /// Answers queries.
    pub source: Arc<Source>,
    /// The swarm's client.
    pub p2p: P2pClient,
    /// What the sync and the miner read and write.
    store: Arc<dyn BlockStore>,
    /// What answers are read from: the same, or its replicas.
    reading: Arc<dyn BlockStore>,
    /// In the order in which they were started.
    parts: Vec<Part>,
}

/// A task of the node, which ends only at its `stop`.
struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<Result<(), AppError>>,
    /// How long it may take to stop.
    drain: Duration,
}

impl Node {
    /// Opens the store and starts the node.
    ///
    /// # Errors
    /// [`AppError::Store`], [`AppError::Identity`], and those of [`Self::start_with`].
    pub async fn start(config: &Config) -> Result<Self, AppError> {
        let options =
            OpenOptions { connections: config.store_connections, server_wait: STORE_WAIT, ..OpenOptions::default() };
        let store = store::open(config.database_url.as_str(), &options).await?;
        let keypair = p2p::load_or_create(&config.identity)?;
        let replicas: Vec<_> = config.database_read_url.iter().map(|url| url.as_str().to_owned()).collect();
        let reading = store::with_replicas(store.clone(), &replicas, &options);
        Self::start_over(config, store, reading, keypair).await
    }

    /// Starts the swarm, and unless it is off the sync, over a store that is open.
    ///
    /// # Errors
    /// [`AppError::P2p`], [`AppError::Pow`].
    pub async fn start_with(config: &Config, store: Arc<dyn BlockStore>, keypair: Keypair) -> Result<Self, AppError> {
        Self::start_over(config, store.clone(), store, keypair).await
    }

    /// The same, with answers from the store `reading`, which closes both.
    async fn start_over(
        config: &Config,
        store: Arc<dyn BlockStore>,
        reading: Arc<dyn BlockStore>,
        keypair: Keypair,
    ) -> Result<Self, AppError> {
        warn_of_other_network(&*store, &config.network).await;
        let settings = source::Settings {
            finality_depth: config.finality_depth,
            peer_timeout: config.peer_timeout,
            cache_bytes: config.cache_mib << 20,
            sync: config.sync,
            network: Arc::new(config.network.clone()),
        };
        let local = Arc::new(LocalSource::new(reading.clone(), keypair.public().to_peer_id(), settings));
        let p2p_config = P2pConfig {
            listen: config.listen.clone(),
            peers: config.peers(),
            mdns: config.mdns,
            target_peers: config.target_peers,
            private_addresses: config.private_addresses.unwrap_or(!config.network.public),
            own_ports: vec![config.http.port(), config.admin.port()],
            trust: TrustList {
                mode: config.trust,
                allow: config.allow_peer.iter().copied().collect(),
                deny: config.deny_peer.iter().copied().collect(),
            },
            node_requests: config.node_requests,
            peer_rate_limit: config.peer_rate_limit,
            answer_bytes: config.peer_answer_mib << 20,
            memory_limit: config.memory_limit_mib << 20,
            ..P2pConfig::new(keypair)
        };
        let stop = CancellationToken::new();
        let (p2p, swarm) = p2p::start(p2p_config, local.clone(), stop.clone()).await?;
        let source = Arc::new(Source::new(local, p2p.clone()));
        // A swarm that panicked ends here too; one that does not stop in time is cut off with this task.
        let swarm = AbortOnDropHandle::new(swarm);
        let task = tokio::spawn(async { swarm.await.map_err(|_| AppError::Ended("libp2p")) });
        let mut node =
            Self { source, p2p, store, reading, parts: vec![Part { name: "libp2p", stop, task, drain: SWARM_DRAIN }] };
        let (store, p2p) = (node.store.clone(), node.p2p.clone());
        node.add("reputation", async |stop| {
            reputation::keep(store, p2p, stop).await;
            Ok(())
        });
        if config.sync {
            node.sync(config)?;
        }
        Ok(node)
    }

    /// Keeps the store in sync with the network from now on.
    fn sync(&mut self, config: &Config) -> Result<(), AppError> {
        let service = sync::Service::new(self.store.clone(), self.p2p.clone(), &sync_settings(config))?;
        let service = service.with_stages(self.source.stages().clone());
        self.add("sync", async |stop| {
            service.run(stop).await;
            Ok(())
        });
        Ok(())
    }

    /// Watches the chain from now on, for what a gateway says of it.
    pub(super) fn watch(&mut self) {
        let source = self.source.clone();
        self.add("watch", async move |stop| {
            source.watch(stop).await;
            Ok(())
        });
    }

    /// Mines on the chain in the store from now on.
    pub fn mine(&mut self, config: &Config, mine: &Mine) {
        let (store, p2p, network) = (self.store.clone(), self.p2p.clone(), config.network.clone());
        let nominee = mine.nominee.unwrap_or_else(|| p2p.local_peer_id()).to_string();
        // Where there are configured peers to be in sync with.
        let after_sync = config.sync && !config.peers().is_empty();
        let mining = Mining { after_sync, nominee, pow: PowOptions { threads: mine.threads, ..config.pow() } };
        self.add("mining", async move |stop| Ok(mining::mine(store, p2p, &network, &mining, stop).await?));
    }

    fn add<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), AppError>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        self.parts.push(Part { name, task: tokio::spawn(run(stop.clone())), stop, drain: DRAIN });
    }

    /// The addresses that others reach us at, each with our peer id.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.p2p.dial_addresses()
    }

    /// Prints these addresses to stderr, one a line, and the peer id.
    pub fn announce(&self) {
        for address in self.addresses() {
            notice(format_args!("libp2p {address}"));
        }
        notice(format_args!("peer-id {}", self.p2p.local_peer_id()));
    }

    /// Runs until `shutdown` or until a part ends, then stops.
    ///
    /// # Errors
    /// Those of a part that ends before that.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), AppError> {
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            error = self.ended() => Err(error),
        };
        self.stop().await;
        ended
    }

    /// Waits until a part ends by itself, which none should, and says which and why.
    pub(super) async fn ended(&mut self) -> AppError {
        let tasks = self.parts.iter_mut().map(|part| &mut part.task);
        let (outcome, which, _) = futures::future::select_all(tasks).await;
        match outcome {
            Ok(Err(error)) => error,
            _ => AppError::Ended(self.parts[which].name),
        }
    }

    /// Stops the parts, the last one first, and closes the store. The libp2p part is the first one: it stops when
    /// nobody asks anything any more.
    pub async fn stop(self) {
        for Part { name, stop, task, drain } in self.parts.into_iter().rev() {
            stop.cancel();
            // One that has ended by itself is the reason why we stop, and was looked at then.
            if task.is_finished() {
                continue;
            }
            let aborter = task.abort_handle();
            if timeout(drain, task).await.is_err() {
                tracing::warn!(part = name, "not stopped in time: it is cut off");
                aborter.abort();
            }
        }
        self.reading.close().await;
    }
}

/// How the settings say to sync.
pub(crate) fn sync_settings(config: &Config) -> sync::Settings {
    sync::Settings {
        network: config.network.clone(),
        level: config.verify,
        pow: config.pow(),
        interval: config.sync_interval,
        peer_timeout: config.peer_timeout,
    }
}

/// Says so where the chain in the store begins with another genesis than the one that the settings pin: no peer of the
/// network has a block that follows it. It is no error, as the chain may be wanted for reading. A store that can't
/// answer shows that when it is used.
pub(crate) async fn warn_of_other_network(store: &dyn BlockStore, network: &Network) {
    let Some(pinned) = &network.genesis_hash else { return };
    let Ok(Some(held)) = store.canonical_hashes(&[0]).await.map(|hashes| hashes.get(&0).cloned()) else { return };
    if held != *pinned {
        tracing::warn!(
            genesis_in_store = held,
            genesis_of_network = pinned,
            network = network.name,
            "the store holds the chain of another network: name that network with --network, or another database with \
             --database-url, since each network needs a database of its own"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    impl Node {
        /// Ends a part from outside.
        pub(in crate::app) fn cut_off(&self, name: &str) {
            self.parts.iter().filter(|part| part.name == name).for_each(|part| part.task.abort());
        }
    }

    async fn node() -> Node {
        let config = Config { listen: Vec::new(), sync: false, ..Config::default() };
        let store = store::open("sqlite::memory:", &OpenOptions::default()).await.unwrap();
        Node::start_with(&config, store, Keypair::generate_ed25519()).await.unwrap()
    }

    #[tokio::test]
    async fn a_part_that_ends_or_panics_ends_the_node() {
        let mut ended = node().await;
        ended.add("sync", async |_| Ok(()));
        let error = ended.run(CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "the sync task ended unexpectedly");
        let mut panicked = node().await;
        panicked.add("mining", async |_| panic!("for the test"));
        let error = panicked.run(CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "the mining task ended unexpectedly");
    }

    #[tokio::test]
    async fn parts_stop_in_reverse() {
        let stopped = Arc::new(Mutex::new(Vec::new()));
        let mut node = node().await;
        for name in ["first", "second"] {
            let stopped = stopped.clone();
            node.add(name, async move |stop: CancellationToken| {
                stop.cancelled().await;
                stopped.lock().unwrap().push(name);
                Ok(())
            });
        }
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        node.run(shutdown).await.unwrap();
        assert_eq!(*stopped.lock().unwrap(), ["second", "first"]);
    }
}

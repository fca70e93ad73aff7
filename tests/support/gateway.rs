//! A whole gateway for a test: real listeners on free ports, a real store with the bundled chain, a client of each
//! listener.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};
use modal_gateway::{
    app::{BUNDLED_CHAIN, Gateway},
    chain::{ChainEnd, Enforcement, Level, MinerBlock, Network, PowOptions, Verifier},
    config::Config,
    p2p::{self, Accepted, P2pClient, P2pConfig, PeerAddress, Responder},
    store::{self, BlockStore, OpenOptions},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{postgres::Database, until::eventually};

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Which store a test runs on.
#[derive(Debug, Clone, Copy)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// A store of a test's own.
pub struct TestStore {
    pub url: String,
    pub folder: TempDir,
    database: Option<Database>,
}

impl TestStore {
    /// An empty one.
    pub async fn create(backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (url, database) = match backend {
            Backend::Sqlite => (format!("sqlite://{}/store.db", folder.path().display()), None),
            Backend::Postgres => {
                let database = Database::create().await;
                (database.url.clone(), Some(database))
            }
        };
        Self { url, folder, database }
    }

    /// Another handle to it, as another process would have one.
    pub async fn open(&self) -> Arc<dyn BlockStore> {
        store::open(&self.url, &OpenOptions { connections: 2, ..OpenOptions::default() }).await.unwrap()
    }

    /// Appends blocks, verified to `level`.
    pub async fn append(&self, blocks: Vec<MinerBlock>, level: Level) {
        let store = self.open().await;
        let mut writer = store.write().await.unwrap();
        let parent = writer.state().tip.as_ref().map(|tip| parent(tip.index, &tip.hash));
        writer.append(verifier(level).verify(parent.as_ref(), blocks).unwrap()).await.unwrap();
        writer.commit().await.unwrap();
        store.close().await;
    }

    /// Runs SQL past the store.
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.database.is_some() {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        }
    }
}

/// A parent's place, for chains whose difficulties follow no schedule.
pub fn parent(index: u64, hash: &str) -> ChainEnd {
    ChainEnd { index, hash: hash.into(), timestamp: 0, target_difficulty: 1, epoch_started: 0 }
}

/// A verifier for the bundled chain, for parts of it, and for others on a genesis of the usual form.
pub fn verifier(level: Level) -> Verifier {
    let network = Network { genesis_hash: None, difficulty_schedule: Enforcement::Off, ..Network::devnet() };
    Verifier::new(&network, level, PowOptions::default()).unwrap()
}

/// The bundled chain.
pub fn chain() -> Vec<MinerBlock> {
    BUNDLED_CHAIN.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An answer over HTTP.
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub fn code(&self) -> String {
        self.json()["errors"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A gateway that runs, and whoever asks it.
pub struct TestGateway {
    pub store: TestStore,
    pub base: String,
    /// The same of the admin listener.
    pub admin: String,
    pub peer_id: PeerId,
    pub p2p: P2pClient,
    http: reqwest::Client,
    client: tokio::sync::OnceCell<P2pClient>,
    running: CancellationToken,
    _running: DropGuard,
}

/// Answers each request with nothing, for nodes that nobody asks.
pub struct EmptyResponder;

impl Responder for EmptyResponder {
    fn accept(self: Arc<Self>, _: Bytes) -> Accepted {
        Accepted::short(async { Bytes::new() })
    }
}

impl TestGateway {
    /// A gateway whose store holds the bundled chain.
    pub async fn start(backend: Backend) -> Self {
        Self::with_peers(backend, &[]).await
    }

    /// The same, with configured peers (`alias=address`), to which it is connected once this returns.
    pub async fn with_peers(backend: Backend, peers: &[String]) -> Self {
        let store = TestStore::create(backend).await;
        store.append(chain(), Level::Linked).await;
        let gateway = Self::over(store, peers, |config| config).await;
        for peer in peers {
            let (alias, _) = peer.split_once('=').unwrap();
            gateway.p2p.wait_connected(alias, PATIENCE).await.unwrap();
        }
        gateway
    }

    /// A gateway over a store as it is, with settings changed by `adjust`.
    pub async fn over(store: TestStore, peers: &[String], adjust: impl FnOnce(Config) -> Config) -> Self {
        let config = adjust(Config {
            database_url: store.url.parse().unwrap(),
            http: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            peer: peers.iter().map(|peer| peer.parse::<PeerAddress>().unwrap()).collect(),
            identity: store.folder.path().join("key"),
            peer_timeout: Duration::from_secs(2),
            store_connections: 2,
            // What a test's store holds is the test's to say.
            sync: false,
            // A test is one client, which asks for more than one client may.
            unlimited_client: vec!["127.0.0.0/8".parse().unwrap()],
            ..Config::default()
        });
        let gateway = Gateway::start(&config).await.unwrap();
        let (base, p2p) = (format!("http://{}", gateway.http), gateway.node.p2p.clone());
        let admin = format!("http://{}", gateway.admin);
        let running = CancellationToken::new();
        tokio::spawn(gateway.run(running.clone()));
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let client = tokio::sync::OnceCell::new();
        let peer_id = p2p.local_peer_id();
        Self { store, base, admin, peer_id, p2p, http, client, _running: running.clone().drop_guard(), running }
    }

    /// `GET` of a path and query.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// `GET` with a header.
    pub async fn get_with(&self, path: &str, name: &str, value: &str) -> Reply {
        self.send(self.http.get(format!("{}{path}", self.base)).header(name, value)).await
    }

    /// `POST` of a JSON body.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self.http.post(format!("{}{path}", self.base));
        self.send(request.header("content-type", "application/json").body(body)).await
    }

    /// Any request, made from a client and the base URL.
    pub async fn request(&self, make: impl FnOnce(&reqwest::Client, &str) -> reqwest::RequestBuilder) -> Reply {
        self.send(make(&self.http, &self.base)).await
    }

    /// Waits until the gateway answers from the chain with this tip.
    pub async fn wait_for_tip(&self, hash: &str) {
        let tip = async || self.get("/status").await.json()["data"]["chain"]["tip"]["hash"].clone();
        eventually(async || (tip().await == hash).then_some(())).await;
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, body: response.bytes().await.unwrap() }
    }

    /// A request over libp2p, from another node, which from then on is one of the gateway's peers.
    pub async fn ask(&self, request: impl Into<Bytes>) -> Bytes {
        let connect = async || {
            let config = P2pConfig::new(Keypair::generate_ed25519());
            let (client, _) = p2p::start(config, Arc::new(EmptyResponder), self.running.clone()).await.unwrap();
            client.dial(self.p2p.dial_addresses().remove(0)).await.unwrap();
            client
        };
        let client = self.client.get_or_init(connect).await;
        client.request(self.peer_id, request.into(), PATIENCE).await.unwrap()
    }
}

/// A chain of `count` blocks whose hashes are plain text: for level `none`.
pub fn synthetic(count: u64) -> Vec<MinerBlock> {
    (0..count).map(|index| synthetic_block(index, "main", "main")).collect()
}

/// A block whose hash and parent are plain text: `<branch>-<index>`.
pub fn synthetic_block(index: u64, branch: &str, parent_branch: &str) -> MinerBlock {
    MinerBlock {
        hash: format!("{branch}-{index}"),
        index,
        epoch: index.saturating_sub(1) / 40,
        timestamp: 1_700_000_000 + index as i64,
        previous_hash: if index == 0 { "0".into() } else { format!("{parent_branch}-{}", index - 1) },
        data_hash: format!("data-{index}"),
        nonce: 7,
        target_difficulty: 1,
        actualized_difficulty: 1,
        nominated_peer_id: format!("QmMiner{:02}", index % 10),
        miner_number: index,
        is_canonical: true,
        ..MinerBlock::default()
    }
}

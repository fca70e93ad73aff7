//! What `/metrics` says of the chain, the peers, the queues and the database.

use modal_gateway::{
    chain::{Level, unix_now},
    p2p::{PeerChain, Standing},
    protocol::Ancestor,
    store::BlockStore,
};
use rstest::rstest;

use crate::support::{
    gateway::{Backend, TestGateway, TestStore, parent, synthetic, synthetic_block, verifier},
    until::eventually,
};

/// What a scrape says.
struct Scrape(String);

impl Scrape {
    async fn of(gateway: &TestGateway) -> Self {
        let url = format!("{}/metrics", gateway.admin);
        let reply = gateway.request(|http, _| http.get(url)).await;
        assert_eq!(reply.status, 200);
        Self(String::from_utf8(reply.body.to_vec()).unwrap())
    }

    /// The value of a sample, by its name and labels.
    fn value(&self, sample: &str) -> Option<f64> {
        self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Replaces the blocks above `keep` by a branch that is one block longer.
async fn reorganise(store: &dyn BlockStore, keep: u64, to: u64, name: &str) {
    let below = store.block_at(keep).await.unwrap().unwrap().0;
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(keep), "heavier chain", None, unix_now()).await.unwrap();
    let branch = (keep + 1..=to).map(|index| {
        let block = synthetic_block(index, name, name);
        let first = index == keep + 1;
        modal_gateway::chain::MinerBlock {
            previous_hash: if first { below.hash.clone() } else { block.previous_hash.clone() },
            ..block
        }
    });
    let end = parent(keep, &below.hash);
    writer.append(verifier(Level::None).verify(Some(&end), branch.collect()).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn reorganisations_are_counted_whoever_writes_them(#[case] backend: Backend) {
    let store = TestStore::create(backend).await;
    store.append(synthetic(100), Level::None).await;
    let before = store.open().await;
    reorganise(&*before, 95, 100, "before").await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    // The first look is where counting begins.
    eventually(async || gateway.get("/status").await.header("x-modal-sync").map(|_| ())).await;
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.value("modal_chain_reorganisations_total"), Some(0.0), "before the start");

    // Two within one look, and an extension: a gauge would show but the end.
    reorganise(&*before, 97, 101, "first").await;
    reorganise(&*before, 61, 102, "second").await;
    let last = synthetic_block(103, "second", "second");
    gateway.store.append(vec![last], Level::None).await;
    let scrape = eventually(async || {
        let scrape = Scrape::of(&gateway).await;
        let values = ["modal_chain_reorganisations_total", "modal_chain_blocks"].map(|name| scrape.value(name));
        (values == [Some(2.0), Some(104.0)]).then_some(scrape)
    })
    .await;
    let depth = |sample: &str| scrape.value(&format!("modal_chain_reorganisation_depth_{sample}"));
    assert_eq!((depth("count"), depth("sum")), (Some(2.0), Some(3.0 + 40.0)));
    let buckets = ["2.0", "3.0", "20.0", "40.0", "+Inf"].map(|le| depth(&format!("bucket{{le=\"{le}\"}}")));
    assert_eq!(buckets, [0.0, 1.0, 1.0, 2.0, 2.0].map(Some));
    assert!(scrape.value("modal_store_bytes").unwrap() > 10_000.0);
    assert!(scrape.value("modal_chain_tip_unchanged_seconds").unwrap() < 60.0);
    let age = unix_now() as f64 - (1_700_000_000.0 + 103.0);
    assert!((scrape.value("modal_chain_tip_age_seconds").unwrap() - age).abs() < 60.0);
    assert_eq!(scrape.value("modal_chain_staged_blocks"), Some(0.0));

    // The time is the commit's, also for a process that was started later.
    gateway.store.execute("UPDATE event SET at = at - 5000").await;
    assert!((5000.0..5060.0).contains(&Scrape::of(&gateway).await.value("modal_chain_tip_unchanged_seconds").unwrap()));
    let mut writer = before.write().await.unwrap();
    let branch = (51..54).map(|index| synthetic_block(index, "staged", if index == 51 { "main" } else { "staged" }));
    let branch = verifier(Level::None).verify(Some(&parent(50, "main-50")), branch.collect()).unwrap();
    let fork = modal_gateway::chain::Position { index: 50, hash: "main-50".into() };
    writer.stage(Some(&fork), 1, branch).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(Scrape::of(&gateway).await.value("modal_chain_staged_blocks"), Some(3.0));
}

#[tokio::test]
async fn peers_are_told_apart_by_the_chains_that_they_claim() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(51), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let scrape = Scrape::of(&gateway).await;
    assert_eq!(scrape.value(r#"modal_chain_blocks_behind{peers="all"}"#), None, "no peer was asked");
    assert!(scrape.0.contains("# TYPE modal_chain_blocks_behind gauge\n"));
    assert_eq!(scrape.value(r#"modal_p2p_established_total{direction="in"}"#), Some(0.0));
    assert_eq!(scrape.value("modal_p2p_listen_addresses"), Some(1.0));
    assert_eq!(scrape.value("modal_chain_finality_depth"), Some(40.0));
    assert_eq!(scrape.value("modal_network_target_block_time_seconds"), Some(10.0));

    // Another node, which connects to ask.
    gateway.ask(r#"{"path":"/ping","data":1}"#).await;
    let peer = gateway.p2p.peers().remove(0).peer_id.unwrap().parse().unwrap();
    let claims = |standing, claimed_height, problem: Option<&str>| {
        let common_ancestor = (standing == Standing::Forked).then(|| Ancestor { index: 30, hash: "main-30".into() });
        let chain = PeerChain {
            tip_hash: "theirs".into(),
            tip_index: None,
            claimed_height,
            claimed_length: claimed_height + 1,
            claimed_work: None,
            at: 0,
            standing,
            common_ancestor,
            problem: problem.map(str::to_owned),
        };
        gateway.p2p.note_chain(peer, chain);
    };
    let standing = |scrape: &Scrape| {
        let count = |standing: Standing| {
            scrape.value(&format!("modal_peers_standing{{standing=\"{standing}\"}}")).unwrap() as u64
        };
        Standing::ALL.map(count)
    };
    let behind = |scrape: &Scrape| {
        ["trusted", "all"].map(|peers| scrape.value(&format!("modal_chain_blocks_behind{{peers=\"{peers}\"}}")))
    };
    let fork = |scrape: &Scrape| {
        ["own", "peer"].map(|side| scrape.value(&format!("modal_chain_fork_blocks{{side=\"{side}\"}}")).unwrap())
    };
    claims(Standing::Ahead, 57, None);
    let scrape = Scrape::of(&gateway).await;
    assert_eq!((standing(&scrape), behind(&scrape)), ([0, 0, 1, 0, 0, 0], [None, Some(7.0)]), "a stranger");
    assert_eq!(fork(&scrape), [0.0, 0.0]);
    assert_eq!(scrape.value(r#"modal_p2p_established_total{direction="in"}"#), Some(1.0));
    gateway.p2p.set_trust(peer, true).unwrap();
    claims(Standing::Forked, 36, None);
    let scrape = Scrape::of(&gateway).await;
    assert_eq!((standing(&scrape), behind(&scrape)), ([0, 0, 0, 1, 0, 0], [Some(0.0), Some(0.0)]));
    assert_eq!(fork(&scrape), [20.0, 6.0], "our blocks since 30, and theirs");
    claims(Standing::Unknown, u64::MAX - 1, Some("it sent an invalid block"));
    assert_eq!(behind(&Scrape::of(&gateway).await), [None, None], "what was found wrong does not count");
}

#[tokio::test]
async fn each_sample_is_described_in_either_format() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    gateway.get("/status").await;
    for (accept, kind, suffix) in [
        ("*/*", "application/openmetrics-text; version=1.0.0", ""),
        ("text/plain", "text/plain; version=0.0.4", "_total"),
    ] {
        let url = format!("{}/metrics", gateway.admin);
        let reply = gateway.request(|http, _| http.get(url).header("accept", accept)).await;
        assert!(reply.header("content-type").unwrap().starts_with(kind), "{:?}", reply.headers);
        let text = std::str::from_utf8(&reply.body).unwrap();
        assert_eq!(text.ends_with("# EOF\n"), suffix.is_empty());
        assert!(text.contains(&format!("# TYPE modal_chain_reorganisations{suffix} counter\n")), "{text}");
        assert!(text.contains("# TYPE modal_chain_blocks gauge\n") && text.contains("\nmodal_chain_blocks 61\n"));
        let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("GATEWAY_COMMIT"));
        let build = format!("\nmodal_build_info{{version=\"{version}\",commit=\"{commit}\"}} 1\n");
        assert!(text.contains(&build), "{text}");
    }
}

#[tokio::test]
async fn each_queue_has_a_limit() {
    let adjust = |config| modal_gateway::config::Config { max_requests: 10, max_connections: 77, ..config };
    let gateway = TestGateway::over(TestStore::create(Backend::Sqlite).await, &[], adjust).await;
    let scrape = Scrape::of(&gateway).await;
    for (queue, limit) in [
        ("http_requests", 10.0),
        ("http_forwarded", 5.0),
        ("http_answer_bytes", 10.0 * 1024.0 * 1024.0),
        ("http_connections", 77.0),
        ("store_readers", 256.0),
        ("store_writer", 256.0),
        ("p2p_commands", 1024.0),
        ("gossip", 256.0),
    ] {
        let value = |name: &str| scrape.value(&format!("modal_queue_{name}{{queue=\"{queue}\"}}"));
        assert_eq!((value("limit"), value("length")), (Some(limit), Some(0.0)), "{queue}");
    }
    assert!(scrape.value(r#"modal_queue_limit{queue="event_streams"}"#).unwrap() >= 256.0);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let followed = client.get(format!("{}/events", gateway.base)).send().await.unwrap();
    let length = async |queue: &str| {
        Scrape::of(&gateway).await.value(&format!("modal_queue_length{{queue=\"{queue}\"}}")).unwrap()
    };
    assert_eq!((length("event_streams").await, length("http_connections").await), (1.0, 1.0));
    drop(followed);
    eventually(async || (length("event_streams").await == 0.0).then_some(())).await;
    for kind in ["unreachable", "busy", "full", "read_only", "denied", "damaged", "io", "other"] {
        let sample = format!("modal_store_errors_total{{kind=\"{kind}\"}}");
        assert_eq!(scrape.value(&sample), Some(0.0), "{kind}");
    }
}

//! Parts that fail: the database, a port, a peer.

use modal_gateway::{
    app::{AppError, Gateway},
    chain::Level,
    config::Config,
};

use crate::support::{
    gateway::{Backend, PATIENCE, TestGateway, TestStore, chain},
    ports::free_port,
    relay::Relay,
};

#[tokio::test]
async fn an_unreachable_database_is_503_until_it_returns() {
    let store = TestStore::create(Backend::Postgres).await;
    store.append(chain(), Level::Linked).await;
    let relay = Relay::to(&store.url).await;
    let (direct, relayed) = (store.url.clone(), relay.url.clone());
    let gateway =
        TestGateway::over(store, &[], |config| Config { database_url: relayed.parse().unwrap(), ..config }).await;
    let read = async || gateway.get("/data/miner_block/epoch?epoch=0").await;
    assert_eq!(read().await.status, 200);

    let address = relay.cut().await;
    let deadline = std::time::Instant::now() + PATIENCE;
    let failed = loop {
        let reply = read().await;
        // What was just cached may still be served for as long as its state counts as current.
        if reply.status != 200 {
            break reply;
        }
        assert!(std::time::Instant::now() < deadline);
    };
    assert_eq!((failed.status, failed.code().as_str()), (503, "store_unavailable"));
    assert_eq!(failed.header("retry-after"), Some("1"));
    assert!(failed.json()["errors"]["detail"].is_null(), "no internals");
    assert_eq!(gateway.get("/health/ready").await.status, 503);
    assert_eq!(gateway.get("/health/live").await.status, 200);

    let _relay = Relay::at(address, &direct).await;
    while read().await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "it never recovers");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let http = gateway.base.strip_prefix("http://").unwrap().parse().unwrap();
    let config = Config { http, admin: ([127, 0, 0, 1], 0).into(), ..Config::default() };
    match Gateway::start(&config).await.map(|_| ()) {
        Err(AppError::Bind { what: "HTTP", address, .. }) => assert_eq!(address, http),
        other => panic!("{other:?}"),
    }
    let config = Config { http: ([127, 0, 0, 1], 0).into(), admin: ([0, 0, 0, 0], 0).into(), ..Config::default() };
    let refused = Gateway::start(&config).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, AppError::AdminNotLoopback(_)), "{refused:?}");
}

#[tokio::test]
async fn an_unreachable_and_an_unknown_peer_have_different_errors() {
    let free = free_port();
    let id = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(chain(), Level::Linked).await;
    let peers = [format!("down=/ip4/127.0.0.1/tcp/{free}/p2p/{id}"), format!("nameless=/ip4/127.0.0.1/tcp/{free}")];
    let gateway = TestGateway::over(store, &peers, |config| config).await;
    let ask = async |peer: &str| gateway.get(&format!("/data/miner_block/epoch?epoch=0&peer={peer}")).await;
    for down in ["down", &id.to_string(), "nameless", "any"] {
        let reply = ask(down).await;
        // A configured peer that hung up may be tried by `any`; one that was never there is none to try.
        let code = if down == "any" && reply.code() == "no_peer" { "no_peer" } else { "peer_unreachable" };
        assert_eq!((reply.status, reply.code().as_str()), (503, code), "{down}");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert!(!String::from_utf8_lossy(&reply.body).contains(&free.to_string()), "no addresses");
    }
    let stranger = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id().to_string();
    for unknown in ["nobody", "", &stranger, "/ip4/127.0.0.1/tcp/1", "127.0.0.1:80"] {
        let reply = ask(unknown).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "unknown_peer"), "{unknown}");
    }
    let auto = ask("auto").await;
    assert_eq!((auto.status, auto.header("x-modal-source")), (200, Some("local")));
    let nothing = gateway.get("/data/miner_block/epoch?epoch=9&peer=auto").await;
    assert_eq!((nothing.status, nothing.header("x-modal-source")), (200, Some("local")), "what the store has, then");
}

//! Peers, and the chains that they are on.

use modal_gateway::{
    chain::Level,
    config::Config,
    p2p::{PeerChain, Standing},
};

use crate::{
    support::{
        chain::{Chain, LIGHT},
        gateway::{Backend, TestGateway, TestStore, synthetic, synthetic_block, verifier},
        linked,
        peer::ScriptedPeer,
        serving::Serving,
        until::eventually,
    },
    world::{page as page_of, visit},
};

#[tokio::test]
async fn each_peer_is_shown_with_its_chain() {
    let chain = Chain::genesis(0).extend(120, &LIGHT);
    let side = chain.fork(100, "side").extend(5, &LIGHT);
    let behind = ScriptedPeer::start(Serving::of(&chain.first(61)).script()).await;
    let forked = ScriptedPeer::start(Serving::of(&side).script()).await;
    let store = TestStore::create(Backend::Sqlite).await;
    let opened = store.open().await;
    let mut writer = opened.write().await.unwrap();
    writer.append(verifier(Level::None).verify(None, chain.to_vec()).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
    opened.close().await;
    let peers = [format!("behind={}", behind.address), format!("forked={}", forked.address)];
    let syncing = |config| Config { sync: true, network: linked::network(), verify: Level::Linked, ..config };
    let gateway = TestGateway::over(store, &peers, syncing).await;

    let network = eventually(async || {
        let page = page_of(&gateway, "/network").await;
        let counts: Vec<_> = page.all("b").map(|count| count.text.clone()).collect();
        (counts[..4] == ["0", "1", "0", "1"]).then_some(page)
    })
    .await;
    let rows: Vec<_> = network.all("tr").filter(|row| row.text.contains("on a fork")).collect();
    let [chains, listed] = &rows[..] else { panic!("{rows:?}") };
    for text in [&side.tip().hash, "not our chain", &chain[100].hash, &forked.peer_id.to_string()] {
        assert!(chains.text.contains(text), "{text}: {}", chains.text);
    }
    assert!(listed.text.contains("forked") && listed.text.contains("connected"), "{}", listed.text);
    let behind_row = network.all("tr").find(|row| row.text.contains("our chain holds its tip")).unwrap();
    assert!(behind_row.text.contains("our chain") && behind_row.text.contains(&chain[60].hash), "{}", behind_row.text);

    // Is my peer on the main chain? Its own page says so, though nobody nominates it.
    let page = page_of(&gateway, &format!("/nominee/{}", forked.peer_id)).await;
    let text = &page.one("main").text;
    assert!(text.contains("on a fork") && text.contains(&chain[100].hash), "{text}");
    let found = visit(&gateway, &format!("/search?q={}", behind.peer_id)).await;
    assert!(String::from_utf8_lossy(&found.body).contains("which no block nominates"));

    // What is known of a peer that went away says nothing of now.
    drop(forked);
    let network = eventually(async || {
        let page = page_of(&gateway, "/network").await;
        let counts: Vec<_> = page.all("b").map(|count| count.text.clone()).collect();
        (counts[..4] == ["0", "1", "0", "0"]).then_some(page)
    })
    .await;
    let rows: Vec<_> = network.all("tr").filter(|row| row.text.contains("on a fork")).collect();
    assert!(matches!(&rows[..], [row] if row.text.contains("not connected")), "{rows:?}");
}

#[tokio::test]
async fn a_peer_that_was_at_our_tip_is_behind_once_the_chain_has_gone_on() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(51), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    // Another node, which connects to ask.
    gateway.ask(r#"{"path":"/ping","data":1}"#).await;
    let peer = gateway.p2p.peers().remove(0).peer_id.unwrap().parse().unwrap();
    let chain = PeerChain {
        tip_hash: "main-50".into(),
        tip_index: Some(50),
        claimed_height: 50,
        claimed_length: 51,
        claimed_work: None,
        at: 0,
        standing: Standing::Same,
        common_ancestor: None,
        problem: None,
    };
    gateway.p2p.note_chain(peer, chain);
    let counts = async || {
        let page = page_of(&gateway, "/").await;
        let counts: Vec<_> = page.all("b").map(|count| count.text.clone()).collect();
        (counts[0].clone(), counts[1].clone())
    };
    assert_eq!(counts().await, ("1".into(), "0".into()));
    gateway.store.append(vec![synthetic_block(51, "main", "main")], Level::None).await;
    eventually(async || (counts().await == ("0".into(), "1".into())).then_some(())).await;
    let page = page_of(&gateway, "/network").await;
    assert!(page.all("tr").filter(|row| row.text.contains("our chain holds its tip")).count() == 2, "both tables");
}

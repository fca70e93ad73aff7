//! Peers, and the chains that they are on.

use modal_gateway::{chain::Level, config::Config};

use crate::{
    support::{
        chain::{Chain, LIGHT},
        gateway::{Backend, TestGateway, TestStore, verifier},
        linked,
        peer::ScriptedPeer,
        serving::Serving,
        until::eventually,
    },
    world::{page, visit},
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
        let page = page(&gateway, "/network").await;
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
    let page = page(&gateway, &format!("/nominee/{}", forked.peer_id)).await;
    let text = &page.one("main").text;
    assert!(text.contains("on a fork") && text.contains(&chain[100].hash), "{text}");
    let found = visit(&gateway, &format!("/search?q={}", behind.peer_id)).await;
    assert!(String::from_utf8_lossy(&found.body).contains("which no block nominates"));
}

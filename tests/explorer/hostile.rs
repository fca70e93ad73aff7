//! Blocks that hold anything: their texts stay texts, and pages stay short.

use modal_gateway::{
    chain::{Level, MinerBlock},
    p2p::{PeerChain, Standing},
};
use url::form_urlencoded;

use crate::{
    markup::{MAX_BYTES, check, crawl},
    support::{
        gateway::{Backend, PATIENCE, TestGateway, TestStore, synthetic, synthetic_block},
        html::Document,
        peer::{self, ScriptedPeer},
    },
    world::{add_orphans, page, reorganise, visit},
};

/// What breaks out of texts, attributes and addresses where they are not escaped.
const HOSTILE: [&str; 8] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}&lt;&#x3c;",
    "../../../../etc",
    "\u{202e}drawkcab\u{7f}\n",
    "</code></main><h1>ours</h1>",
];

/// A block on a parent, with texts that begin with `name`.
fn block(index: u64, name: &str, parent: Option<&MinerBlock>, nominee: String) -> MinerBlock {
    MinerBlock {
        hash: format!("{name}{index}{}", HOSTILE[index as usize % HOSTILE.len()]),
        index,
        epoch: index.saturating_sub(1) / 40,
        timestamp: [1_700_000_000, i64::MAX, -1, 0][index as usize % 4],
        previous_hash: parent.map_or("0".into(), |parent| parent.hash.clone()),
        data_hash: HOSTILE[(index as usize + 1) % HOSTILE.len()].into(),
        nonce: u128::MAX - u128::from(index),
        target_difficulty: u128::MAX,
        actualized_difficulty: u128::MAX,
        nominated_peer_id: nominee,
        miner_number: u64::MAX,
        is_canonical: true,
        ..MinerBlock::default()
    }
}

fn chain(parent: Option<&MinerBlock>, count: u64, name: &str, nominee: impl Fn(u64) -> String) -> Vec<MinerBlock> {
    let mut blocks: Vec<MinerBlock> = Vec::new();
    for _ in 0..count {
        let parent = blocks.last().or(parent);
        let index = parent.map_or(0, |parent| parent.index + 1);
        blocks.push(block(index, name, parent, nominee(index)));
    }
    blocks
}

async fn gateway(nominee: impl Fn(u64) -> String, name: &str) -> (TestGateway, Vec<MinerBlock>) {
    let store = TestStore::create(Backend::Sqlite).await;
    let old = chain(None, 123, name, &nominee);
    let new = chain(Some(&old[90]), 40, "new", &nominee);
    store.append(old.clone(), Level::None).await;
    reorganise(&store, 90, new.clone()).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    (gateway, [old, new].concat())
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[tokio::test]
async fn texts_of_blocks_stay_texts() {
    let (gateway, blocks) = gateway(|index| HOSTILE[index as usize % HOSTILE.len()].into(), "").await;
    // Each page is read strictly: a text that breaks out is an element, or an attribute, that is not ours.
    let kinds = crawl(&gateway, 30).await;
    assert!(kinds["block"] == 30 && kinds["nominee"] > 3, "{kinds:?}");
    for block in &blocks[88..] {
        let path = format!("/block/{}", encoded(&block.hash));
        let document = page(&gateway, &path).await;
        check(&path, &document);
        assert_eq!(document.all("h1").count(), 1, "{path}");
        assert!(document.all("img").next().is_none(), "{path}");
    }
    for text in HOSTILE {
        let path = format!("/search?q={}", encoded(text));
        check(&path, &page(&gateway, &path).await);
        let unknown = visit(&gateway, &format!("/block/{}x", encoded(text))).await;
        assert_eq!(unknown.status, 404);
        Document::parse(std::str::from_utf8(&unknown.body).unwrap());
    }
}

#[tokio::test]
async fn pages_are_short_whatever_a_block_holds() {
    // As long as a block may be, and five times that once escaped; hashes as long as a store holds.
    for text in ["<", "\u{1f4a5}", "n"] {
        let nominee = |index: u64| text.repeat(60_000 / text.len()) + &index.to_string();
        let long = "<&\"".repeat(330);
        let (gateway, blocks) = gateway(nominee, &long).await;
        for path in [
            "/",
            "/blocks",
            "/blocks?before=80",
            "/epochs",
            "/epoch/0",
            "/epoch/2",
            "/nominees?epochs=25",
            "/network",
            "/forks",
            "/reorganisations",
            "/search?q=95",
            "/block/5",
            "/block/95",
        ] {
            let reply = visit(&gateway, path).await;
            assert_eq!(reply.status, 200, "{path}");
            assert!(reply.body.len() <= MAX_BYTES, "{path}: {} bytes", reply.body.len());
            check(path, &Document::parse(std::str::from_utf8(&reply.body).unwrap()));
        }
        let path = format!("/block/{}", encoded(&blocks[100].hash));
        let reply = visit(&gateway, &path).await;
        assert!(reply.status == 200 && reply.body.len() <= MAX_BYTES, "{} bytes", reply.body.len());
        let document = Document::parse(std::str::from_utf8(&reply.body).unwrap());
        assert!(document.all("code").any(|code| code.text == blocks[100].hash), "the whole hash");
        assert!(
            document.all("a").any(|link| link.text == "This block as JSON") || text.len() > 1,
            "and the way to all of it"
        );
    }
}

#[tokio::test]
async fn pages_are_short_where_every_name_is_linked_whole() {
    let name = |block: MinerBlock| MinerBlock {
        hash: format!("{:x<160}", block.hash),
        previous_hash: format!("{:x<160}", block.previous_hash),
        nominated_peer_id: format!("{:n<160}", block.index),
        ..block
    };
    let store = TestStore::create(Backend::Sqlite).await;
    let old: Vec<_> = synthetic(123).into_iter().map(name).collect();
    let new = (91..131).map(|index| synthetic_block(index, "new", if index == 91 { "main" } else { "new" }));
    store.append(old, Level::None).await;
    reorganise(&store, 90, new.map(name).collect()).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    for path in ["/", "/blocks", "/epochs", "/epoch/2", "/nominees?epochs=25", "/network", "/forks", "/block/95"] {
        let reply = visit(&gateway, path).await;
        assert!(reply.status == 200 && reply.body.len() <= MAX_BYTES, "{path}: {} {}", reply.status, reply.body.len());
    }
}

/// Branches of one block, the longest that a page links whole, each with more holders than it names.
#[tokio::test]
async fn the_page_of_forks_is_short_whatever_their_names_are() {
    const BRANCHES: u64 = 45;
    // As long as a link's part of a path may be; and as a peer's tip may be.
    for length in [160, 128] {
        let store = TestStore::create(Backend::Sqlite).await;
        store.append(synthetic(3), Level::None).await;
        let orphan = |i: u64| MinerBlock {
            hash: format!("{i:x<length$}"),
            previous_hash: format!("{i:p<160}"),
            index: i64::MAX as u64 - 2 * i,
            seen_at: Some(1_000_000_000),
            orphaned_at: Some(1_000_000_000),
            orphan_reason: Some("<".repeat(1000)),
            ..block(1, "", None, "n".repeat(160))
        };
        let orphans: Vec<_> = (1..=BRANCHES + 16).map(orphan).collect();
        add_orphans(&store, &orphans).await;
        let silent = || ScriptedPeer::start(|_| peer::Reply::Silence);
        let peers = [silent().await, silent().await];
        let addresses = ["a", "b"].into_iter().zip(&peers).map(|(name, peer)| format!("{name}={}", peer.address));
        let gateway = TestGateway::over(store, &addresses.collect::<Vec<_>>(), |config| config).await;
        for (name, peer) in ["a", "b"].into_iter().zip(&peers) {
            gateway.p2p.wait_connected(name, PATIENCE).await.unwrap();
            let chain = PeerChain {
                tip_hash: orphans[0].hash.clone(),
                tip_index: None,
                claimed_height: 1,
                claimed_length: 1,
                claimed_work: None,
                at: 0,
                standing: Standing::Forked,
                common_ancestor: None,
                problem: None,
            };
            gateway.p2p.note_chain(peer.peer_id, chain);
        }
        let reply = visit(&gateway, "/forks").await;
        assert_eq!(reply.status, 200, "{length}");
        let body = std::str::from_utf8(&reply.body).unwrap();
        let document = Document::parse(body);
        check("/forks", &document);
        let links = document.all("a").filter_map(|link| link.get("href"));
        assert!(links.filter(|href| href.len() >= length).count() as u64 >= 2 * BRANCHES, "each is linked");
        // A peer has one tip, so not every branch here has holders: with them each had as much more.
        let holder = body.split_once("Peers at its blocks\">").unwrap().1.split_once("</td>").unwrap().0;
        assert_eq!(holder.contains("and 1 more"), length == 128, "{holder}");
        let more = if length == 128 { holder.len() * BRANCHES as usize } else { 0 };
        assert!(body.len() + more <= MAX_BYTES, "{} and {more} bytes", body.len());
    }
}

//! Blocks that hold anything: their texts stay texts, and pages stay short.

use modal_gateway::chain::{Level, MinerBlock};
use url::form_urlencoded;

use crate::{
    markup::{MAX_BYTES, check, crawl},
    support::{
        gateway::{Backend, TestGateway, TestStore},
        html::Document,
    },
    world::{page, reorganise, visit},
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

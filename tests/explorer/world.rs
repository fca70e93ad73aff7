//! A gateway whose store has epochs, a reorganisation across the end of one, and the branch that it left.

use modal_gateway::chain::{ChainEnd, Level, MinerBlock};

use crate::support::{
    gateway::{Backend, Reply, TestGateway, TestStore, parent, verifier},
    html::Document,
    linked::linked,
};

/// Index of the last block that both branches share.
pub const ANCESTOR: u64 = 117;
/// Index of the last block of the branch that was left; its epoch, 2, ends with block 120.
pub const OLD_TIP: u64 = 122;
/// Index of the tip.
pub const TIP: u64 = 125;

/// A gateway with a reorganised chain.
pub struct World {
    pub gateway: TestGateway,
    /// The chain that was left, from genesis on.
    pub old: Vec<MinerBlock>,
    /// The chain, from genesis on.
    pub chain: Vec<MinerBlock>,
}

/// Blocks that nominate different peers.
pub fn nominating(blocks: Vec<MinerBlock>, name: &str) -> Vec<MinerBlock> {
    let nominate = |block: MinerBlock| MinerBlock {
        nominated_peer_id: if block.index == 0 { String::new() } else { format!("12D3Koo{name}{}", block.index % 5) },
        nonce: u128::from(block.index) * 7_919,
        ..block
    };
    blocks.into_iter().map(nominate).collect()
}

impl World {
    pub async fn start(backend: Backend) -> Self {
        let old = nominating(linked(None, OLD_TIP + 1, "old"), "Old");
        let kept = &old[..=ANCESTOR as usize];
        let new = nominating(linked(kept.last(), TIP - ANCESTOR, "new"), "New");
        let store = TestStore::create(backend).await;
        store.append(old.clone(), Level::None).await;
        reorganise(&store, ANCESTOR, new.clone()).await;
        let gateway = TestGateway::over(store, &[], |config| config).await;
        Self { gateway, chain: [kept, &new].concat(), old }
    }

    /// The page at a path.
    pub async fn page(&self, path: &str) -> Document {
        page(&self.gateway, path).await
    }
}

/// Puts `branch` in place of the blocks above `ancestor`.
pub async fn reorganise(store: &TestStore, ancestor: u64, branch: Vec<MinerBlock>) {
    let opened = store.open().await;
    let mut writer = opened.write().await.unwrap();
    let competing = branch.last().map(|block| block.hash.clone());
    let end: ChainEnd = parent(ancestor, &branch[0].previous_hash);
    writer.rewind(Some(ancestor), "heavier chain", competing.as_deref(), 1_700_001_000).await.unwrap();
    writer.append(verifier(Level::None).verify(Some(&end), branch).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
    opened.close().await;
}

/// Stores blocks beside the chain, as gossip does.
pub async fn add_orphans(store: &TestStore, blocks: &[MinerBlock]) {
    let opened = store.open().await;
    let mut writer = opened.write().await.unwrap();
    writer.add_orphans(blocks, Level::None).await.unwrap();
    writer.commit().await.unwrap();
    opened.close().await;
}

/// The text of the main part of a page, with spaces as they are shown.
pub fn text(document: &Document) -> String {
    document.one("main").text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// A request as browsers send it.
pub async fn visit(gateway: &TestGateway, path: &str) -> Reply {
    gateway.get_with(path, "accept", "text/html,application/xhtml+xml,*/*;q=0.8").await
}

/// The page at a path, which must be there.
pub async fn page(gateway: &TestGateway, path: &str) -> Document {
    let reply = visit(gateway, path).await;
    let body = String::from_utf8(reply.body.to_vec()).unwrap();
    assert_eq!(reply.status, 200, "{path}: {body}");
    assert!(reply.header("content-type").unwrap().starts_with("text/html"), "{path}");
    Document::parse(&body)
}

/// A number as pages write it.
pub fn grouped(number: &str) -> String {
    number.replace('_', "\u{202f}")
}

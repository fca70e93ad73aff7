//! `node --mine`, and a node that follows it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use modal_gateway::{
    source::job::{SyncState, SyncStatus},
    store::{self, BlockStore, OpenOptions},
};

use crate::{WorkDir, support::until::eventually};

/// SHA-256, and no schedule, so that blocks come at a steady pace: some 26,000 hashes each.
const NETWORK: &str = "name = 'fast'\ninitial_difficulty = 100\ndifficulty_schedule = false\n\
                       [pow]\nalgorithm = 'sha256'\n";

const NOMINEE: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// A node's process, killed if the test fails.
struct Running(Child);

impl Running {
    /// Ends it as Ctrl-C does; its exit code.
    fn stop(mut self) -> Option<i32> {
        Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node with a store and a key of its own; and its address.
fn node(dir: &WorkDir, name: &str, args: &[&str]) -> (Running, String) {
    let (url, key) = (format!("sqlite://{name}.db"), format!("{name}.key"));
    let own = ["node", "--network", "fast.toml", "--database-url", &url, "--identity", &key];
    let mut command = dir.command([&own[..], &["--listen", "/ip4/127.0.0.1/tcp/0"], args].concat());
    let mut child = command.env("RUST_LOG", "warn").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.strip_prefix("libp2p ")?.to_owned())).unwrap();
    std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
    (Running(child), address)
}

async fn open(dir: &WorkDir, name: &str) -> Arc<dyn BlockStore> {
    let url = format!("sqlite://{}", dir.path(&format!("{name}.db")).display());
    store::open(&url, &OpenOptions::default()).await.unwrap()
}

async fn length(store: &Arc<dyn BlockStore>) -> u64 {
    store.state().await.unwrap().length
}

#[tokio::test(flavor = "multi_thread")]
async fn mined_blocks_reach_a_node_that_listens() {
    let dir = WorkDir::new();
    dir.write("fast.toml", NETWORK);
    let (miner, address) = node(&dir, "miner", &["--mine", "--mine-nominee", NOMINEE]);
    // It looks at the peers' tips once, and from then on only listens.
    let peer = format!("miner={address}");
    let (listener, _) = node(&dir, "listener", &["--peer", &peer, "--sync-interval", "60m"]);
    let (mined, heard) = (open(&dir, "miner").await, open(&dir, "listener").await);
    eventually(async || {
        let status = SyncStatus::read(&*heard, true).await.unwrap();
        (status.state == SyncState::Synced && length(&heard).await > 0).then_some(())
    })
    .await;
    let level = length(&heard).await;
    eventually(async || (length(&heard).await >= level + 3).then_some(())).await;

    let tip = heard.state().await.unwrap().tip.unwrap();
    let (block, _) = mined.block_at(tip.index).await.unwrap().unwrap();
    assert_eq!((&block.hash, block.nominated_peer_id.as_str()), (&tip.hash, NOMINEE));
    assert_eq!((miner.stop(), listener.stop()), (Some(0), Some(0)));
    for url in ["sqlite://miner.db", "sqlite://listener.db"] {
        dir.run(["verify", "--network", "fast.toml", "--database-url", url]).ok();
    }
}

#[test]
fn mining_options_go_with_mine() {
    let dir = WorkDir::new();
    for args in [
        &["node", "--mine-threads", "2"][..],
        &["node", "--mine", "--mine-threads", "0"],
        &["node", "--mine", "--mine-nominee", "me"],
    ] {
        assert_eq!(dir.run(args).code, 2, "{args:?}");
    }
}

//! `examples/miner_block_sync.rs` prints what the protocol's document shows. `cargo test` builds it.

use std::{path::PathBuf, process::Command};

use rstest::rstest;

fn example() -> PathBuf {
    // This program is target/PROFILE/deps/example-HASH.
    let this = std::env::current_exe().unwrap();
    this.parent().and_then(|deps| deps.parent()).unwrap().join("examples/miner_block_sync")
}

fn synced(from: u64, to: u64) -> String {
    (from..=to)
        .map(|i| format!("  Block {i:2}: epoch=0, peer=QmMiner{:02}, hash=block_hash_{i:03}\n", i % 10))
        .collect()
}

#[rstest]
#[case::tcp(&[], "")]
#[case::websocket(&["--ws"], "/ws")]
fn the_example_prints_what_the_document_shows(#[case] arguments: &[&str], #[case] transport: &str) {
    let output = Command::new(example()).args(arguments).output().expect("`cargo build --examples` makes it");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));

    // Ids and ports are made anew each time.
    let mut ids = Vec::new();
    let mut masked = String::new();
    for line in stdout.lines() {
        if let Some(id) = line.strip_prefix("    Peer ID: 12D3KooW") {
            assert_eq!(id.len(), 44, "{line}");
            ids.push(id);
            masked += "    Peer ID: 12D3KooW...\n";
        } else if let Some(address) = line.strip_prefix("    Listening: /ip4/127.0.0.1/tcp/") {
            let port: u16 = address.strip_suffix(transport).unwrap().parse().unwrap();
            assert_ne!(port, 0);
            masked += "    Listening: ...\n";
        } else {
            masked += line;
            masked.push('\n');
        }
    }
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");

    let created: String =
        (1..=10).map(|i| format!("  ✓ Block {i}: hash=block_hash_{i:03}, peer=QmMiner{:02}\n", i % 10)).collect();
    let expected = format!(
        "=== Miner Block Sync Example ===

📦 Setting up datastores...
  ✓ Datastores created

⛏  Creating miner blocks in Node 1's datastore...
  ✓ Genesis block: hash=block_hash_000
{created}  ✓ Total blocks created: 11 (0-10)

🌐 Creating network nodes...
  ✓ Node 1:
    Peer ID: 12D3KooW...
    Listening: ...
  ✓ Node 2:
    Peer ID: 12D3KooW...
    Listening: ...

🔗 Connecting Node 2 to Node 1...
  ✓ Nodes connected

🔄 Syncing miner blocks from Node 1 to Node 2...
  ✓ Received 11 blocks from Node 1

📊 Synced Blocks:
{}
✅ Sync completed successfully!

🔎 Asking Node 1 for epoch 0...
  ✓ Epoch 0: 11 blocks
{}
🔎 Asking Node 1 for blocks 3 to 7...
  ✓ Range 3-7: 5 blocks
{}",
        synced(0, 10),
        synced(0, 10),
        synced(3, 7),
    );
    assert_eq!(masked, expected);
}

#[test]
fn other_arguments_are_refused() {
    let output = Command::new(example()).arg("--udp").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "usage: miner_block_sync [--ws]\n");
}

//! Tests of the domain on the bundled chain: 61 blocks from the network's own miner.

mod block;
mod verify;

use super::MinerBlock;

const FIXTURE: &str = include_str!("../../tests/fixtures/randomx-chain-61.ndjson");

pub(super) fn fixture() -> Vec<MinerBlock> {
    FIXTURE.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

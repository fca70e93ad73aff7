//! New blocks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{
    block::{Header, MinerBlock},
    difficulty::meets,
    network::{Enforcement, Network},
    position::ChainEnd,
    pow::{Hashing, PowError, PowMemory, PowOptions},
};

/// Hashes that a block of difficulty 1 takes on average; one of difficulty n takes n times as many. It is 2^256 by the
/// easiest target.
pub const HASHES_PER_DIFFICULTY: u64 = 256;

/// The network's genesis: index, timestamp, miner number and nonce 0, previous hash `0`, nobody nominated, the initial
/// difficulty. Blocking: computes its hash.
///
/// # Errors
/// Any [`PowError`].
pub fn genesis(network: &Network) -> Result<MinerBlock, PowError> {
    PowOptions::default().check(&network.pow)?;
    let mut hasher = Hashing::new(&network.pow, PowMemory::Light).hasher();
    let genesis = MinerBlock {
        previous_hash: "0".into(),
        target_difficulty: network.initial_difficulty,
        is_canonical: true,
        ..MinerBlock::default()
    };
    let genesis = MinerBlock { data_hash: genesis.expected_data_hash(), ..genesis };
    let hash = hasher(&format!("{}{}", genesis.header_text(), genesis.nonce), &|_| true)?;
    Ok(solved(genesis, 0, hash))
}

/// The block to mine after `parent`, all but its nonce and hash: for [`Miner::mine`]. `nominee` is the peer that the
/// miner nominates, `number` of its choice. `now`, unix seconds, becomes the timestamp, unless the parent's is later.
pub fn next_template(network: &Network, parent: &ChainEnd, nominee: &str, number: u64, now: i64) -> MinerBlock {
    let index = parent.index.saturating_add(1);
    let block = MinerBlock {
        index,
        epoch: network.epoch_numbering.epoch(index),
        timestamp: now.max(parent.timestamp),
        previous_hash: parent.hash.clone(),
        target_difficulty: match network.difficulty_schedule {
            Enforcement::Enforce | Enforcement::Report => network.next_difficulty(Some(parent)),
            // Nothing says what it should be: it stays.
            Enforcement::Off => parent.target_difficulty,
        },
        nominated_peer_id: nominee.into(),
        miner_number: number,
        is_canonical: true,
        ..MinerBlock::default()
    };
    MinerBlock { data_hash: block.expected_data_hash(), ..block }
}

/// The block with what was found.
fn solved(block: MinerBlock, nonce: u128, hash: String) -> MinerBlock {
    let block = MinerBlock { nonce, hash, ..block };
    MinerBlock { actualized_difficulty: Header::from(&block).actualized(), ..block }
}

/// Searches for nonces.
pub struct Miner {
    hashing: Hashing,
    threads: usize,
}

impl Miner {
    /// A miner for `network`. With [`PowMemory::Auto`] the difficulty decides on the mode.
    ///
    /// # Errors
    /// [`PowError::Key`] and [`PowError::Threads`] for settings that can't work.
    pub fn new(network: &Network, options: PowOptions) -> Result<Self, PowError> {
        options.check(&network.pow)?;
        Ok(Self { hashing: Hashing::new(&network.pow, options.memory), threads: options.threads() })
    }

    /// Mines `template`: the first nonce found with which its hash meets its target difficulty, or `None` if `stop`
    /// became true before. Blocking, on threads of its own. It stops within a hash, but not within the set-up of the
    /// memory.
    ///
    /// # Errors
    /// Any [`PowError`], unless another thread has found a nonce.
    pub fn mine(&self, template: MinerBlock, stop: &AtomicBool) -> Result<Option<MinerBlock>, PowError> {
        let expected = template.target_difficulty.saturating_mul(HASHES_PER_DIFFICULTY.into());
        self.hashing.expect(expected.try_into().unwrap_or(u64::MAX));
        let (header, difficulty) = (template.header_text(), template.target_difficulty);
        let over = AtomicBool::new(false);
        let search = |first: usize| {
            let mut hasher = self.hashing.hasher();
            for nonce in (first as u128..).step_by(self.threads) {
                if stop.load(Ordering::Relaxed) || over.load(Ordering::Relaxed) {
                    break;
                }
                let hash = hasher(&format!("{header}{nonce}"), &|hash| meets(hash, difficulty))?;
                if meets(&hash, difficulty) {
                    return Ok(Some((nonce, hash)));
                }
            }
            Ok(None)
        };
        // Whatever ends one thread ends them all.
        let run = |first| {
            let outcome = catch_unwind(AssertUnwindSafe(|| search(first)));
            over.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| Err(PowError::panicked(&*panic)))
        };
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|first| scope.spawn(move || run(first))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err(PowError::Stopped))).collect()
        });
        let mut outcome = Ok(None);
        for ended in outcomes {
            match ended {
                Ok(Some((nonce, hash))) => return Ok(Some(solved(template, nonce, hash))),
                Ok(None) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{EpochNumbering, Level, PowAlgorithm, Verifier, tests::fixture};

    /// A network whose hashes take no time.
    fn quick() -> Network {
        let (pow, genesis_hash) = (PowAlgorithm::Sha256, None);
        Network { pow, genesis_hash, initial_difficulty: 3, target_block_time: 10, ..Network::default() }
    }

    #[test]
    fn the_bundled_chains_network_pins_its_genesis() {
        let network = Network::devnet();
        assert_eq!(network.genesis_hash, Some(genesis(&network).unwrap().hash));
    }

    #[test]
    fn devnets_genesis_is_block_0_of_the_bundled_chain() {
        let bundled = fixture().remove(0);
        let (seen_at, height_at_time) = (bundled.seen_at, bundled.height_at_time);
        let genesis = genesis(&Network::devnet()).unwrap();
        assert_eq!(MinerBlock { seen_at, height_at_time, ..genesis }, bundled);
    }

    #[test]
    fn mined_chains_verify_across_epochs() {
        for epoch_numbering in [EpochNumbering::Plain, EpochNumbering::GenesisFirst] {
            let network = Network { epoch_numbering, ..quick() };
            let miner = Miner::new(&network, PowOptions::default()).unwrap();
            let verifier = Verifier::new(&network, Level::Pow, PowOptions::default()).unwrap();
            let genesis = genesis(&network).unwrap();
            let mut end = verifier.verify(None, vec![genesis.clone()]).unwrap().end().cloned().unwrap();
            let mut blocks = vec![genesis];
            for index in 1..130_i64 {
                // Epochs of 2 s a block, then of 30 s.
                let now = if index < 80 { 2 * index } else { 160 + 30 * (index - 80) };
                let template = next_template(&network, &end, "nominee", index.unsigned_abs(), now);
                let block = miner.mine(template, &AtomicBool::new(false)).unwrap().unwrap();
                end = verifier.verify(Some(&end), vec![block.clone()]).unwrap().end().cloned().unwrap();
                blocks.push(block);
            }
            let difficulties: Vec<_> = [1, 45, 90, 129].iter().map(|index| blocks[*index].target_difficulty).collect();
            assert_eq!(difficulties, [3, 12, 48, 24]);
            assert_eq!(verifier.verify(None, blocks).unwrap().end(), Some(&end));
        }
    }

    #[test]
    fn without_a_schedule_the_difficulty_stays() {
        let end = |index| ChainEnd { index, hash: "0".into(), timestamp: 0, target_difficulty: 7, epoch_started: 0 };
        let mined = |network: &Network| next_template(network, &end(40), "nominee", 0, 0).target_difficulty;
        assert_eq!(mined(&Network { difficulty_schedule: Enforcement::Off, ..quick() }), 7);
        assert_eq!(mined(&quick()), 56, "an epoch that took no time");
    }

    #[test]
    fn mining_stops_when_told() {
        let miner = Miner::new(&quick(), PowOptions::default()).unwrap();
        let impossible = MinerBlock { target_difficulty: u128::MAX, ..MinerBlock::default() };
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let mined = scope.spawn(|| miner.mine(impossible, &stop));
            stop.store(true, Ordering::Relaxed);
            assert_eq!(mined.join().unwrap(), Ok(None));
        });
    }

    #[test]
    fn a_template_is_never_older_than_its_parent() {
        let parent = ChainEnd {
            index: u64::MAX - 1,
            hash: "parent".into(),
            timestamp: 1000,
            target_difficulty: 7,
            epoch_started: 900,
        };
        let template = |now| next_template(&quick(), &parent, "nominee", 5, now);
        assert_eq!((template(999).timestamp, template(1001).timestamp), (1000, 1001));
        assert_eq!((template(0).index, template(0).previous_hash), (u64::MAX, "parent".into()));
        assert_eq!(template(0).data_hash, template(0).expected_data_hash());
    }

    #[test]
    fn the_networks_own_miner_finds_the_same() {
        let blocks = fixture();
        let (network, options) = (Network::devnet(), PowOptions { threads: 1, memory: PowMemory::Light });
        // Its nonce is 4: five hashes.
        let (parent, expected) = (ChainEnd::new(&blocks[52], &blocks[41]), &blocks[53]);
        let MinerBlock { nominated_peer_id, miner_number, timestamp, seen_at, height_at_time, .. } = expected;
        let template = next_template(&network, &parent, nominated_peer_id, *miner_number, *timestamp);
        let mined = Miner::new(&network, options).unwrap().mine(template, &AtomicBool::new(false)).unwrap().unwrap();
        assert_eq!(MinerBlock { seen_at: *seen_at, height_at_time: *height_at_time, ..mined }, *expected);
    }
}

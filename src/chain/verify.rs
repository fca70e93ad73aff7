//! The rules of a chain. [`Verifier`] turns blocks from outside into [`VerifiedBlocks`], the only thing a store
//! appends.

use std::{collections::HashSet, sync::Arc};

use super::{
    block::{Deviation, Header, MinerBlock},
    difficulty::{CumulativeDifficulty, meets},
    encoding::has_hash_form,
    network::{Enforcement, Network},
    position::ChainEnd,
    pow::{HashPool, PowError, PowOptions},
};

pub(super) mod derived;
mod rules;
mod storable;

use rules::shorten;
pub use rules::{Level, Rule, VerifyError, Violation};
pub use storable::check_storable;

/// Blocks that a [`Verifier`] has passed: a contiguous, linked run, possibly empty.
#[derive(Debug, Clone)]
pub struct VerifiedBlocks {
    blocks: Vec<MinerBlock>,
    level: Level,
    end: Option<ChainEnd>,
}

impl VerifiedBlocks {
    /// The blocks in ascending order of their indexes.
    pub fn blocks(&self) -> &[MinerBlock] {
        &self.blocks
    }

    /// How far they are verified.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The end of the chain after the last block; without blocks, the parent that was given.
    pub fn end(&self) -> Option<&ChainEnd> {
        self.end.as_ref()
    }

    /// The blocks, taken out.
    pub fn into_blocks(self) -> Vec<MinerBlock> {
        self.blocks
    }

    /// All but the first `count` of them.
    pub fn without_first(mut self, count: usize) -> Self {
        self.blocks.drain(..count.min(self.blocks.len()));
        self
    }

    /// How many blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// Applies a network's rules up to a level. Clones share the proof-of-work threads.
#[derive(Debug, Clone)]
pub struct Verifier {
    network: Arc<Network>,
    level: Level,
    pow: PowOptions,
    pool: HashPool,
}

impl Verifier {
    /// A verifier for `network`. `pow` says how RandomX hashes are computed at [`Level::Pow`]; it is not used
    /// otherwise. SHA-256 runs on the caller's thread.
    ///
    /// # Errors
    /// [`PowError::Key`] and [`PowError::Threads`] for settings that can't work at this level.
    pub fn new(network: &Network, level: Level, pow: PowOptions) -> Result<Self, PowError> {
        let pool = HashPool::new(&network.pow, pow);
        Self { network: Arc::new(network.clone()), level, pow, pool }.at(level)
    }

    /// The same with another level, and with the same threads.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn at(&self, level: Level) -> Result<Self, PowError> {
        if level >= Level::Pow {
            self.pow.check(&self.network.pow)?;
        }
        Ok(Self { level, ..self.clone() })
    }

    /// How far it verifies.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The same, for a network whose genesis is this one.
    pub fn with_genesis(&self, hash: &str) -> Self {
        let network = Network { genesis_hash: Some(hash.into()), ..(*self.network).clone() };
        Self { network: Arc::new(network), ..self.clone() }
    }

    /// The proof-of-work hash of a block alone, where that proves that the block was forged: the hash that it
    /// claims is not that of its header. Nothing is computed below [`Level::Pow`]. Blocking.
    ///
    /// # Errors
    /// [`VerifyError::Violation`] with [`Rule::Hash`]; [`VerifyError::Pow`].
    pub fn verify_hash(&self, block: &MinerBlock) -> Result<(), VerifyError> {
        if self.level < Level::Pow {
            return Ok(());
        }
        check_hashes(&self.pool, std::slice::from_ref(block))
    }

    /// Says how many blocks are still to be verified, as far as one knows: what [`PowMemory::Auto`](super::PowMemory)
    /// goes by. With 0 the large memory is released, by each thread when it hashes next. Cheap.
    pub fn expect(&self, hashes: u64) {
        self.pool.expect(hashes);
    }

    /// Verifies a run of blocks that follows `parent`, or starts a chain without one. Blocking and, at [`Level::Pow`],
    /// heavy on the CPU. The cheap rules are applied to all blocks before the first hash is computed; of each kind the
    /// violation with the lowest index is the one reported. From [`Level::Linked`] on, what the network's settings only
    /// report is written into the blocks' [`deviations`](MinerBlock::deviations).
    ///
    /// # Errors
    /// [`VerifyError::Violation`] names the block and the rule; [`VerifyError::Pow`] says that nothing is proven either
    /// way.
    pub fn verify(&self, parent: Option<&ChainEnd>, blocks: Vec<MinerBlock>) -> Result<VerifiedBlocks, VerifyError> {
        self.apply(parent, blocks, false)
    }

    /// See [`verify`](Self::verify); the derived members of blocks that are `derived` are not computed again.
    fn apply(
        &self,
        parent: Option<&ChainEnd>,
        mut blocks: Vec<MinerBlock>,
        derived: bool,
    ) -> Result<VerifiedBlocks, VerifyError> {
        let mut walk = Walk::new(self, parent);
        for block in &mut blocks {
            check_storable(block)?;
            let header = Header::from(&*block);
            let deviations = walk.follow(&header)?;
            if self.level >= Level::Linked {
                block.deviations = deviations;
            }
            if self.level >= Level::Linked && !derived {
                check_body(&self.network, block, &header)?;
            }
        }
        let end = walk.end;
        if self.level >= Level::Pow {
            check_hashes(&self.pool, &blocks)?;
        }
        Ok(VerifiedBlocks { blocks, level: self.level, end })
    }

    /// Applies to a run of headers what of the rules they show, short of the proof-of-work hash. The end of the chain
    /// after the last of them, and the work that they claim: nothing is proven before their hashes are computed.
    ///
    /// # Errors
    /// The first violation.
    pub fn verify_headers(
        &self,
        parent: Option<&ChainEnd>,
        headers: &[Header],
    ) -> Result<(Option<ChainEnd>, CumulativeDifficulty), Violation> {
        let mut walk = Walk::new(self, parent);
        for header in headers {
            walk.follow(header)?;
        }
        Ok((walk.end, headers.iter().map(Header::actualized).sum()))
    }
}

/// A walk along a chain that applies the cheap rules of headers.
struct Walk<'a> {
    network: &'a Network,
    level: Level,
    now: i64,
    end: Option<ChainEnd>,
    seen: HashSet<String>,
}

impl<'a> Walk<'a> {
    fn new(verifier: &'a Verifier, parent: Option<&ChainEnd>) -> Self {
        Self {
            network: &verifier.network,
            level: verifier.level,
            now: super::unix_now(),
            end: parent.cloned(),
            seen: parent.map(|parent| parent.hash.clone()).into_iter().collect(),
        }
    }

    /// Goes on to the next block; what of it deviates from a rule that is only reported.
    fn follow(&mut self, block: &Header) -> Result<Vec<Deviation>, Violation> {
        self.check_place(block)?;
        let deviations = if self.level >= Level::Linked { self.check_fields(block)? } else { Vec::new() };
        self.seen.insert(block.hash.clone());
        self.end = Some(ChainEnd::after(self.end.as_ref(), block, self.network.epoch_numbering));
        Ok(deviations)
    }

    /// Index, link, genesis and checkpoints.
    fn check_place(&self, block: &Header) -> Result<(), Violation> {
        match &self.end {
            Some(parent) => check_follows(parent.index, &parent.hash, block)?,
            None => {
                ensure(block.index == 0, block, Rule::Index, || "expected index 0".into())?;
                self.check_genesis(block)?;
            }
        }
        let checkpoint = self.network.checkpoints.iter().find(|checkpoint| checkpoint.index == block.index);
        if let Some(checkpoint) = checkpoint {
            ensure(block.hash == checkpoint.hash, block, Rule::Checkpoint, || {
                format!("the network's checkpoint here has the hash {}", shorten(&checkpoint.hash))
            })?;
        }
        ensure(!self.seen.contains(&block.hash), block, Rule::Link, || "an earlier block has the same hash".into())
    }

    fn check_genesis(&self, block: &Header) -> Result<(), Violation> {
        match &self.network.genesis_hash {
            Some(hash) => ensure(block.hash == *hash, block, Rule::Genesis, || {
                format!("the network's genesis has the hash {}{}", shorten(hash), Network::owner_of(&block.hash))
            }),
            None => ensure(self.level < Level::Linked || block.previous_hash == "0", block, Rule::Genesis, || {
                "its previous hash is not `0`, and the network's settings give no other genesis".into()
            }),
        }
    }

    /// What a header shows from [`Level::Linked`] on, cheapest first.
    fn check_fields(&self, block: &Header) -> Result<Vec<Deviation>, Violation> {
        ensure(has_hash_form(&block.hash), block, Rule::HashForm, || "expected 64 lower-case hex digits".into())?;
        let earliest = self.network.minimum_block_timestamp.filter(|_| block.index > 0);
        ensure(earliest.is_none_or(|earliest| block.timestamp >= earliest), block, Rule::MinimumTimestamp, || {
            format!("its timestamp {} is before {}", block.timestamp, earliest.unwrap_or_default())
        })?;
        let mut deviations = Vec::new();
        let most = self.network.max_seconds_ahead;
        let in_time = || block.timestamp <= self.now.saturating_add_unsigned(most);
        let ahead = || format!("its timestamp {} is more than {most} s ahead of now, {}", block.timestamp, self.now);
        deviations.extend(applied(self.network.timestamps(), in_time, block, Rule::Timestamp, ahead)?);
        let difficulty = block.target_difficulty;
        ensure(difficulty != 0, block, Rule::Difficulty, || "its difficulty is zero".into())?;
        // Before the schedule, which earlier blocks may break too: the block alone proves that it misses its own
        // target.
        ensure(block.index == 0 || meets(&block.hash, difficulty), block, Rule::Target, || {
            format!("its hash is not below the target of difficulty {difficulty}")
        })?;
        let scheduled = || self.network.next_difficulty(self.end.as_ref());
        let as_scheduled = || difficulty == scheduled();
        let other = || format!("its difficulty must be {}, it claims {difficulty}", scheduled());
        deviations.extend(applied(self.network.difficulty_schedule, as_scheduled, block, Rule::Schedule, other)?);
        Ok(deviations)
    }
}

/// Applies a rule as far as it is enforced; the deviation to report if it is broken.
fn applied(
    enforcement: Enforcement,
    holds: impl FnOnce() -> bool,
    block: &Header,
    rule: Rule,
    detail: impl FnOnce() -> String,
) -> Result<Option<Deviation>, Violation> {
    match enforcement {
        Enforcement::Off => Ok(None),
        Enforcement::Enforce => ensure(holds(), block, rule, detail).map(|()| None),
        Enforcement::Report if holds() => Ok(None),
        Enforcement::Report => Ok(rule.deviation()),
    }
}

/// Index and link.
fn check_follows(parent_index: u64, parent_hash: &str, block: &Header) -> Result<(), Violation> {
    let wanted = parent_index.checked_add(1);
    ensure(wanted == Some(block.index), block, Rule::Index, || match wanted {
        Some(wanted) => format!("expected index {wanted}"),
        None => "its parent has the last index there is".into(),
    })?;
    ensure(block.previous_hash == parent_hash, block, Rule::Link, || {
        let (found, expected) = (shorten(&block.previous_hash), shorten(parent_hash));
        format!("its previous hash is {found}, its parent's hash {expected}")
    })
}

/// What a block shows beyond its header: that its derived members are those that follow from the others.
fn check_body(network: &Network, block: &MinerBlock, header: &Header) -> Result<(), Violation> {
    let epoch = network.epoch_numbering.epoch(block.index);
    ensure(block.epoch == epoch, header, Rule::Epoch, || format!("its epoch is {epoch}, it claims {}", block.epoch))?;
    let data_hash = block.expected_data_hash();
    ensure(block.data_hash == data_hash, header, Rule::DataHash, || {
        format!("its miner's data has {data_hash}, it claims {}", shorten(&block.data_hash))
    })?;
    let actual = header.actualized();
    ensure(block.actualized_difficulty == actual, header, Rule::ActualizedDifficulty, || {
        format!("its hash is worth {actual}, it claims {}", block.actualized_difficulty)
    })
}

/// That the hashes are those of the headers.
fn check_hashes(pool: &HashPool, blocks: &[MinerBlock]) -> Result<(), VerifyError> {
    let texts = blocks.iter().map(|block| format!("{}{}", block.header_text(), block.nonce));
    let unequal = pool.first_unequal(texts.zip(blocks.iter().map(|block| block.hash.as_str())))?;
    match unequal.and_then(|(at, hash)| Some((blocks.get(at)?, hash))) {
        None => Ok(()),
        Some((block, hash)) => Err(Violation {
            index: block.index,
            hash: block.hash.clone(),
            rule: Rule::Hash,
            detail: format!("its header hashes to {hash}"),
        }
        .into()),
    }
}

fn ensure(holds: bool, block: &Header, rule: Rule, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds {
        return Ok(());
    }
    Err(Violation { index: block.index, hash: block.hash.clone(), rule, detail: detail() })
}

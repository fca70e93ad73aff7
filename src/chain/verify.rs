//! The rules of a chain. [`Verifier`] turns blocks from outside into [`VerifiedBlocks`], the only thing a store appends.

use std::{collections::HashSet, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    block::{MAX_BLOCK_BYTES, MinerBlock},
    difficulty::{actualized, meets},
    network::Network,
    pow::{HashPool, PowError},
};

/// How far blocks are verified. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What a store relies on: contiguous indexes, links, sizes. For sources that are trusted.
    None,
    /// All that can be told without the proof-of-work hash: whether the hash belongs to the header stays open.
    Linked,
    /// The hash of each header is computed.
    Pow,
}

impl Level {
    /// The name: `none`, `linked` or `pow`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Linked => "linked",
            Self::Pow => "pow",
        }
    }

    /// The number that a store keeps: 0, 1 or 2, in the order of the levels.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// The level with this [`code`](Self::code).
    pub fn from_code(code: i64) -> Option<Self> {
        [Self::None, Self::Linked, Self::Pow].into_iter().find(|level| level.code() == code)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no [`Level`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown verification level `{0}`: expected `none`, `linked` or `pow`")]
pub struct ParseLevelError(String);

impl FromStr for Level {
    type Err = ParseLevelError;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut levels = [Self::None, Self::Linked, Self::Pow].into_iter();
        levels.find(|level| level.as_str() == name).ok_or_else(|| ParseLevelError(name.into()))
    }
}

/// A rule that a block can violate. The first five hold at every level, [`Hash`](Rule::Hash) at [`Level::Pow`] only, the
/// others from [`Level::Linked`] on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The block's JSON text has at most [`MAX_BLOCK_BYTES`].
    Size,
    /// No text has a NUL character (databases don't store it), and the hash isn't empty.
    Text,
    /// Indexes count up by one from the parent's, or from 0.
    Index,
    /// The previous hash is the parent's hash, and no hash occurs twice.
    Link,
    /// The first block is the network's genesis; see [`Network::genesis_hash`]. A pinned hash holds at every level.
    Genesis,
    /// The hash is 64 lower-case hex digits.
    HashForm,
    /// A block isn't canonical and orphaned at once.
    Status,
    /// The epoch is the index's in the network's numbering.
    Epoch,
    /// The data hash belongs to the miner's data.
    DataHash,
    /// The target difficulty isn't zero.
    Difficulty,
    /// The actualized difficulty follows from the hash.
    ActualizedDifficulty,
    /// The hash is below the difficulty's target; not for genesis.
    Target,
    /// The hash is the proof-of-work hash of header and nonce.
    Hash,
}

impl Rule {
    /// The name: snake_case, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Text => "text",
            Self::Index => "index",
            Self::Link => "link",
            Self::Genesis => "genesis",
            Self::HashForm => "hash_form",
            Self::Status => "status",
            Self::Epoch => "epoch",
            Self::DataHash => "data_hash",
            Self::Difficulty => "difficulty",
            Self::ActualizedDifficulty => "actualized_difficulty",
            Self::Target => "target",
            Self::Hash => "hash",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A block that breaks a rule: provably the fault of whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {index} ({shown}) violates rule `{rule}`: {detail}", shown = shorten(hash))]
pub struct Violation {
    /// Index that the block claims.
    pub index: u64,
    /// Hash that the block claims.
    pub hash: String,
    /// The rule.
    pub rule: Rule,
    /// What is wrong, with both values where there are two.
    pub detail: String,
}

/// Why blocks are not verified.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    /// A block breaks a rule.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The proof of work could not be computed: the fault of this machine, of no block.
    #[error(transparent)]
    Pow(#[from] PowError),
}

/// Where a block stands: what its child must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Index of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
}

impl From<&MinerBlock> for Position {
    fn from(block: &MinerBlock) -> Self {
        Self { index: block.index, hash: block.hash.clone() }
    }
}

/// Blocks that a [`Verifier`] has passed: a contiguous, linked run, possibly empty.
#[derive(Debug, Clone)]
pub struct VerifiedBlocks {
    blocks: Vec<MinerBlock>,
    level: Level,
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

    /// The blocks, taken out.
    pub fn into_blocks(self) -> Vec<MinerBlock> {
        self.blocks
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
    /// Only at [`Level::Pow`].
    pool: Option<HashPool>,
}

impl Verifier {
    /// A verifier for `network`. `threads` is how many compute RandomX hashes at [`Level::Pow`]; it is not used otherwise.
    /// With the first hash each thread builds a cache of 256 MiB for itself, which takes it some 0.6 s, and then computes
    /// about 27 hashes a second. SHA-256 runs on the caller's thread.
    ///
    /// # Errors
    /// [`PowError::Key`] and [`PowError::Threads`] for settings that can't work.
    pub fn new(network: &Network, level: Level, threads: usize) -> Result<Self, PowError> {
        let pool = (level >= Level::Pow).then(|| HashPool::new(&network.pow, threads)).transpose()?;
        Ok(Self { network: Arc::new(network.clone()), level, pool })
    }

    /// How far it verifies.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Verifies a run of blocks that follows `parent`, or starts a chain without one. Blocking and, at [`Level::Pow`],
    /// heavy on the CPU. The cheap rules are applied to all blocks before the first hash is computed; of each kind the
    /// violation with the lowest index is the one reported.
    ///
    /// # Errors
    /// [`VerifyError::Violation`] names the block and the rule; [`VerifyError::Pow`] says that nothing is proven either
    /// way.
    pub fn verify(&self, parent: Option<&Position>, blocks: Vec<MinerBlock>) -> Result<VerifiedBlocks, VerifyError> {
        let mut seen: HashSet<&str> = parent.map(|parent| parent.hash.as_str()).into_iter().collect();
        let mut previous = parent.map(|parent| (parent.index, parent.hash.as_str()));
        for block in &blocks {
            check_storable(block)?;
            self.check_place(previous, block)?;
            if !seen.insert(&block.hash) {
                return Err(violation(block, Rule::Link, "an earlier block has the same hash".into()).into());
            }
            if self.level >= Level::Linked {
                self.check_fields(block)?;
            }
            previous = Some((block.index, &block.hash));
        }
        if let Some(pool) = &self.pool {
            check_hashes(pool, &blocks)?;
        }
        Ok(VerifiedBlocks { blocks, level: self.level })
    }

    /// Index, link and genesis.
    fn check_place(&self, parent: Option<(u64, &str)>, block: &MinerBlock) -> Result<(), Violation> {
        let wanted = match parent {
            None => 0,
            Some((index, _)) => index
                .checked_add(1)
                .ok_or_else(|| violation(block, Rule::Index, "its parent has the last index there is".into()))?,
        };
        ensure(block.index == wanted, block, Rule::Index, || format!("expected index {wanted}"))?;
        if let Some((_, hash)) = parent {
            return ensure(block.previous_hash == hash, block, Rule::Link, || {
                let (found, expected) = (shorten(&block.previous_hash), shorten(hash));
                format!("its previous hash is {found}, its parent's hash {expected}")
            });
        }
        match &self.network.genesis_hash {
            Some(hash) => ensure(block.hash == *hash, block, Rule::Genesis, || {
                format!("the network's genesis has the hash {}", shorten(hash))
            }),
            None => ensure(self.level < Level::Linked || block.previous_hash == "0", block, Rule::Genesis, || {
                "its previous hash is not `0`, and the network's settings give no other genesis".into()
            }),
        }
    }

    /// What a block alone shows without a proof-of-work hash, cheapest first.
    fn check_fields(&self, block: &MinerBlock) -> Result<(), Violation> {
        let form = block.hash.len() == 64 && block.hash.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        ensure(form, block, Rule::HashForm, || "expected 64 lower-case hex digits".into())?;
        ensure(!(block.is_canonical && block.is_orphaned), block, Rule::Status, || {
            "it claims to be canonical and orphaned at once".into()
        })?;
        let epoch = self.network.epoch_numbering.epoch(block.index);
        ensure(block.epoch == epoch, block, Rule::Epoch, || {
            format!("its epoch is {epoch}, it claims {}", block.epoch)
        })?;
        let data_hash = block.expected_data_hash();
        ensure(block.data_hash == data_hash, block, Rule::DataHash, || {
            format!("its miner's data has {data_hash}, it claims {}", shorten(&block.data_hash))
        })?;
        let difficulty = block.target_difficulty;
        ensure(difficulty != 0, block, Rule::Difficulty, || "its difficulty is zero".into())?;
        let actual = actualized(&block.hash, difficulty);
        ensure(block.actualized_difficulty == actual, block, Rule::ActualizedDifficulty, || {
            format!("its hash is worth {actual}, it claims {}", block.actualized_difficulty)
        })?;
        ensure(block.is_genesis() || meets(&block.hash, difficulty), block, Rule::Target, || {
            format!("its hash is not below the target of difficulty {difficulty}")
        })
    }
}

/// That the hashes are those of the headers.
fn check_hashes(pool: &HashPool, blocks: &[MinerBlock]) -> Result<(), VerifyError> {
    let texts = blocks.iter().map(|block| format!("{}{}", block.header_text(), block.nonce));
    let unequal = pool.first_unequal(texts.zip(blocks.iter().map(|block| block.hash.as_str())))?;
    match unequal.and_then(|(at, hash)| Some((blocks.get(at)?, hash))) {
        None => Ok(()),
        Some((block, hash)) => Err(violation(block, Rule::Hash, format!("its header hashes to {hash}")).into()),
    }
}

/// What any block must keep to be stored at all, orphans too: [`Rule::Size`] and [`Rule::Text`].
///
/// # Errors
/// The rule that it breaks.
pub fn check_storable(block: &MinerBlock) -> Result<(), Violation> {
    let bytes = block.to_json().len();
    ensure(bytes <= MAX_BLOCK_BYTES, block, Rule::Size, || format!("{bytes} bytes, at most {MAX_BLOCK_BYTES} may be"))?;
    ensure(!block.hash.is_empty(), block, Rule::Text, || "its hash is empty".into())?;
    let mut texts = [&block.hash, &block.previous_hash, &block.data_hash, &block.nominated_peer_id]
        .into_iter()
        .chain(&block.orphan_reason)
        .chain(&block.competing_hash);
    ensure(!texts.any(|text| text.contains('\0')), block, Rule::Text, || "a text has a NUL character".into())
}

fn ensure(holds: bool, block: &MinerBlock, rule: Rule, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(violation(block, rule, detail())) }
}

fn violation(block: &MinerBlock, rule: Rule, detail: String) -> Violation {
    Violation { index: block.index, hash: block.hash.clone(), rule, detail }
}

/// A text from outside as a message shows it: at most a hash long, control characters escaped.
fn shorten(text: &str) -> String {
    let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
    if text.chars().nth(64).is_some() { shown + "…" } else { shown }
}

//! A synthetic chain whose blocks are as long as the network's, in stores of three lengths.

use std::sync::Arc;

use futures::future::try_join_all;
use modal_gateway::{
    chain::{
        BLOCKS_PER_EPOCH, EpochNumbering, Level, MinerBlock, Network, PowOptions, Verifier, difficulty::actualized,
    },
    protocol::{MAX_CHUNK, Query},
    store::{self, BlockStore, OpenOptions},
};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};

use crate::{measure::Outcome, postgres};

/// How many blocks the stores have, unless growth is measured.
pub const LENGTHS: [usize; 3] = [1_000, 10_000, 100_000];
/// Blocks asked for at once.
pub const RANGE: u64 = 40;
/// Blocks appended in one transaction.
const BATCH: usize = 1_000;
/// Different miners.
const MINERS: usize = 50;

/// A database that holds chains.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// Both.
pub const KINDS: [(Kind, &str); 2] = [(Kind::Sqlite, "SQLite"), (Kind::Postgres, "Postgres")];

/// The questions that are measured, and their names.
#[derive(Clone, Copy, PartialEq)]
pub enum Question {
    Get,
    Epoch,
    Range,
    ChainInfo,
}

/// All of them.
pub const QUESTIONS: [(Question, &str); 4] = [
    (Question::Get, "`get`"),
    (Question::Epoch, "`epoch`"),
    (Question::Range, "`range` of 40"),
    (Question::ChainInfo, "`chain_info`"),
];

/// The same chain in every store, as far as each goes.
pub struct Stores {
    /// The kinds of databases that there are.
    pub kinds: Vec<(Kind, &'static str)>,
    opened: Vec<(Kind, usize, Arc<dyn BlockStore>)>,
    folder: tempfile::TempDir,
    databases: Vec<(usize, postgres::Database)>,
}

impl Stores {
    /// Makes the chain, and a store of each of these kinds with each of these lengths: whole thousands.
    pub async fn fill(kinds: &[(Kind, &'static str)], lengths: &[usize]) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let (mut opened, mut databases) = (Vec::new(), Vec::new());
        for (kind, length) in pairs(kinds, lengths) {
            let url = match kind {
                Kind::Sqlite => sqlite_url(&folder, length),
                Kind::Postgres => {
                    let database = postgres::Database::create().await;
                    let url = database.url.clone();
                    databases.push((length, database));
                    url
                }
            };
            opened.push((kind, length, store::open(&url, &OpenOptions::default()).await?));
        }
        append_chain(&opened, lengths.iter().copied().max().unwrap_or_default()).await?;
        for (_, database) in &databases {
            // What a server does by itself, later: not while we measure.
            let mut connection = PgConnection::connect(&database.url).await?;
            sqlx::query("VACUUM (ANALYZE)").execute(&mut connection).await?;
            connection.close().await?;
        }
        Ok(Self { kinds: kinds.to_vec(), opened, folder, databases })
    }

    /// A store by its kind and length.
    pub fn get(&self, kind: Kind, length: usize) -> Outcome<Arc<dyn BlockStore>> {
        let mut opened = self.opened.iter();
        let found = opened.find(|(is, has, _)| (*is, *has) == (kind, length));
        Ok(found.ok_or("no such store")?.2.clone())
    }

    /// URL of the SQLite store of this length.
    pub fn sqlite_url(&self, length: usize) -> String {
        sqlite_url(&self.folder, length)
    }

    /// URL of a store by its kind and length.
    pub fn url(&self, kind: Kind, length: usize) -> Outcome<String> {
        let mut databases = self.databases.iter();
        match kind {
            Kind::Sqlite => Ok(self.sqlite_url(length)),
            Kind::Postgres => {
                let found = databases.find(|(has, _)| *has == length);
                Ok(found.ok_or("no such database")?.1.url.clone())
            }
        }
    }

    /// Asks `question` with parameters that are equally likely over the whole of a chain of `length` blocks.
    pub fn asker(
        &self,
        question: Question,
        length: usize,
    ) -> impl Fn() -> Query + Send + Sync + Clone + use<> + 'static {
        let blocks = length as u64;
        move || match question {
            Question::Get => Query::Get { hash: hash(fastrand::u64(..blocks)) },
            // The last epoch may not be full.
            Question::Epoch => Query::Epoch { epoch: fastrand::u64(..(blocks - 1) / BLOCKS_PER_EPOCH) },
            Question::Range => {
                let from_index = fastrand::u64(..=blocks - RANGE);
                Query::Range { from_index, to_index: from_index + RANGE - 1, chunk_size: MAX_CHUNK }
            }
            Question::ChainInfo => {
                Query::ChainInfo { local_block_hashes: Vec::new(), include_blocks: false, from_index: None }
            }
        }
    }
}

/// Each kind with each length.
fn pairs(kinds: &[(Kind, &str)], lengths: &[usize]) -> Vec<(Kind, usize)> {
    kinds.iter().flat_map(|(kind, _)| lengths.iter().map(|length| (*kind, *length))).collect()
}

/// The network of the chain: its blocks are 30 s apart.
pub fn network() -> Network {
    Network { genesis_hash: None, target_block_time: 30, ..Network::devnet() }
}

/// The same as a settings file.
pub const NETWORK_FILE: &str = "initial_difficulty = 1\ntarget_block_time = 30\n";

fn sqlite_url(folder: &tempfile::TempDir, length: usize) -> String {
    format!("sqlite://{}/chain-{length}.db", folder.path().display())
}

/// Appends the chain to every store as far as it is to go.
async fn append_chain(stores: &[(Kind, usize, Arc<dyn BlockStore>)], longest: usize) -> Outcome<()> {
    let verifier = Verifier::new(&network(), Level::Linked, PowOptions::default())?;
    let mut end = None;
    for start in (0..longest).step_by(BATCH) {
        let blocks = (start..start + BATCH).map(|index| block(index as u64)).collect();
        let verified = verifier.verify(end.as_ref(), blocks)?;
        end = verified.end().cloned();
        let longer = stores.iter().filter(|(_, length, _)| start < *length);
        try_join_all(longer.map(async |(_, _, store)| {
            let mut writer = store.write().await?;
            writer.append(verified.clone()).await?;
            writer.commit().await
        }))
        .await?;
    }
    Ok(())
}

/// The hash of the block at `index`. It meets difficulty 1, for which it begins with `000`, but no work was done for
/// it.
fn hash(index: u64) -> String {
    format!("000{}", &hex::encode(Sha256::digest(format!("block {index}")))[3..])
}

/// A block with every field as long as a real one's.
fn block(index: u64) -> MinerBlock {
    let previous_hash = index.checked_sub(1).map_or_else(|| "0".to_owned(), hash);
    let hash = hash(index);
    let miner = index as usize % MINERS;
    // So early that the last of 10,000,000 is not in the future.
    let timestamp = 1_300_000_000 + 30 * index as i64;
    let mut block = MinerBlock {
        index,
        epoch: EpochNumbering::default().epoch(index),
        timestamp,
        previous_hash,
        nonce: u128::from(index % 997),
        target_difficulty: 1,
        actualized_difficulty: actualized(&hash, 1),
        nominated_peer_id: peer_id(miner),
        miner_number: index % 1000,
        is_canonical: true,
        seen_at: Some(timestamp + 4),
        height_at_time: Some(index),
        hash,
        ..MinerBlock::default()
    };
    block.data_hash = block.expected_data_hash();
    block
}

/// A text of the form and length of a peer id.
fn peer_id(miner: usize) -> String {
    const BASE58: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let digest = Sha256::digest(format!("miner {miner}")).into_iter().chain(Sha256::digest(format!("{miner}")));
    let tail = digest.take(44).map(|byte| char::from(BASE58[usize::from(byte) % BASE58.len()]));
    "12D3KooW".chars().chain(tail).collect()
}

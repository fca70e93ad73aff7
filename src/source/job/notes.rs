//! What the sync notes in the store, where every process on it sees it: how the store stands to the network, and the
//! genesis that it has settled for where the network's settings name none.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::{BlockStore, Note, StoreError};

/// Where the store keeps the [`SyncStatus`].
const STATUS_KEY: &str = "sync_status";

/// A status that is older than this, in seconds, is that of a process that is gone: it is renewed every few seconds.
const STATUS_MAX_AGE: i64 = 30;

/// How the store stands to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// A useful peer was asked lately, and none has a better chain.
    Synced,
    /// Blocks are being fetched.
    Syncing,
    /// Neither: the reason says why.
    #[default]
    Stalled,
    /// Syncing is switched off.
    Off,
}

/// How the store stands to the network, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SyncStatus {
    /// In one word.
    pub state: SyncState,
    /// Why it is stalled.
    #[schema(required)]
    pub reason: Option<String>,
    /// Peers that answered the last check and may be trusted.
    pub useful_peers: u64,
    /// The job that runs.
    #[schema(required)]
    pub job: Option<u64>,
    /// When peers were last asked for their tips, unix seconds by the database's clock.
    #[schema(required)]
    pub checked_at: Option<i64>,
}

impl SyncState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Synced, Self::Syncing, Self::Stalled, Self::Off];

    /// The name: one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Syncing => "syncing",
            Self::Stalled => "stalled",
            Self::Off => "off",
        }
    }
}

impl SyncStatus {
    /// Stalled, for this reason.
    pub fn stalled(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }

    /// Writes it where every process on this store sees it.
    ///
    /// # Errors
    /// The store's.
    pub async fn write(&self, store: &dyn BlockStore) -> Result<(), StoreError> {
        // A status is plain data: writing it as JSON doesn't fail.
        store.put_note(STATUS_KEY, &serde_json::to_string(self).unwrap_or_default()).await
    }

    /// What the process that syncs wrote last. If that is long ago: off where this process doesn't `sync` the store
    /// either, else stalled.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(store: &dyn BlockStore, sync: bool) -> Result<Self, StoreError> {
        let note = store.get_note(STATUS_KEY).await?;
        let text = match note {
            Some(Note { value, age, .. }) if age <= STATUS_MAX_AGE => value,
            _ if !sync => return Ok(Self { state: SyncState::Off, ..Self::default() }),
            Some(Note { age, .. }) => {
                return Ok(Self::stalled(format!("no process has synced this store for {age} s")));
            }
            None => return Ok(Self::stalled("the sync has not begun yet")),
        };
        serde_json::from_str(&text).map_err(|error| StoreError::Damaged(format!("sync status: {error}")))
    }
}

/// Where the store keeps the [`Genesis`].
const GENESIS_KEY: &str = "genesis";

/// How a genesis came to be the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GenesisSource {
    /// The network's settings name it.
    Pinned,
    /// The first sync took it from one of the operator's own or the network's bootstrap peers.
    FirstSync,
    /// It was in the store before: imported, mined, or of an earlier release.
    Store,
}

/// The genesis of the network, as far as this store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Genesis {
    /// Its hash.
    pub hash: String,
    /// How it came to be the store's.
    pub source: GenesisSource,
    /// The peer that it was taken from.
    #[schema(required)]
    pub peer_id: Option<String>,
}

/// What the store has of the genesis.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GenesisNote {
    /// The first sync is under way: another genesis under more work may still take the place of the one in the store.
    Open,
    /// It is settled.
    Settled(Genesis),
}

impl Genesis {
    /// The genesis that this store has settled for; `None` where the first sync has still to find out. `pinned` is what the
    /// settings name.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(store: &dyn BlockStore, pinned: Option<&str>) -> Result<Option<Self>, StoreError> {
        let of_store = |hash: String, source| Self { hash, source, peer_id: None };
        if let Some(hash) = pinned {
            return Ok(Some(of_store(hash.into(), GenesisSource::Pinned)));
        }
        match store.get_note(GENESIS_KEY).await?.map(|note| serde_json::from_str(&note.value)) {
            Some(Ok(GenesisNote::Settled(genesis))) => Ok(Some(genesis)),
            Some(Ok(GenesisNote::Open)) => Ok(None),
            Some(Err(error)) => Err(StoreError::Damaged(format!("genesis: {error}"))),
            None => {
                let first = store.canonical_hashes(&[0]).await?.remove(&0);
                Ok(first.map(|hash| of_store(hash, GenesisSource::Store)))
            }
        }
    }

    /// Notes that the genesis which the store is about to get is not settled yet.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(store: &dyn BlockStore) -> Result<(), StoreError> {
        write(store, &GenesisNote::Open).await
    }

    /// Settles for this genesis.
    ///
    /// # Errors
    /// The store's.
    pub async fn settle(self, store: &dyn BlockStore) -> Result<(), StoreError> {
        write(store, &GenesisNote::Settled(self)).await
    }
}

async fn write(store: &dyn BlockStore, note: &GenesisNote) -> Result<(), StoreError> {
    // Plain data: writing it as JSON doesn't fail.
    store.put_note(GENESIS_KEY, &serde_json::to_string(note).unwrap_or_default()).await
}

//! What the sync writes to the store for every process on it: its status, and the genesis where the network's settings
//! name none.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    chain::words,
    store::{BlockStore, Note, StoreError},
};

/// Key of the [`SyncStatus`] in the store.
const STATUS_KEY: &str = "sync_status";

/// Oldest status in seconds that still counts: it is written anew every few seconds, unless the process is gone.
const STATUS_MAX_AGE: i64 = 30;

/// The state of the sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// A useful peer answered lately, and none has a better chain.
    Synced,
    /// Blocks are being fetched.
    Syncing,
    /// Neither, for the reason given.
    #[default]
    Stalled,
    /// Syncing is switched off.
    Off,
}

/// The status of the sync.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SyncStatus {
    /// The state.
    pub state: SyncState,
    /// Why the sync is stalled.
    #[schema(required)]
    pub reason: Option<String>,
    /// Peers that answered the last tip poll, strangers included.
    pub useful_peers: u64,
    /// The running job.
    #[schema(required)]
    pub job: Option<u64>,
    /// Time of the last tip poll, unix seconds by the database's clock.
    #[schema(required)]
    pub checked_at: Option<i64>,
}

words!(SyncState { Synced = "synced", Syncing = "syncing", Stalled = "stalled", Off = "off" });

impl SyncStatus {
    /// A stalled sync, with the reason.
    pub fn stalled(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }

    /// Writes the status to the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn write(&self, store: &dyn BlockStore) -> Result<(), StoreError> {
        // A status is plain data: writing it as JSON doesn't fail.
        store.put_note(STATUS_KEY, &serde_json::to_string(self).unwrap_or_default()).await
    }

    /// The status that the syncing process wrote last. If that is long ago: off if this process doesn't `sync` the
    /// store either, else stalled.
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

/// Key of the genesis in the store.
const GENESIS_KEY: &str = "genesis";

/// Where the store's genesis came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GenesisSource {
    /// The network's settings name it.
    Pinned,
    /// The first sync took it from a peer of the operator's or the network's own.
    FirstSync,
    /// It was in the store before: imported, mined, or from an earlier release.
    Store,
}

/// The genesis of the network in this store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Genesis {
    /// The block's hash.
    pub hash: String,
    /// Where it came from.
    pub source: GenesisSource,
    /// The peer that sent it.
    #[schema(required)]
    pub peer_id: Option<String>,
}

/// The value in the store.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GenesisNote {
    /// The first sync has not ended: another genesis with more work may replace the one in the store.
    Open,
    /// The genesis is final.
    Settled(Genesis),
}

impl Genesis {
    /// The genesis of this store; `None` before the first sync has ended. `pinned` is the one that the settings name.
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

    /// Notes that the genesis is not final yet; before the first block is written.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(store: &dyn BlockStore) -> Result<(), StoreError> {
        write(store, &GenesisNote::Open).await
    }

    /// Notes that this genesis is final.
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

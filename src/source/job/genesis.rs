//! The genesis that a store has settled for, where the network's settings name none: kept in the store itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::{BlockStore, StoreError};

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

/// What is written down.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Note {
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
            Some(Ok(Note::Settled(genesis))) => Ok(Some(genesis)),
            Some(Ok(Note::Open)) => Ok(None),
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
        write(store, &Note::Open).await
    }

    /// Settles for this genesis.
    ///
    /// # Errors
    /// The store's.
    pub async fn settle(self, store: &dyn BlockStore) -> Result<(), StoreError> {
        write(store, &Note::Settled(self)).await
    }
}

async fn write(store: &dyn BlockStore, note: &Note) -> Result<(), StoreError> {
    // Plain data: writing it as JSON doesn't fail.
    store.put_note(GENESIS_KEY, &serde_json::to_string(note).unwrap_or_default()).await
}

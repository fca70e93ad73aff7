//! The state of the gateway, and whether it can answer: `/status` and `/health`.

use std::sync::Arc;

use axum::{extract::State, http::Uri, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        envelope::{Envelope, Rejection, enveloped},
        extract,
        gateway::Gateway,
    },
    protocol::{
        Ancestor, Code, Failure,
        query::{Kind, Parameter, optional},
    },
    source::job::{AssumedBlocks, Genesis, SyncState, SyncStatus},
};

const READY: &[Parameter] = &[optional("synced", Kind::Bool)];

/// `data` of `/status`.
#[derive(Serialize, ToSchema)]
pub struct StatusData {
    /// Version of the program.
    version: &'static str,
    /// Our peer id; null without libp2p.
    #[schema(required)]
    peer_id: Option<String>,
    /// Seconds since the start.
    uptime_seconds: u64,
    /// The network that the chain belongs to.
    network: NetworkData,
    /// The chain in the store.
    chain: ChainData,
    /// State of the sync.
    sync: SyncStatus,
    /// The peers.
    peers: PeersSummary,
}

/// The network.
#[derive(Serialize, ToSchema)]
pub struct NetworkData {
    /// Name of the network.
    name: String,
    /// The only genesis that is accepted; null until the first sync has ended, where the settings name none.
    #[schema(required)]
    genesis: Option<Genesis>,
    /// Whether the difficulty schedule is a rule: `enforce`, `report` or `off`.
    difficulty_schedule: &'static str,
    /// Whether the limit of timestamps ahead of time is a rule, in the same words.
    timestamps: &'static str,
}

/// The chain in the store.
#[derive(Serialize, ToSchema)]
pub struct ChainData {
    /// Number of canonical blocks.
    length: u64,
    /// The last canonical block; null for an empty chain.
    #[schema(required)]
    tip: Option<Ancestor>,
    /// Epoch of the tip.
    #[schema(required)]
    tip_epoch: Option<u64>,
    /// Sum of the blocks' actualized difficulties, in decimal.
    cumulative_difficulty: String,
    /// How far the weakest block is verified: `pow`, `linked` or `none`; null for an empty chain.
    #[schema(required)]
    verification: Option<&'static str>,
    /// The blocks that are assumed valid, if the network has an assume-valid block and `assume_valid` is on; else null.
    #[schema(required)]
    assumed_valid: Option<AssumedBlocks>,
    /// Number of blocks beside the chain.
    orphans: u64,
    /// Canonical blocks whose difficulty is not the scheduled one, where that is only reported.
    off_schedule: u64,
    /// Canonical blocks whose timestamp was too far ahead when they were verified, where that is only reported.
    off_timestamp: u64,
}

/// The peers in numbers.
#[derive(Serialize, ToSchema)]
pub struct PeersSummary {
    /// Peers known.
    known: u64,
    /// Peers connected.
    connected: u64,
}

/// `data` of `/health/live`.
#[derive(Serialize, ToSchema)]
pub struct LiveData {
    /// `live`.
    status: &'static str,
}

/// `data` of `/health/ready`.
#[derive(Serialize, ToSchema)]
pub struct ReadyData {
    /// `ready`.
    status: &'static str,
    /// State of the sync.
    sync: SyncStatus,
}

/// State of the gateway, its chain, its sync and its peers
#[utoipa::path(get, path = "/status", tag = "gateway",
    responses((status = 200, description = "The state", body = Envelope<StatusData>)))]
pub(super) async fn get_status(State(gateway): State<Arc<Gateway>>, uri: Uri) -> Result<impl IntoResponse, Rejection> {
    extract::parameters("/status", &[], &uri)?;
    let state = gateway.source.state().await?;
    let (peers, network) = (gateway.peers(), &gateway.settings.network);
    let assumed_valid = match &network.assume_valid {
        Some(pin) => Some(gateway.source.assumed_blocks(pin).await?),
        None => None,
    };
    Ok(enveloped(StatusData {
        version: env!("CARGO_PKG_VERSION"),
        peer_id: gateway.source.p2p().map(|p2p| p2p.local_peer_id().to_string()),
        uptime_seconds: gateway.started.elapsed().as_secs(),
        network: NetworkData {
            name: network.name.clone(),
            genesis: gateway.source.genesis(network.genesis_hash.as_deref()).await?,
            difficulty_schedule: network.difficulty_schedule.as_str(),
            timestamps: network.timestamps().as_str(),
        },
        chain: ChainData {
            length: state.length,
            tip: state.tip.as_ref().map(|tip| Ancestor { index: tip.index, hash: tip.hash.clone() }),
            tip_epoch: state.tip.as_ref().map(|tip| tip.epoch),
            cumulative_difficulty: state.cumulative_difficulty.to_string(),
            verification: state.level.map(|level| level.as_str()),
            assumed_valid,
            orphans: state.total_blocks.saturating_sub(state.length),
            off_schedule: state.off_schedule,
            off_timestamp: state.off_timestamp,
        },
        sync: gateway.source.sync_status().await?,
        peers: PeersSummary {
            known: peers.len() as u64,
            connected: peers.iter().filter(|peer| peer.connected).count() as u64,
        },
    }))
}

/// Whether the process runs
#[utoipa::path(get, path = "/health/live", tag = "gateway",
    responses((status = 200, description = "It runs", body = Envelope<LiveData>)))]
pub(super) async fn check_live() -> impl IntoResponse {
    enveloped(LiveData { status: "live" })
}

/// Whether the gateway can answer from its store
#[utoipa::path(get, path = "/health/ready", tag = "gateway",
    params(("synced" = Option<bool>, Query,
        description = "Whether the store must be in sync with the network too, unless syncing is switched off")),
    responses((status = 200, description = "It can answer", body = Envelope<ReadyData>)))]
pub(super) async fn check_ready(State(gateway): State<Arc<Gateway>>, uri: Uri) -> Result<impl IntoResponse, Rejection> {
    let parameters = extract::parameters("/health/ready", READY, &uri)?;
    gateway.source.state().await?;
    let sync = gateway.source.sync_status().await?;
    let in_sync = matches!(sync.state, SyncState::Synced | SyncState::Off);
    if parameters["synced"] == true && !in_sync {
        let reason = sync.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        return Err(Failure::with_detail(Code::NotSynced, format!("{}{reason}", sync.state.as_str())).into());
    }
    Ok(enveloped(ReadyData { status: "ready", sync }))
}

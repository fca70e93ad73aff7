//! What a gateway tells of itself: `/status`, `/peers`, `/health`. In the same envelope as everything else.

use axum::{
    Router,
    extract::State,
    http::{HeaderName, Uri, header},
    response::IntoResponse,
    routing,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Gateway, error::Rejection, extract, miner_block::Envelope};
use crate::{
    p2p::PeerInfo,
    protocol::{
        Ancestor, Code, Failure,
        query::{Kind, Parameter, optional},
    },
    source::job::{Genesis, SyncState, SyncStatus},
};

/// What goes with everything that the gateway tells of itself.
pub(super) const OWN: [(HeaderName, &str); 2] =
    [(header::CACHE_CONTROL, "no-store"), (super::respond::SOURCE, "local")];

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
    /// The network whose chain it is.
    network: NetworkData,
    /// The chain in the store.
    chain: ChainData,
    /// How the store stands to the network.
    sync: SyncStatus,
    /// The peers.
    peers: PeersSummary,
}

/// The network.
#[derive(Serialize, ToSchema)]
pub struct NetworkData {
    /// Its name.
    name: String,
    /// The only genesis that is accepted; null until the first sync has ended, where the settings name none.
    #[schema(required)]
    genesis: Option<Genesis>,
    /// What becomes of a block whose difficulty is not the scheduled one: `enforce`, `report` or `off`.
    difficulty_schedule: &'static str,
    /// What becomes of a block whose timestamp is too far ahead, likewise.
    timestamps: &'static str,
}

/// The chain in the store.
#[derive(Serialize, ToSchema)]
pub struct ChainData {
    /// Number of canonical blocks.
    length: u64,
    /// The last of them; null for an empty chain.
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

/// `data` of `/peers`.
#[derive(Serialize, ToSchema)]
pub struct PeersData {
    /// The peers, configured ones first.
    peers: Vec<PeerInfo>,
    /// How many.
    count: u64,
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
    /// How the store stands to the network.
    sync: SyncStatus,
}

/// The routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(get_status))
        .routes(routes!(list_peers))
        .routes(routes!(check_live))
        .routes(routes!(check_ready))
}

/// The health of the gateway for the admin listener, which speaks plain HTTP whatever the public one does. For everybody
/// who reaches it: those who check have no token.
pub(super) fn health_routes() -> Router<Gateway> {
    Router::new().route("/health/live", routing::get(check_live)).route("/health/ready", routing::get(check_ready))
}

/// What the gateway is, what its store holds and whom it knows
#[utoipa::path(get, path = "/status", tag = "gateway",
    responses((status = 200, description = "The state", body = Envelope<StatusData>)))]
async fn get_status(State(gateway): State<Gateway>) -> Result<impl IntoResponse, Rejection> {
    let state = gateway.source.state().await?;
    let (peers, network) = (peers_of(&gateway), &gateway.settings.network);
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

/// The peers that can be named in `?peer=`, and how they have done
#[utoipa::path(get, path = "/peers", tag = "gateway",
    responses((status = 200, description = "The peers", body = Envelope<PeersData>)))]
pub(super) async fn list_peers(State(gateway): State<Gateway>) -> impl IntoResponse {
    let peers = peers_of(&gateway);
    enveloped(PeersData { count: peers.len() as u64, peers })
}

/// Whether the process runs
#[utoipa::path(get, path = "/health/live", tag = "gateway",
    responses((status = 200, description = "It runs", body = Envelope<LiveData>)))]
async fn check_live() -> impl IntoResponse {
    enveloped(LiveData { status: "live" })
}

/// Whether the gateway can answer: its store does
#[utoipa::path(get, path = "/health/ready", tag = "gateway",
    params(("synced" = Option<bool>, Query,
        description = "Whether the store must be level with the network too, unless syncing is switched off")),
    responses((status = 200, description = "It can answer", body = Envelope<ReadyData>)))]
async fn check_ready(State(gateway): State<Gateway>, uri: Uri) -> Result<impl IntoResponse, Rejection> {
    let parameters = extract::parameters("/health/ready", READY, &uri)?;
    gateway.source.state().await?;
    let sync = gateway.source.sync_status().await?;
    let level = matches!(sync.state, SyncState::Synced | SyncState::Off);
    if parameters["synced"] == true && !level {
        let reason = sync.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        return Err(Failure::with_detail(Code::NotSynced, format!("{}{reason}", sync.state.as_str())).into());
    }
    Ok(enveloped(ReadyData { status: "ready", sync }))
}

fn peers_of(gateway: &Gateway) -> Vec<PeerInfo> {
    gateway.source.p2p().map(|p2p| p2p.peers()).unwrap_or_default()
}

pub(super) fn enveloped<T: Serialize>(data: T) -> impl IntoResponse {
    (OWN, axum::Json(Envelope::ok(data)))
}

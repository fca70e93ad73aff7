//! The peers: `GET /peers` of both listeners; `POST /peers`, `DELETE /peers/{id}` and `DELETE /peers/{id}/penalties` of
//! the admin listener.
//!
//! Peers that are added, allowed or denied here are so until the process ends: use the settings for longer. Bans are
//! stored, as all penalties are.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    http::{StatusCode, Uri},
    response::IntoResponse,
};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        envelope::{Envelope, Rejection, enveloped},
        extract,
        gateway::Gateway,
    },
    p2p::{P2pClient, P2pError, PeerAddress, PeerInfo},
    protocol::{
        Code, Failure,
        query::{Kind, Parameter, optional},
    },
};

const PEERS: &str = "/peers";
const PEER: &str = "/peers/{id}";
const PENALTIES: &str = "/peers/{id}/penalties";
const REMOVAL: &[Parameter] = &[optional("ban_seconds", Kind::Integer)];

/// `data` of `/peers`.
#[derive(Serialize, ToSchema)]
pub struct PeersData {
    /// The peers, configured ones first.
    peers: Vec<PeerInfo>,
    /// Number of peers.
    count: u64,
}

/// The body of `POST /peers`: a peer to stay connected with, or one to trust or not.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Change {
    Add { address: String },
    Trust { peer: String, trust: List },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum List {
    Allow,
    Deny,
}

/// `data` of a changed peer.
#[derive(Serialize)]
struct PeerData {
    peer: Option<PeerInfo>,
}

/// The peers that can be named in `?peer=`, and their statistics
#[utoipa::path(get, path = "/peers", tag = "gateway",
    responses((status = 200, description = "The peers", body = Envelope<PeersData>)))]
pub(super) async fn list_peers(State(gateway): State<Arc<Gateway>>, uri: Uri) -> Result<impl IntoResponse, Rejection> {
    extract::parameters(PEERS, &[], &uri)?;
    let peers = gateway.peers();
    Ok(enveloped(PeersData { count: peers.len() as u64, peers }))
}

/// Adds a peer to stay connected with (body `{"address": "[ALIAS=]MULTIADDR"}`: 202, or 200 if it is there already), or
/// puts one on a list (`{"peer": ID, "trust": "allow" or "deny"}`: 200).
pub(super) async fn add_peer(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<impl IntoResponse, Rejection> {
    let (parts, body) = request.into_parts();
    extract::parameters(PEERS, &[], &parts.uri)?;
    let body = extract::read_body(&parts.headers, body).await?;
    let expected = r#"expected {"address": "[ALIAS=]MULTIADDR"} or {"peer": ID, "trust": "allow" or "deny"}"#;
    let change = serde_json::from_slice(&body).map_err(|_| Failure::with_detail(Code::MalformedBody, expected))?;
    let p2p = client(&gateway)?;
    let (status, found) = match change {
        Change::Add { address } => {
            let peer: PeerAddress = address.parse().map_err(|error| invalid("address", error))?;
            let new = p2p.add_peer(peer.clone()).await.map_err(|error| match error {
                P2pError::DuplicateAlias(_) => invalid("address", error),
                error => failure(&error),
            })?;
            let status = if new { StatusCode::ACCEPTED } else { StatusCode::OK };
            (status, p2p.peers().into_iter().find(|info| info.addresses.contains(&peer.address)))
        }
        Change::Trust { peer, trust } => {
            let id: PeerId = peer.parse().map_err(|_| invalid("peer", "expected a peer id in base58"))?;
            p2p.set_trust(id, matches!(trust, List::Allow)).map_err(|error| failure(&error))?;
            (StatusCode::OK, info(p2p, id))
        }
    };
    Ok((status, enveloped(PeerData { peer: found })))
}

/// Removes a configured peer, and disconnects it; with `?ban_seconds=` it is also banned. A peer that was never reached
/// has only an alias, and the answer's `peer` is null.
pub(super) async fn remove_peer(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<impl IntoResponse, Rejection> {
    let parameters = extract::parameters(PEER, REMOVAL, &uri)?;
    let p2p = client(&gateway)?;
    let Path(name) = id.map_err(|_| Failure::new(Code::UnknownPeer))?;
    let ban = parameters["ban_seconds"].as_u64().map(Duration::from_secs);
    let id = p2p.remove_peer(&name, ban).await.map_err(|error| failure(&error))?;
    Ok(enveloped(PeerData { peer: id.and_then(|id| info(p2p, id)) }))
}

/// Clears a peer's penalties: its score, its ban and its recent failures.
pub(super) async fn forgive_peer(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<impl IntoResponse, Rejection> {
    extract::parameters(PENALTIES, &[], &uri)?;
    let p2p = client(&gateway)?;
    let Path(name) = id.map_err(|_| Failure::new(Code::UnknownPeer))?;
    let id = p2p.forgive(&name).map_err(|error| failure(&error))?;
    Ok(enveloped(PeerData { peer: info(p2p, id) }))
}

fn client(gateway: &Gateway) -> Result<&P2pClient, Failure> {
    gateway.source.p2p().ok_or_else(|| Failure::new(Code::NoPeer))
}

fn info(p2p: &P2pClient, id: PeerId) -> Option<PeerInfo> {
    let id = id.to_string();
    p2p.peers().into_iter().find(|info| info.peer_id.as_ref() == Some(&id))
}

fn invalid(name: &str, what: impl std::fmt::Display) -> Failure {
    Failure::with_detail(Code::InvalidParameter, format!("{name}: {what}"))
}

fn failure(error: &P2pError) -> Failure {
    Failure::new(match error {
        P2pError::UnknownPeer => Code::UnknownPeer,
        P2pError::Busy => Code::Busy,
        _ => Code::Internal,
    })
}

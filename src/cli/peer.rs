//! The PEER of a command, and the node that lives only to talk to it.

use std::sync::Arc;

use bytes::Bytes;
use libp2p::{Multiaddr, identity::Keypair};

use crate::p2p::{Accepted, P2pConfig, PeerAddress, Responder};

/// What is wrong with a PEER.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("`{peer}` is not a multiaddr such as /ip4/127.0.0.1/tcp/10001: {reason}")]
    Address { peer: String, reason: String },
    #[error("`{peer}` is neither a multiaddr nor the alias or id of a configured peer ({known})")]
    Unknown { peer: String, known: String },
}

/// The address of the peer that the user means: a multiaddr, or the alias or id of a configured peer.
pub(super) fn resolve(configured: &[PeerAddress], peer: &str) -> Result<Multiaddr, PeerError> {
    if peer.starts_with('/') {
        let parsed = peer.parse::<PeerAddress>().map(|peer| peer.address);
        return parsed.map_err(|error| PeerError::Address { peer: peer.into(), reason: error.to_string() });
    }
    let is_meant = |known: &&PeerAddress| {
        known.alias.as_deref() == Some(peer) || known.peer_id().is_some_and(|id| id.to_string() == peer)
    };
    configured.iter().find(is_meant).map(|known| known.address.clone()).ok_or_else(|| {
        let known: Vec<_> = configured.iter().map(ToString::to_string).collect();
        let known = if known.is_empty() { "none is configured".into() } else { known.join(", ") };
        PeerError::Unknown { peer: peer.into(), known }
    })
}

/// A node with an identity made for the occasion, that nobody dials and that dials nobody by itself.
pub(super) fn config() -> P2pConfig {
    P2pConfig { gossip: false, target_peers: 0, ..P2pConfig::new(Keypair::generate_ed25519()) }
}

/// Answers every request with `Unknown path`.
pub(super) struct NoPaths;

impl Responder for NoPaths {
    fn accept(self: Arc<Self>, _: Bytes) -> Accepted {
        let answer = Bytes::from_static(br#"{"ok":false,"data":null,"errors":{"error":"Unknown path"}}"#);
        Accepted::short(std::future::ready(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_an_alias_or_an_id() {
        let id = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let address = format!("/ip4/192.0.2.1/tcp/1/p2p/{id}");
        let peers = [format!("node={address}").parse().unwrap()];
        for name in ["node", id, &address] {
            assert_eq!(resolve(&peers, name).unwrap().to_string(), address);
        }
        let error = resolve(&peers, "nodee").unwrap_err().to_string();
        assert!(error.contains("`nodee`") && error.contains("node=/ip4/192.0.2.1"), "{error}");
        assert!(matches!(resolve(&peers, "/ip4/x"), Err(PeerError::Address { .. })));
    }
}

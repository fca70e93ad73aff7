//! Operator's commands of the client: configured peers, bans, trust, reputations and statistics.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use tokio::sync::oneshot;

use super::{Command, P2pClient};
use crate::p2p::address::PeerAddress;
use crate::p2p::behaviour::gossip::GOSSIP_QUEUE;
use crate::p2p::error::P2pError;
use crate::p2p::peers::record::Reputation;
use crate::p2p::shared::EndpointStats;

impl P2pClient {
    /// Adds a configured peer until the end of the process. Returns whether it is new. For the operator: never pass an
    /// address that a client or a peer sent.
    ///
    /// # Errors
    /// [`P2pError::DuplicateAlias`], [`P2pError::Busy`] when there are 256 already, [`P2pError::Stopped`].
    pub async fn add_peer(&self, peer: PeerAddress) -> Result<bool, P2pError> {
        let (reply, added) = oneshot::channel();
        self.send(Command::Add { peer, reply })?;
        added.await.unwrap_or(Err(P2pError::Stopped))
    }

    /// Removes a configured peer, by its alias or base58 id, optionally bans it (for a year at most), and disconnects
    /// it once nothing is in flight to it, after at most 10 s. Returns its id; `None` for a peer that was never
    /// reached, which can't be banned.
    ///
    /// # Errors
    /// [`P2pError::UnknownPeer`], [`P2pError::Busy`], [`P2pError::Stopped`].
    pub async fn remove_peer(&self, name: &str, ban: Option<Duration>) -> Result<Option<PeerId>, P2pError> {
        let (reply, removed) = oneshot::channel();
        // Before the ban: where the command fails, nothing changes.
        let slot = self.reserve()?;
        if let Some(time) = ban {
            let mut book = self.shared.book_mut();
            if let Some(peer) = book.find_any(name) {
                book.ban(peer, time, Instant::now());
            }
        }
        slot.send(Command::Remove { name: name.into(), reply });
        removed.await.unwrap_or(Err(P2pError::Stopped))
    }

    /// Clears the score, the ban and the recent failures of a peer, by its alias or base58 id; with the next write also
    /// what is kept across restarts. Returns its id.
    ///
    /// # Errors
    /// [`P2pError::UnknownPeer`], also for an alias whose peer was never reached.
    pub fn forgive(&self, name: &str) -> Result<PeerId, P2pError> {
        let mut book = self.shared.book_mut();
        let peer = book.find_any(name).ok_or(P2pError::UnknownPeer)?;
        book.forgive(&peer);
        tracing::info!(%peer, "a peer's offences are forgiven");
        Ok(peer)
    }

    /// Puts a peer on the allow-list or the deny-list until the end of the process; a denied one is disconnected.
    ///
    /// # Errors
    /// [`P2pError::Busy`], [`P2pError::Stopped`]: nothing has changed.
    pub fn set_trust(&self, peer: PeerId, allow: bool) -> Result<(), P2pError> {
        let slot = self.reserve()?;
        self.shared.book_mut().set_trust(peer, allow);
        slot.send(Command::EnforceAdmission);
        Ok(())
    }

    /// Reputations to keep across restarts: of peers with a score or a ban, worst first, at most 1024.
    pub fn reputations(&self) -> Vec<Reputation> {
        self.shared.book().reputations(Instant::now())
    }

    /// Version of [`reputations`](Self::reputations); decay with time does not change it.
    pub fn reputation_version(&self) -> u64 {
        self.shared.book().version()
    }

    /// Restores the reputations of an earlier run.
    pub fn restore(&self, reputations: &[Reputation]) {
        self.shared.book_mut().restore(reputations, Instant::now());
        self.enforce_admission();
    }

    /// State of the libp2p endpoint.
    pub fn endpoint_stats(&self) -> EndpointStats {
        let command_limit = self.commands.max_capacity() as u64;
        let command_queue = command_limit - self.commands.capacity() as u64;
        let gossip_limit = GOSSIP_QUEUE as u64;
        EndpointStats { command_queue, command_limit, gossip_limit, ..self.shared.stats().endpoint.clone() }
    }

    /// Disconnects peers that are no longer admitted; the next discovery round does so as well.
    pub(super) fn enforce_admission(&self) {
        if let Err(error) = self.send(Command::EnforceAdmission) {
            tracing::debug!(%error, "peers that are no longer admitted are disconnected in the next discovery round");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::p2p::node::build;
    use crate::p2p::node::worker::test::{Silent, config};
    use crate::p2p::{Offence, P2pConfig};

    #[tokio::test]
    async fn nothing_changes_where_the_command_queue_is_full() {
        let config = P2pConfig { command_queue: 1, ..config() };
        let (client, _worker) = build(&config, Arc::new(Silent)).unwrap();
        let peer = PeerId::random();
        client.penalise(peer, Offence::Unreliable);
        client.enforce_admission();
        assert_eq!(client.remove_peer(&peer.to_string(), Some(Duration::from_secs(60))).await, Err(P2pError::Busy));
        assert_eq!(client.set_trust(peer, true), Err(P2pError::Busy));
        assert!(client.peers().iter().all(|info| info.banned_until.is_none()) && !client.is_trusted(&peer));
    }
}

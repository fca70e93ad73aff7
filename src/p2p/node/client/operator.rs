//! What the operator asks for while the node runs: peers to stay with, peers to leave, and what is remembered of them.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use tokio::sync::oneshot;

use super::{Command, P2pClient};
use crate::p2p::address::PeerAddress;
use crate::p2p::error::P2pError;
use crate::p2p::peers::record::Reputation;
use crate::p2p::shared::DoorStats;

impl P2pClient {
    /// Stays connected with one more peer from now on, as with those of the configuration. Tells whether it is new. For
    /// the operator: never hand it an address that a client or a peer sent.
    ///
    /// # Errors
    /// [`P2pError::DuplicateAlias`], [`P2pError::Busy`] when there are 256 already, [`P2pError::Stopped`].
    pub async fn add_peer(&self, peer: PeerAddress) -> Result<bool, P2pError> {
        let (reply, added) = oneshot::channel();
        self.send(Command::Add { peer, reply })?;
        added.await.unwrap_or(Err(P2pError::Stopped))
    }

    /// Makes a peer, by its alias or its base58 id, a stranger like any other, bans it for a time if one is given (a year
    /// at most), and disconnects it once nothing is in flight to it, 10 s later at most. Tells who it is: `None` for one that was never reached, which nobody can ban.
    ///
    /// # Errors
    /// [`P2pError::UnknownPeer`], [`P2pError::Busy`], [`P2pError::Stopped`].
    pub async fn remove_peer(&self, name: &str, ban: Option<Duration>) -> Result<Option<PeerId>, P2pError> {
        let (reply, removed) = oneshot::channel();
        if let Some(time) = ban {
            let mut book = self.shared.book_mut();
            if let Some(peer) = book.known(name) {
                book.ban(peer, time, Instant::now());
            }
        }
        self.send(Command::Forget { name: name.into(), reply })?;
        removed.await.unwrap_or(Err(P2pError::Stopped))
    }

    /// Forgets what a peer did wrong, by its alias or its base58 id: its score, its ban and its recent failures, and with
    /// the next write also what is remembered across restarts. Tells who it is.
    ///
    /// # Errors
    /// [`P2pError::UnknownPeer`], also for an alias whose peer was never reached.
    pub fn forgive(&self, name: &str) -> Result<PeerId, P2pError> {
        let mut book = self.shared.book_mut();
        let peer = book.known(name).ok_or(P2pError::UnknownPeer)?;
        book.forgive(&peer);
        tracing::info!(%peer, "a peer's offences are forgiven");
        Ok(peer)
    }

    /// Puts a peer on the allow-list or the deny-list until the end of the process; a denied one is disconnected.
    ///
    /// # Errors
    /// [`P2pError::Busy`] when too many commands wait: it is denied all the same, and disconnected a little later.
    pub fn set_trust(&self, peer: PeerId, allow: bool) -> Result<(), P2pError> {
        self.shared.book_mut().set_trust(peer, allow);
        self.send(Command::Enforce)
    }

    /// What should be remembered of peers across restarts: those with a score or a ban, worst first, 1024 at most.
    pub fn reputations(&self) -> Vec<Reputation> {
        self.shared.book().reputations(Instant::now())
    }

    /// Changes when [`reputations`](Self::reputations) does, but for what fades by itself.
    pub fn reputation_version(&self) -> u64 {
        self.shared.book().version()
    }

    /// Adds what an earlier run remembered.
    pub fn restore(&self, reputations: &[Reputation]) {
        self.shared.book_mut().restore(reputations, Instant::now());
        self.enforce();
    }

    /// What passes the door to other nodes.
    pub fn door(&self) -> DoorStats {
        let gossip = self.shared.gossip_queue();
        let queue = self.commands.max_capacity() - self.commands.capacity();
        DoorStats { gossip_queue: gossip as u64, command_queue: queue as u64, ..self.shared.counters.door() }
    }

    /// Has whoever is no longer admitted disconnected; the discovery's next round does so too.
    pub(super) fn enforce(&self) {
        if let Err(error) = self.send(Command::Enforce) {
            tracing::debug!(%error, "who is no longer admitted is disconnected later");
        }
    }
}

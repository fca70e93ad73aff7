//! Gossip about new blocks: who hears of one passes it on, once somebody here has judged it.

use bytes::Bytes;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, IdentityTransform, MessageAcceptance, MessageAuthenticity, MessageId,
    ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::{PeerId, identity::Keypair};

use crate::p2p::error::P2pError;
use crate::protocol::gossip::BLOCK_TOPIC;

/// Longest message on the wire, envelope and signature included: what the network's nodes take (gossipsub's default).
const MAX_TRANSMIT_BYTES: usize = 64 << 10;
/// Longest content of a message: the envelope needs some 200 bytes.
pub const MAX_GOSSIP_BYTES: usize = MAX_TRANSMIT_BYTES - 1024;
/// Messages that wait to be taken by [`P2pClient::gossip`](crate::p2p::P2pClient::gossip)'s receiver.
pub(crate) const GOSSIP_QUEUE: usize = 256;
/// Messages that wait to be sent to one peer; libp2p's 5000 would let a slow reader cost us 300 MiB.
const SEND_QUEUE: usize = 256;
/// Messages that a stranger may pass on per second, on average: the network finds a block a minute.
pub(crate) const PER_SECOND: f64 = 2.0;
/// And at once.
pub(crate) const BURST: f64 = 64.0;

/// A message that came by gossip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// Who passed it on to us; not always who wrote it.
    pub from: PeerId,
    /// Who wrote and signed it.
    pub author: Option<PeerId>,
    /// Its content, at most 64 KiB of anything.
    pub data: Bytes,
    /// What it is known by until it is judged.
    pub id: MessageId,
}

/// What becomes of a [`Gossip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is passed on to our peers.
    Accept,
    /// It goes no further, and nobody is to blame.
    Ignore,
    /// It goes no further, and whoever passed it on should have known.
    Reject,
}

impl From<Verdict> for MessageAcceptance {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accept => Self::Accept,
            Verdict::Ignore => Self::Ignore,
            Verdict::Reject => Self::Reject,
        }
    }
}

/// Follows one topic, and remembers of others who follows this one.
pub(crate) type Behaviour = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// The gossip of a node, subscribed to [`BLOCK_TOPIC`]. Messages are signed, ours and others'.
pub(crate) fn behaviour(keypair: &Keypair) -> Result<Behaviour, P2pError> {
    let failed = |reason: String| P2pError::Setup { part: "gossip", reason };
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(MAX_TRANSMIT_BYTES)
        .connection_handler_queue_len(SEND_QUEUE)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let topic = IdentTopic::new(BLOCK_TOPIC);
    let filter = WhitelistSubscriptionFilter([topic.hash()].into());
    let author = MessageAuthenticity::Signed(keypair.clone());
    let mut behaviour =
        Behaviour::new_with_subscription_filter(author, config, filter).map_err(|error| failed(error.into()))?;
    behaviour.subscribe(&topic).map_err(|error| failed(error.to_string()))?;
    Ok(behaviour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_is_the_networks_own_text() {
        assert_eq!(IdentTopic::new(BLOCK_TOPIC).hash().as_str(), "/miner/block");
        let behaviour = behaviour(&Keypair::generate_ed25519()).unwrap();
        let topics: Vec<_> = behaviour.topics().map(ToString::to_string).collect();
        assert_eq!(topics, ["/miner/block"]);
    }
}

//! Gossip of new blocks over gossipsub: messages are forwarded once they are validated.

use bytes::Bytes;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, IdentityTransform, MessageAuthenticity, MessageId, ValidationMode,
    WhitelistSubscriptionFilter,
};
use libp2p::{PeerId, identity::Keypair};

use crate::limits::Rate;
use crate::p2p::error::P2pError;
use crate::protocol::gossip::BLOCK_TOPIC;

/// Longest message on the wire, envelope and signature included: the network's limit (gossipsub's default).
const MAX_TRANSMIT_BYTES: usize = 64 << 10;
/// Longest content of a message: the envelope needs some 200 bytes.
pub const MAX_GOSSIP_BYTES: usize = MAX_TRANSMIT_BYTES - 1024;
/// Capacity of the channel that [`P2pClient::gossip`](crate::p2p::P2pClient::gossip) returns.
pub(crate) const GOSSIP_QUEUE: usize = 256;
/// Messages queued for one peer; libp2p's default of 5000 would hold up to 300 MiB for a slow reader.
const SEND_QUEUE: usize = 256;
/// Messages from one untrusted peer: the network finds a block a minute.
pub(crate) const RATE: Rate = Rate { per_second: 2, burst: 64 };

/// A message received by gossip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// Peer that forwarded it; not always its author.
    pub from: PeerId,
    /// Peer that wrote and signed it.
    pub author: Option<PeerId>,
    /// Unchecked content, at most 64 KiB.
    pub data: Bytes,
    /// Id of the message until its verdict is reported.
    pub id: MessageId,
}

/// Gossipsub that accepts subscriptions to one topic only.
pub(crate) type Behaviour = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// Makes a behaviour that is subscribed to [`BLOCK_TOPIC`] and signs and verifies messages.
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
    fn the_topic_is_that_of_the_network() {
        assert_eq!(IdentTopic::new(BLOCK_TOPIC).hash().as_str(), "/miner/block");
        let behaviour = behaviour(&Keypair::generate_ed25519()).unwrap();
        let topics: Vec<_> = behaviour.topics().map(ToString::to_string).collect();
        assert_eq!(topics, ["/miner/block"]);
    }
}

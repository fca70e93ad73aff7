//! Whom we have to do with.

use std::collections::HashSet;
use std::str::FromStr;

use libp2p::PeerId;

/// How far strangers are trusted. Configured peers and those of the allow-list are never strangers; who is on the
/// deny-list is refused in any mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Anybody may connect, be asked and be synced from; what they say is verified.
    #[default]
    Open,
    /// Strangers may connect and are answered, but never asked, nor is their gossip heard.
    Listed,
    /// Strangers may not even connect.
    Closed,
}

impl FromStr for Trust {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "open" => Ok(Self::Open),
            "listed" => Ok(Self::Listed),
            "closed" => Ok(Self::Closed),
            _ => Err("expected open, listed or closed"),
        }
    }
}

/// Who is trusted by the operator's word, and who is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustList {
    /// How far the others are.
    pub mode: Trust,
    /// Trusted, beside the configured peers.
    pub allow: HashSet<PeerId>,
    /// Refused; wins over everything else.
    pub deny: HashSet<PeerId>,
}

//! A peer as an operator writes it: `[ALIAS=]MULTIADDR`.

use std::fmt;
use std::str::FromStr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

pub(super) mod scope;

/// Longest alias, in characters.
const MAX_ALIAS_CHARS: usize = 64;
/// Words with a meaning of their own in `?peer=`.
const RESERVED: [&str; 3] = ["any", "auto", "local"];

/// Address of a peer, with or without its id (`/p2p/ID`), and the name that requests may use for it.
///
/// `/ip4`, `/ip6`, `/dns`, `/dns4` and `/dns6` with `/tcp/PORT` and, for WebSocket, `/ws`, `/wss` or `/tls/ws`; or
/// `/dnsaddr/DOMAIN`. Without an id, any peer that answers there is accepted, and the alias gets its id on connecting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// 1 to 64 of `A-Z a-z 0-9 _ -`; never `any`, `auto` or `local`, nor anything that reads as a peer id.
    pub alias: Option<String>,
    /// Where the peer listens.
    pub address: Multiaddr,
}

/// Error in the text of a [`PeerAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The part before `=` can't be an alias.
    #[error("alias `{0}`: 1 to 64 letters, digits, `-` and `_` are allowed")]
    Alias(String),
    /// The part before `=` means something else already.
    #[error("alias `{0}` is reserved")]
    ReservedAlias(String),
    /// Not a multiaddr at all.
    #[error("`{text}` is not a multiaddr such as /ip4/192.0.2.1/tcp/10001 or /dnsaddr/example.org: {reason}")]
    Multiaddr {
        /// The text.
        text: String,
        /// Error text of the parser.
        reason: String,
    },
    /// A multiaddr of a transport that this node does not have.
    #[error("`{0}` can't be dialled: it takes /ip4, /ip6 or /dns with /tcp/PORT, then /ws for WebSocket, or /dnsaddr")]
    Transport(Multiaddr),
}

impl PeerAddress {
    /// The id at the end of the address, if it names one.
    pub fn peer_id(&self) -> Option<PeerId> {
        peer_id(&self.address)
    }
}

/// The id at the end of `address`, if it names one.
pub(super) fn peer_id(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(id)) => Some(id),
        _ => None,
    }
}

/// Whether this node's transports can dial `address`.
pub(super) fn is_dialable(address: &Multiaddr) -> bool {
    let mut parts = address.iter().peekable();
    match parts.next() {
        Some(Protocol::Dnsaddr(_)) => {}
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => {
            if !matches!(parts.next(), Some(Protocol::Tcp(port)) if port != 0) {
                return false;
            }
            let tls = parts.next_if(|part| matches!(part, Protocol::Tls)).is_some();
            let ws = parts.next_if(|part| matches!(part, Protocol::Ws(_)) || !tls && matches!(part, Protocol::Wss(_)));
            if tls && ws.is_none() {
                return false;
            }
        }
        _ => return false,
    }
    parts.next_if(|part| matches!(part, Protocol::P2p(_)));
    parts.next().is_none()
}

fn check_alias(alias: &str) -> Result<(), AddressError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if alias.is_empty() || alias.len() > MAX_ALIAS_CHARS || !alias.chars().all(allowed) {
        return Err(AddressError::Alias(alias.into()));
    }
    // An alias that reads as an id would hide the peer that has this id.
    if RESERVED.contains(&alias) || alias.parse::<PeerId>().is_ok() {
        return Err(AddressError::ReservedAlias(alias.into()));
    }
    Ok(())
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (alias, address) = match text.split_once('=') {
            Some((alias, address)) if !alias.contains('/') => (Some(alias), address),
            _ => (None, text),
        };
        if let Some(alias) = alias {
            check_alias(alias)?;
        }
        let wrong = |reason: String| AddressError::Multiaddr { text: address.into(), reason };
        if address.is_empty() {
            return Err(wrong("it is empty".into()));
        }
        let address: Multiaddr = address.parse().map_err(|error: libp2p::multiaddr::Error| wrong(error.to_string()))?;
        if !is_dialable(&address) {
            return Err(AddressError::Transport(address));
        }
        Ok(Self { alias: alias.map(Into::into), address })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(alias) = &self.alias {
            write!(f, "{alias}=")?;
        }
        write!(f, "{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn addresses_and_aliases_are_parsed() {
        for (text, alias, has_id) in [
            ("/ip4/127.0.0.1/tcp/10001".to_string(), None, false),
            (format!("/ip4/127.0.0.1/tcp/10001/p2p/{ID}"), None, true),
            (format!("node=/dns4/node/tcp/10001/p2p/{ID}"), Some("node"), true),
            ("a-b_C9=/ip6/::1/tcp/1/ws".to_string(), Some("a-b_C9"), false),
            ("w=/dns/example.org/tcp/443/wss".to_string(), Some("w"), false),
            ("w=/dns/example.org/tcp/443/tls/ws".to_string(), Some("w"), false),
            ("boot=/dnsaddr/example.org".to_string(), Some("boot"), false),
            (format!("/dnsaddr/example.org/p2p/{ID}"), None, true),
        ] {
            let peer: PeerAddress = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(peer.alias.as_deref(), alias, "{text}");
            assert_eq!(peer.peer_id().map(|id| id.to_string()), has_id.then(|| ID.to_string()), "{text}");
            assert_eq!(peer.to_string(), text);
        }
    }

    #[test]
    fn errors_name_the_faulty_part() {
        let address = "/ip4/127.0.0.1/tcp/10001";
        for alias in ["", "ü", "a b", &"x".repeat(65)] {
            let error = format!("{alias}={address}").parse::<PeerAddress>().unwrap_err();
            assert_eq!(error, AddressError::Alias(alias.into()));
        }
        for alias in ["any", "auto", "local", ID] {
            let error = format!("{alias}={address}").parse::<PeerAddress>().unwrap_err();
            assert_eq!(error, AddressError::ReservedAlias(alias.into()));
        }
        for text in ["", "127.0.0.1:10001", "example.org", ID, "/ip4/300.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/x"] {
            let error = format!("node={text}").parse::<PeerAddress>().unwrap_err();
            assert!(matches!(&error, AddressError::Multiaddr { text: named, .. } if named == text), "{text}: {error}");
        }
        for text in [
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/tcp/0",
            "/ip4/127.0.0.1/tcp/1/tls",
            "/memory/1",
            &format!("/p2p/{ID}"),
            &format!("/ip4/127.0.0.1/tcp/1/p2p/{ID}/p2p-circuit"),
        ] {
            assert!(matches!(text.parse::<PeerAddress>(), Err(AddressError::Transport(_))), "{text}");
        }
    }
}

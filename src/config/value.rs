//! The values that settings hold: parsing them, with messages that say what was expected.

use std::{
    fmt, iter,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    str::FromStr,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use url::Url;

use super::{DatabaseUrl, layer::where_and_why};
use crate::{
    chain::{Network, network::ANY_GENESIS},
    p2p::PeerAddress,
};

/// Longest timeout that may be set.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// An address that libp2p can listen on.
fn listen_address(text: &str) -> Result<Multiaddr, String> {
    let address = text.parse::<Multiaddr>().ok().filter(|address| !address.is_empty());
    let address =
        address.ok_or_else(|| format!("`{text}` is no multiaddr; expected one such as /ip4/127.0.0.1/tcp/10001"))?;
    let parts: Vec<_> = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    match parts[..] {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]
        | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_), Protocol::Ws(_)] => Ok(address),
        _ => {
            Err(format!("`{text}` can't be listened on: it takes /ip4 or /ip6 with /tcp/PORT, then /ws for WebSocket"))
        }
    }
}

/// A string, or a number or a truth value without quotes.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }
            fn visit_str<E>(self, v: &str) -> Result<Text, E> {
                Ok(Text(v.trim().to_owned()))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Anything that is written as one word. The message quotes the word.
pub(super) fn parsed<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    let Text(text) = Text::deserialize(deserializer)?;
    text.parse().map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
}

/// Unlike [`parsed`], the message doesn't quote the value.
pub(super) fn database_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DatabaseUrl, D::Error> {
    Text::deserialize(deserializer)?.0.parse().map_err(D::Error::custom)
}

/// URLs of replicas. The message doesn't quote them either.
pub(super) fn replica_urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DatabaseUrl>, D::Error> {
    each(deserializer, |word| match word.parse::<DatabaseUrl>() {
        Ok(url) if url.is_postgres() => Ok(url),
        Err(problem) if word.starts_with("postgres") => Err(problem),
        _ => Err("expected postgres://USER:PASSWORD@HOST/DATABASE: only Postgres has replicas"),
    })
}

pub(super) fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let Text(text) = Text::deserialize(deserializer)?;
    let expected = "expected ADDRESS:PORT such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080";
    text.parse().map_err(|_| D::Error::custom(format!("`{text}`: {expected}")))
}

/// Yes or no.
pub(super) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let Text(text) = Text::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom(format!("`{text}`: expected true or false")))
}

/// A whole number from `MIN` to `MAX`.
pub(super) fn within<'de, const MIN: u64, const MAX: u64, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<u64>,
    D: Deserializer<'de>,
{
    let Text(text) = Text::deserialize(deserializer)?;
    let number = text.parse().ok().filter(|n| (MIN..=MAX).contains(n)).and_then(|n| T::try_from(n).ok());
    number.ok_or_else(|| D::Error::custom(format!("`{text}`: expected a whole number from {MIN} to {MAX}")))
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let Text(text) = Text::deserialize(deserializer)?;
    let (number, factor) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text.strip_suffix('s').unwrap_or(&text), 1.0)
    };
    let seconds = number.trim().parse::<f64>().ok().map(|seconds| seconds * factor);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.filter(|duration| !duration.is_zero() && *duration <= MAX_TIMEOUT).ok_or_else(|| {
        D::Error::custom(format!("`{text}`: expected seconds or a number with ms, s or m, above zero, at most 60m"))
    })
}

/// Where our own machine's connections come from.
pub(super) fn loopback() -> Vec<IpNet> {
    vec![Ipv4Net::new_assert([127, 0, 0, 0].into(), 8).into(), IpAddr::from(Ipv6Addr::LOCALHOST).into()]
}

/// Like `T`'s own; the message never quotes the value.
pub(super) fn some<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    Text::deserialize(deserializer)?.0.parse().map(Some).map_err(D::Error::custom)
}

pub(super) fn some_switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    switch(deserializer).map(Some)
}

/// Networks in CIDR notation, or single addresses.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    each(deserializer, |word| {
        let network = word.parse().or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| format!("`{word}`: expected an address or a network such as 10.0.0.0/8 or fd00::/8"))
    })
}

pub(super) fn peer_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PeerId>, D::Error> {
    each(deserializer, |word| {
        word.parse().map_err(|_| format!("`{word}`: expected a peer id such as 12D3KooW…, without address"))
    })
}

/// `*`, or origins as browsers send them: scheme, host, and a port that is not the scheme's own.
pub(super) fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let is_origin = |word: &str| Url::parse(word).is_ok_and(|url| url.origin().ascii_serialization() == word);
    let words = words(deserializer)?;
    match words.iter().find(|word| *word != "*" && !is_origin(word)) {
        Some(word) => Err(D::Error::custom(format!("`{word}`: expected * or an origin such as https://example.org"))),
        None => Ok(words),
    }
}

/// A list of words: an array, or a string with commas.
pub(super) fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct ListVisitor;
    impl<'de> Visitor<'de> for ListVisitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of strings")
        }
        fn visit_str<E>(self, v: &str) -> Result<Vec<String>, E> {
            Ok(v.split(',').map(str::trim).filter(|word| !word.is_empty()).map(Into::into).collect())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            iter::from_fn(|| seq.next_element().transpose()).collect()
        }
    }
    deserializer.deserialize_any(ListVisitor)
}

/// A list of words, each read by `read`.
fn each<'de, T, D: Deserializer<'de>, E: fmt::Display>(
    deserializer: D,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, D::Error> {
    words(deserializer)?.iter().map(|word| read(word).map_err(D::Error::custom)).collect()
}

pub(super) fn multiaddrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Multiaddr>, D::Error> {
    each(deserializer, listen_address)
}

pub(super) fn peers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PeerAddress>, D::Error> {
    let peers = each(deserializer, str::parse::<PeerAddress>)?;
    let mut aliases: Vec<_> = peers.iter().filter_map(|peer| peer.alias.as_deref()).collect();
    aliases.sort_unstable();
    match aliases.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(D::Error::custom(format!("the alias `{}` is given twice", pair[0]))),
        None => Ok(peers),
    }
}

/// A built-in network by name, or the one that a file describes: TOML with the fields of [`Network`], or the network's
/// own JSON.
pub(super) fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
    let Text(name) = Text::deserialize(deserializer)?;
    if let Some(network) = Network::named(&name) {
        return Ok(network);
    }
    let path = Path::new(&name);
    let failed = |problem: String| D::Error::custom(format!("network file {name}: {problem}"));
    let network = match std::fs::read_to_string(path) {
        Ok(text) if text.trim_start().starts_with('{') => {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            Network::described(&text, &stem).map_err(|error| failed(error.to_string()))?
        }
        Ok(text) => toml::from_str(&text).map_err(|error| failed(where_and_why(&text, &error)))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let known = Network::NAMES.join(", ");
            return Err(D::Error::custom(format!("`{name}` is neither a known network ({known}) nor a file")));
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    for address in &network.bootstrap {
        address.parse::<PeerAddress>().map_err(|error| failed(format!("bootstrap: {error}")))?;
    }
    Ok(network)
}

/// Addresses of nodes, which may be none: an empty word, as a flag can have it, is no address.
pub(super) fn some_peers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PeerAddress>>, D::Error> {
    let words = words(deserializer)?.into_iter().filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(D::Error::custom)).collect::<Result<_, _>>().map(Some)
}

/// `any`, or a hash.
pub(super) fn genesis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Text(text) = Text::deserialize(deserializer)?;
    let is_hash = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match is_hash || text == ANY_GENESIS {
        true => Ok(Some(text)),
        false => Err(D::Error::custom(format!("`{text}`: expected any, or a hash of 64 lower-case hex digits"))),
    }
}

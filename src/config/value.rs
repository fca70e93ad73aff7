//! The values that settings hold: parsing them, with messages that tell what was expected.

use std::{fmt, net::SocketAddr, path::Path, str::FromStr, time::Duration};

use libp2p::Multiaddr;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use crate::{chain::Network, p2p::PeerAddress};

/// Longest timeout that may be set.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// A database URL. `Display` and `Debug` hide its password; [`as_str`](Self::as_str) doesn't.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole URL, password included: for opening the store, never for printing.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for DatabaseUrl {
    fn default() -> Self {
        Self("sqlite://modal-gateway.db".into())
    }
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE";
        match text.split_once(':') {
            Some(("sqlite", rest)) if !rest.is_empty() => Ok(Self(text.into())),
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => match url::Url::parse(text) {
                Ok(_) => Ok(Self(text.into())),
                Err(_) => Err("malformed URL; special characters in the password must be percent-encoded"),
            },
            _ => Err(EXPECTED),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.starts_with("sqlite:") {
            return f.write_str(&self.0);
        }
        // The parameters go too: drivers take `?password=` there.
        let Ok(mut url) = url::Url::parse(&self.0) else { return f.write_str("postgres://***") };
        url.set_query(None);
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str("postgres://***");
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn multiaddr(text: &str) -> Result<Multiaddr, String> {
    match text.parse::<Multiaddr>() {
        Ok(address) if !address.is_empty() => Ok(address),
        _ => Err(format!("`{text}` is no multiaddr; expected one such as /ip4/127.0.0.1/tcp/10001")),
    }
}

/// A string, or a number or a truth value for those who write one without quotes.
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

/// A list of words: an array, or a string with commas.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
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
            let mut words = Vec::new();
            while let Some(word) = seq.next_element()? {
                words.push(word);
            }
            Ok(words)
        }
    }
    deserializer.deserialize_any(ListVisitor)
}

pub(super) fn multiaddrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Multiaddr>, D::Error> {
    words(deserializer)?.iter().map(|word| multiaddr(word).map_err(D::Error::custom)).collect()
}

pub(super) fn peers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PeerAddress>, D::Error> {
    let peers: Vec<PeerAddress> =
        words(deserializer)?.iter().map(|word| word.parse().map_err(D::Error::custom)).collect::<Result<_, _>>()?;
    let mut aliases: Vec<_> = peers.iter().filter_map(|peer| peer.alias.as_deref()).collect();
    aliases.sort_unstable();
    match aliases.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(D::Error::custom(format!("the alias `{}` is given twice", pair[0]))),
        None => Ok(peers),
    }
}

/// A built-in network by name, or the one that a TOML file describes.
pub(super) fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
    let Text(name) = Text::deserialize(deserializer)?;
    if let Some(network) = Network::named(&name) {
        return Ok(network);
    }
    match std::fs::read_to_string(Path::new(&name)) {
        Ok(text) => toml::from_str(&text)
            .map_err(|error| D::Error::custom(format!("network file {name}: {}", error.to_string().trim_end()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let known = Network::NAMES.join(", ");
            Err(D::Error::custom(format!("`{name}` is neither a known network ({known}) nor a file")))
        }
        Err(error) => Err(D::Error::custom(format!("network file {name}: {error}"))),
    }
}

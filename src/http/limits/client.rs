//! Clients: distinguished by their address, behind trusted proxies by the address that these forward.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use axum::http::{HeaderMap, HeaderName, header::FORWARDED};
use ipnet::IpNet;

/// The forwarding header without a standard.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The key of a client: its IPv4 address, or the first 64 bits of its IPv6 address, since a /64 belongs to one
/// customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(IpAddr);

impl ClientKey {
    /// The key of an address. An IPv4 address in IPv6 form counts as IPv4.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(ip) if !ip.is_loopback() => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }

    /// The network that may belong to one customer: the first 48 bits of an IPv6 address, the most that a site gets
    /// (RFC 6177), and what tunnel brokers give for free. `None` for IPv4, where addresses cost money, and for
    /// loopback.
    pub fn network(self) -> Option<Self> {
        match self.0 {
            IpAddr::V6(ip) if !ip.is_loopback() => Some(Self(Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80).into())),
            _ => None,
        }
    }

    /// The key as a number of its own, for code without addresses.
    pub fn number(self) -> u64 {
        match self.0 {
            // Within `::/32`, where no network is assigned.
            IpAddr::V4(ip) => 1 << 32 | u64::from(ip.to_bits()),
            IpAddr::V6(ip) if ip.is_loopback() => 1,
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        }
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The client that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client's key.
    pub key: ClientKey,
    /// Whether it has no limits of its own: it may take all that there is.
    pub unlimited: bool,
    /// Whether the connection is that of a trusted proxy, which did not say for which client it asks.
    pub unnamed: bool,
}

/// Networks whose addresses the operator treats differently.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    /// Trusted proxies: their forwarding headers are believed.
    pub proxies: Vec<IpNet>,
    /// Clients without limits, by the address of their connection, while they send no forwarding header.
    pub unlimited: Vec<IpNet>,
}

impl AddressRules {
    /// Whether `remote` may hold any number of connections: a proxy holds those of its clients.
    pub(in crate::http) fn connects_freely(&self, remote: IpAddr) -> bool {
        contains(&self.proxies, remote) || contains(&self.unlimited, remote)
    }

    /// The client that sent a request over a connection from `remote`.
    ///
    /// Each proxy appends the address of its own client to `forwarded` (RFC 7239) or `x-forwarded-for`. Read from the
    /// end, the first address that is no trusted proxy's is the client's: the client may have made up what stands
    /// before it. An entry that can't be read ends the search at the proxy that appended it. Where both headers are
    /// there and disagree, one was passed on unread: the proxy then counts as the client.
    pub fn client(&self, remote: IpAddr, headers: &HeaderMap) -> Client {
        let remote = remote.to_canonical();
        let standard = headers.contains_key(FORWARDED).then(|| self.walk(remote, headers, &FORWARDED, forwarded_for));
        let x = &X_FORWARDED_FOR;
        let other = headers.contains_key(x).then(|| self.walk(remote, headers, x, |hop| Some(hop.trim())));
        let forwarded = match (standard, other) {
            (Some(standard), Some(other)) if standard != other => Some(ClientKey::of(remote)),
            (standard, other) => standard.or(other),
        };
        Client {
            key: forwarded.unwrap_or(ClientKey::of(remote)),
            unlimited: forwarded.is_none() && contains(&self.unlimited, remote),
            unnamed: forwarded.is_none() && contains(&self.proxies, remote),
        }
    }

    /// The client by one of the headers.
    fn walk(
        &self,
        remote: IpAddr,
        headers: &HeaderMap,
        name: &HeaderName,
        read: impl Fn(&str) -> Option<&str>,
    ) -> ClientKey {
        let mut address = remote;
        for hop in hops(headers, name).rev() {
            if !contains(&self.proxies, address) {
                break;
            }
            match read(hop).and_then(read_address) {
                Some(next) => address = next,
                None => break,
            }
        }
        ClientKey::of(address)
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

fn hops<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a str> + use<'a> {
    let texts = headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or_default());
    texts.flat_map(|text| text.split(','))
}

/// `for` of one element of `forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address, with or without a port, IPv6 with or without brackets.
fn read_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("192.0.2.7", "192.0.2.7")]
    #[case("::ffff:192.0.2.7", "192.0.2.7")]
    #[case("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
    #[case("2001:db8:1:2:ffff::", "2001:db8:1:2::")]
    #[case("::1", "::1")]
    fn addresses_of_one_customer_are_one_client(#[case] address: &str, #[case] key: &str) {
        assert_eq!(ClientKey::of(address.parse().unwrap()).to_string(), key);
    }

    #[test]
    fn each_client_has_a_number_of_its_own() {
        let number = |ip: &str| ClientKey::of(ip.parse().unwrap()).number();
        let all =
            ["192.0.2.7", "192.0.2.8", "0.0.0.1", "127.0.0.1", "::1", "2001:db8:1:2::1", "2001:db8:1:3::1", "::2"];
        let numbers: std::collections::HashSet<_> = all.iter().map(|ip| number(ip)).collect();
        assert_eq!(numbers.len(), all.len());
        assert_eq!(number("2001:db8:1:2::1"), number("2001:db8:1:2:ffff::"));
        assert_eq!(number("::ffff:192.0.2.7"), number("192.0.2.7"));
    }

    #[rstest]
    #[case::direct("192.0.2.1", &[], "192.0.2.1")]
    #[case::local("127.0.0.1", &[], "127.0.0.1")]
    #[case::untrusted_header("192.0.2.1", &[("x-forwarded-for", "192.0.2.9")], "192.0.2.1")]
    #[case::proxy("127.0.0.1", &[("x-forwarded-for", "192.0.2.9")], "192.0.2.9")]
    #[case::made_up_part("127.0.0.1", &[("x-forwarded-for", "1.1.1.1, 192.0.2.9")], "192.0.2.9")]
    #[case::two_proxies("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 192.0.2.9,10.9.9.9")], "192.0.2.9")]
    #[case::two_lines("10.0.0.1", &[("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "10.9.9.9")], "192.0.2.9")]
    #[case::unreadable("10.0.0.1", &[("x-forwarded-for", "192.0.2.9, unknown")], "10.0.0.1")]
    #[case::claims_to_be_local("127.0.0.1", &[("x-forwarded-for", "127.0.0.1")], "127.0.0.1")]
    #[case::port("10.0.0.1", &[("x-forwarded-for", "192.0.2.9:4711")], "192.0.2.9")]
    #[case::standard("10.0.0.1", &[("forwarded", "for=1.1.1.1, For=\"[2001:db8::1]:47\";proto=https")], "2001:db8::")]
    #[case::both_agree("10.0.0.1", &[("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=192.0.2.9")], "192.0.2.9")]
    #[case::headers_disagree("10.0.0.1", &[("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=1.1.1.1")], "10.0.0.1")]
    #[case::local_proxy("127.0.0.1", &[("x-forwarded-for", "")], "127.0.0.1")]
    #[case::hidden("10.0.0.1", &[("forwarded", "for=192.0.2.9, for=_hidden")], "10.0.0.1")]
    fn the_last_address_that_is_no_proxys_is_the_client(
        #[case] remote: &str,
        #[case] headers: &[(&'static str, &'static str)],
        #[case] key: &str,
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let rules = AddressRules { proxies: networks("127.0.0.0/8 ::1/128 10.0.0.0/8"), ..AddressRules::default() };
        let client = rules.client(remote.parse().unwrap(), &map);
        let unnamed = headers.is_empty() && remote == "127.0.0.1";
        assert_eq!(client, Client { key: ClientKey::of(key.parse().unwrap()), unlimited: false, unnamed });
    }

    #[test]
    fn only_the_address_of_a_connection_makes_a_client_unlimited() {
        let rules = AddressRules { proxies: networks("127.0.0.0/8"), unlimited: networks("127.0.0.1/32 10.0.0.0/8") };
        let unlimited = |remote: &str, forwarded: Option<&'static str>| {
            let headers = forwarded.map(|address| (X_FORWARDED_FOR, HeaderValue::from_static(address)));
            rules.client(remote.parse().unwrap(), &HeaderMap::from_iter(headers)).unlimited
        };
        assert!(unlimited("127.0.0.1", None) && unlimited("::ffff:10.1.2.3", None));
        assert!(!unlimited("127.0.0.2", None));
        assert!(!unlimited("127.0.0.1", Some("10.1.2.3")) && !unlimited("127.0.0.1", Some("192.0.2.7")));
    }

    fn networks(list: &str) -> Vec<IpNet> {
        list.split(' ').map(|network| network.parse().unwrap()).collect()
    }
}

//! Clients: distinguished by their address, behind trusted proxies by the address that these forward.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
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
    /// Whether the connection is that of a trusted proxy, which names no client.
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
    /// before it. An entry that can't be read ends the search at the proxy that appended it, and a line of `forwarded`
    /// with a quote that is not closed, or a backslash outside of quotes, can't be read at all. Where both headers are
    /// there and disagree, one was passed on unread: the proxy then counts as the client.
    pub fn client(&self, remote: IpAddr, headers: &HeaderMap) -> Client {
        let remote = remote.to_canonical();
        // A line with other than visible ASCII can't be read: it is not empty.
        let lines = |name| headers.get_all(name).iter().map(|line: &HeaderValue| line.to_str().unwrap_or("?")).rev();
        let standard = headers.contains_key(FORWARDED).then(|| {
            let elements = lines(FORWARDED).flat_map(|line| split(line, ',').unwrap_or(vec!["?"]).into_iter().rev());
            self.walk(remote, elements, forwarded_for)
        });
        let other = headers.contains_key(X_FORWARDED_FOR).then(|| {
            let entries = lines(X_FORWARDED_FOR).flat_map(|line| line.rsplit(','));
            self.walk(remote, entries, |entry| read_address(entry.trim()))
        });
        let is_forwarded = standard.is_some() || other.is_some();
        let named = match (standard, other) {
            (Some(standard), Some(other)) if standard != other => None,
            (standard, other) => standard.or(other).flatten(),
        };
        Client {
            key: ClientKey::of(named.unwrap_or(remote)),
            unlimited: !is_forwarded && contains(&self.unlimited, remote),
            unnamed: named.is_none() && contains(&self.proxies, remote),
        }
    }

    /// The client by the entries of one of the headers, the last one first; `None` if the connection's own proxy names
    /// none, or is not trusted.
    fn walk<'a>(
        &self,
        remote: IpAddr,
        entries: impl Iterator<Item = &'a str>,
        read: impl Fn(&str) -> Option<IpAddr>,
    ) -> Option<IpAddr> {
        let (mut address, mut named) = (remote, None);
        // A list may have empty members (RFC 9110, section 5.6.1.2).
        for entry in entries.filter(|entry| !entry.trim().is_empty()) {
            if !contains(&self.proxies, address) {
                break;
            }
            let Some(next) = read(entry) else { break };
            (address, named) = (next, Some(next));
        }
        named
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The parts of a text between separators outside of quotes; `None` if a quote is not closed, or a backslash stands
/// outside of quotes. What stands in quotes may come from the client, such as the `Host` that it sent (RFC 7239, section
/// 4).
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped, mut is_broken) = (false, false, false);
    let parts = text.split(|c| {
        // A quote that the client left open turns the proxy's quotes around: what the proxy escaped is outside then.
        is_broken |= c == '\\' && !is_quoted;
        (is_quoted, is_escaped) = (is_quoted ^ (c == '"' && !is_escaped), is_quoted && c == '\\' && !is_escaped);
        c == separator && !is_quoted
    });
    let parts = parts.collect();
    (!is_quoted && !is_broken).then_some(parts)
}

/// The address in `for` of one element of `forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = split(element, ';')?.into_iter().filter_map(|pair| pair.split_once('='));
    // The first one alone: a second is not allowed (RFC 7239, section 4).
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    read_address(&value.trim().trim_matches('"').replace('\\', ""))
}

/// An address, with or without a port, IPv6 with or without brackets. A port may be a made-up word after `_` (RFC 7239,
/// section 6.3).
fn read_address(text: &str) -> Option<IpAddr> {
    let is_port = |port: &str| port.starts_with('_') || port.parse::<u16>().is_ok();
    let address = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(address)?,
        None => text.split_once(':').filter(|(_, port)| is_port(port)).map_or(text, |(address, _)| address),
    };
    address.parse().ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
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
    #[case::quoted_comma("10.0.0.1", &[("forwarded", "for=192.0.2.9;host=\"x,for=1.1.1.1\"")], "192.0.2.9")]
    #[case::quoted_pair("10.0.0.1", &[("forwarded", "host=\"a;for=1.1.1.1\";for=192.0.2.9")], "192.0.2.9")]
    #[case::quoted_quote("10.0.0.1", &[("forwarded", "host=\"a\\\",for=1.1.1.1\";for=192.0.2.9")], "192.0.2.9")]
    #[case::open_quote("10.0.0.1", &[("forwarded", "for=1.1.1.1;a=\", for=192.0.2.9;host=\"b\"")], "10.0.0.1")]
    #[case::turned_quotes("10.0.0.1", &[("forwarded", "for=1.1.1.1;x=\", for=192.0.2.9;host=\"a\\\"b\"")], "10.0.0.1")]
    #[case::second_for("10.0.0.1", &[("forwarded", "for=_hidden;for=1.1.1.1")], "10.0.0.1")]
    #[case::not_ascii("10.0.0.1", &[("forwarded", "for=1.1.1.1"), ("forwarded", "for=192.0.2.9;host=\"ü\"")], "10.0.0.1")]
    #[case::x_not_ascii("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "ü")], "10.0.0.1")]
    #[case::escaped("10.0.0.1", &[("forwarded", "for=\"192.0.2.\\9\"")], "192.0.2.9")]
    #[case::made_up_port("10.0.0.1", &[("forwarded", "for=\"192.0.2.9:_p\"")], "192.0.2.9")]
    #[case::made_up_port_6("10.0.0.1", &[("forwarded", "for=\"[2001:db8::1]:_p\"")], "2001:db8::")]
    #[case::no_port("10.0.0.1", &[("x-forwarded-for", "192.0.2.9:p")], "10.0.0.1")]
    #[case::empty_member("10.0.0.1", &[("forwarded", "for=192.0.2.9,")], "192.0.2.9")]
    #[case::empty_line("10.0.0.1", &[("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "")], "192.0.2.9")]
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
        // All others are named, but for one that has a proxy's own address.
        let unnamed = remote != "192.0.2.1" && key == remote && headers != [("x-forwarded-for", "127.0.0.1")];
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

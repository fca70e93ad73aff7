//! Scopes of ip addresses (public, private, loopback, special) and subnets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Scope of an ip address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressScope {
    /// The internet.
    Public,
    /// A private network: RFC 1918, carrier-grade NAT (RFC 6598), unique local (RFC 4193).
    Private,
    /// This machine.
    Loopback,
    /// Link-local (cloud metadata services), multicast, unspecified, broadcast, documentation, reserved, and addresses
    /// that embed an IPv4 address (NAT64, 6to4, Teredo): no node of the network has such an address.
    Special,
}

impl AddressScope {
    /// Returns the scope of `ip`; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    /// Follows the registry of special addresses: <https://www.iana.org/assignments/iana-ipv4-special-registry>.
    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            // "This network", link-local, protocol assignments, 6to4 relays, benchmarks, documentation (three), and
            // multicast with what is reserved above it.
            [0, ..]
            | [169, 254, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..] => Self::Special,
            _ => Self::Public,
        }
    }

    /// Global unicast is 2000::/3, without the special blocks in it:
    /// <https://www.iana.org/assignments/iana-ipv6-special-registry>.
    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            _ if ip.is_loopback() => Self::Loopback,
            [0xfc00..=0xfdff, ..] => Self::Private,
            // Protocol assignments with Teredo, documentation (two), 6to4.
            [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x2002, ..] => Self::Special,
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Special,
        }
    }
}

/// The ip address that a multiaddr begins with; `None` for a DNS name.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(IpAddr::V6(ip).to_canonical()),
        _ => None,
    }
}

/// Address block that is likely under one control: an IPv4 /24, the smallest block that is routed, or an IPv6 /48, the
/// largest that a site is given (RFC 6177) and free from tunnel brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Subnet(IpAddr);

impl Subnet {
    /// Returns the subnet of `ip`; `None` for loopback.
    pub fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => Some(Self(Ipv4Addr::from_bits(ip.to_bits() >> 8 << 8).into())),
            IpAddr::V6(ip) => Some(Self(Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80).into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        AddressScope::Public,
        "8.8.8.8 100.63.0.1 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 2606:4700::1 ::ffff:8.8.8.8"
    )]
    #[case(
        AddressScope::Private,
        "10.0.0.1 172.16.0.1 172.31.9.9 192.168.0.1 100.64.0.1 fd00::1 fc00::1 ::ffff:10.0.0.1"
    )]
    #[case(AddressScope::Loopback, "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1")]
    #[case(
        AddressScope::Special,
        "0.0.0.0 169.254.169.254 192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1 203.0.113.1"
    )]
    #[case(
        AddressScope::Special,
        "224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::ffff:0.0.0.0 ::ffff:169.254.169.254"
    )]
    #[case::embedded(
        AddressScope::Special,
        "::7f00:1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 2001:0:1::1 ::ffff:0:127.0.0.1"
    )]
    #[case(AddressScope::Special, "fe80::1 fec0::1 ff02::1 2001:db8::1 3fff::1 100::1 4000::1 2001:10::1 2001:2::1")]
    fn each_address_has_its_scope(#[case] scope: AddressScope, #[case] addresses: &str) {
        for address in addresses.split(' ') {
            assert_eq!(AddressScope::of(address.parse().unwrap()), scope, "{address}");
        }
    }

    #[test]
    fn neighbouring_addresses_share_a_subnet() {
        let subnet = |ip: &str| Subnet::of(ip.parse().unwrap());
        assert_eq!(subnet("8.8.8.8"), subnet("8.8.8.200"));
        assert_eq!(subnet("8.8.8.8"), subnet("::ffff:8.8.8.1"));
        assert_ne!(subnet("8.8.8.8"), subnet("8.8.9.8"));
        assert_eq!(subnet("2606:4700:1::1"), subnet("2606:4700:1:ffff::2"));
        assert_ne!(subnet("2606:4700:1::1"), subnet("2606:4700:2::1"));
        assert_eq!((subnet("127.0.0.1"), subnet("::1")), (None, None));
    }
}

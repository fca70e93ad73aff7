//! Ways to write an address, so that somebody dials it: multiaddrs, URLs and whatever a lenient parser may take for
//! one.

use std::net::IpAddr;

use libp2p::PeerId;

use crate::connection_counter::TARGETS;

/// All forms of all targets, with this port. Those that are multiaddrs come first.
pub fn hostile(port: u16) -> Vec<String> {
    let peer = PeerId::random();
    let mut forms = multiaddrs(port, peer);
    for target in TARGETS {
        let ip: IpAddr = target.parse().unwrap();
        let host = if ip.is_ipv6() { format!("[{target}]") } else { target.to_owned() };
        let kind = if ip.is_ipv6() { "ip6" } else { "ip4" };
        let plain = format!("/{kind}/{target}/tcp/{port}");
        forms.extend([
            format!("{host}:{port}"),
            format!("http://{host}:{port}/"),
            format!("https://{host}:{port}/"),
            format!("ws://{host}:{port}"),
            format!("tcp://{host}:{port}"),
            format!("gopher://{host}:{port}/_"),
            format!("//{host}:{port}/"),
            format!("\\\\{host}:{port}\\"),
            format!("http://example.org@{host}:{port}/"),
            format!("http://{host}:{port}#example.org"),
            format!("http://{host}:{port}?.example.org"),
            format!("x={plain}"),
            format!("any={plain}"),
            format!("any,{plain}"),
            format!("{peer}@{host}:{port}"),
            format!("{peer}{plain}"),
            format!("{plain}/../{peer}"),
            format!("{plain}\r\nHost: {host}"),
            format!("{plain}\0"),
            format!(" {plain}"),
            plain.to_uppercase(),
            plain.replace('/', "%2F"),
            plain.replace('/', "%252F"),
            plain.replace('/', "\u{ff0f}"),
            plain.replace('.', "\u{3002}"),
            format!("{peer}/p2p-circuit{plain}"),
        ]);
        if let IpAddr::V4(ip) = ip {
            let [a, b, c, d] = ip.octets();
            let number = u32::from(ip);
            for host in [
                format!("{number}"),
                format!("{number:#x}"),
                format!("{number:#o}"),
                format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
                format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
                format!("{a}.{d}"),
                format!("{a}.{b}.{d}"),
                format!("00{a}.00{b}.00{c}.00{d}"),
                format!("{ip}."),
                format!("{ip}.nip.io"),
                format!("①②⑦.{b}.{c}.{d}"),
            ] {
                forms.push(format!("/ip4/{host}/tcp/{port}"));
                forms.push(format!("http://{host}:{port}/"));
            }
        }
    }
    forms
}

/// The forms that libp2p itself takes for addresses.
pub fn multiaddrs(port: u16, peer: PeerId) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for target in TARGETS {
        match target.parse().unwrap() {
            IpAddr::V4(ip) => {
                let (mapped, bits) = (ip.to_ipv6_mapped(), u32::from(ip));
                let [high, low] = [bits >> 16, bits & 0xffff];
                hosts.push(format!("/ip4/{ip}"));
                hosts.push(format!("/ip6/{mapped}"));
                hosts.push(format!("/ip6/::{high:x}:{low:x}"));
                hosts.push(format!("/ip6/64:ff9b::{high:x}:{low:x}"));
                hosts.push(format!("/ip6/2002:{high:x}:{low:x}::1"));
            }
            IpAddr::V6(ip) => {
                hosts.push(format!("/ip6/{ip}"));
                hosts.push(format!("/ip6zone/lo/ip6/{ip}"));
            }
        }
    }
    hosts.extend(["/ip4/0.0.0.0", "/ip6/::", "/ip6/::ffff:0.0.0.0"].map(Into::into));
    for name in ["localhost", "LOCALHOST", "localhost.", "ip6-localhost", "127.0.0.1", "2130706433", "0x7f000001"] {
        hosts.extend(["dns", "dns4", "dns6", "dnsaddr"].map(|kind| format!("/{kind}/{name}")));
    }
    let mut all = Vec::new();
    for host in hosts {
        for tail in ["", "/ws", "/wss", "/tls/ws", "/http", "/x-parity-ws/%2F"] {
            all.push(format!("{host}/tcp/{port}{tail}"));
        }
        all.push(format!("{host}/tcp/{port}/p2p/{peer}"));
        all.push(format!("{host}/tcp/{port}/p2p/{peer}/p2p-circuit"));
        all.push(format!("{host}/udp/{port}/quic-v1"));
    }
    all.extend(["/dnsaddr/localhost".into(), format!("/unix/tmp/{port}"), format!("/memory/{port}")]);
    all
}

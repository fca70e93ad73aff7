//! Ports that are used again after a while.

use std::net::TcpListener;

/// A free port of loopback for somebody who comes and goes. Below those that the system gives to connections (Linux:
/// from 32768 on, `net.ipv4.ip_local_port_range`), so that none of them has it meanwhile.
pub fn free_port() -> u16 {
    let mut tries = std::iter::repeat_with(|| fastrand::u16(20_000..32_000)).take(1000);
    tries.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

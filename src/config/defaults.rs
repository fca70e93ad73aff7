//! The defaults. Those of HTTP are the ones of [`http::Settings`].

use std::{net::Ipv4Addr, time::Duration};

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::{Config, DatabaseUrl, LogFormat, value};
use crate::{
    chain::{Level, Network, PowMemory},
    http,
    p2p::Trust,
};

impl Default for Config {
    fn default() -> Self {
        let (http, connections) = (http::Settings::default(), http::server::ConnectionLimits::default());
        let tcp = |port| Multiaddr::from(Ipv4Addr::UNSPECIFIED).with(Protocol::Tcp(port));
        Self {
            database_url: DatabaseUrl::default(),
            database_url_file: None,
            database_read_url: Vec::new(),
            http: ([127, 0, 0, 1], 8080).into(),
            admin: ([127, 0, 0, 1], 9090).into(),
            listen: vec![tcp(10001), tcp(10002).with(Protocol::Ws("/".into()))],
            peer: Vec::new(),
            identity: "modal-gateway.key".into(),
            network: Network::default(),
            bootstrap: None,
            genesis_hash: None,
            difficulty_schedule: None,
            verify: Level::Pow,
            assume_valid: true,
            sync: true,
            sync_interval: Duration::from_secs(10),
            pow_threads: 0,
            pow_memory: PowMemory::Auto,
            mdns: false,
            target_peers: 8,
            log: LogFormat::Text,
            access_log: http.access_log,
            finality_depth: 40,
            peer_timeout: Duration::from_secs(30),
            cache_mib: 32,
            store_connections: 8,
            tls_cert: None,
            tls_key: None,
            admin_token: None,
            admin_token_file: None,
            trusted_proxy: value::loopback(),
            unlimited_client: Vec::new(),
            cors_origin: vec!["*".into()],
            rate_limit: http.rate_limit,
            rate_burst: http.rate_burst,
            max_connections: connections.connections,
            client_connections: connections.client_connections,
            max_requests: http.max_requests,
            max_streams: http.max_streams,
            header_timeout: connections.header_timeout,
            idle_timeout: connections.idle_timeout,
            request_timeout: http.request_timeout,
            trust: Trust::Open,
            allow_peer: Vec::new(),
            deny_peer: Vec::new(),
            private_addresses: None,
            node_requests: 2,
            peer_rate_limit: 10_000,
            peer_answer_mib: 24,
            memory_limit_mib: 0,
        }
    }
}

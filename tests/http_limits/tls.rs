//! HTTP/2, and TLS with a certificate that changes.

use std::{path::Path, sync::Arc, time::Duration};

use modal_gateway::{
    app::{AppError, Gateway},
    config::Config,
    http::{
        Settings,
        counters::CloseReason,
        server::{ConnectionLimits, Tls},
    },
};
use reqwest::{Client, Version};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use crate::support::clock::judge;
use crate::{
    open,
    raw_client::{RawClient, h2_get, h2_preface},
    support::{
        gateway::PATIENCE,
        listeners::{ListenerOptions, Listeners, unlimited},
    },
};

/// Writes a fresh certificate and key into a folder; returns the certificate.
fn write_certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()
}

fn load(folder: &Path) -> Tls {
    Tls::load(folder.join("cert.pem"), folder.join("key.pem")).unwrap()
}

async fn https(folder: &Path, limits: ConnectionLimits) -> Listeners {
    let settings = Settings { tls: true, ..unlimited() };
    open(ListenerOptions { tls: Some(Arc::new(load(folder))), settings, limits, ..ListenerOptions::default() }).await
}

/// Connects as a client that knows only this certificate.
async fn connect(
    listeners: &Listeners,
    known: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<RawClient<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(known.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config =
        config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(listeners.public).await?;
    let name = "localhost".try_into().unwrap();
    Ok(RawClient(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

#[tokio::test]
async fn http2_is_used_with_clients_that_begin_with_it() {
    let listeners = open(ListenerOptions::default()).await;
    let client = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let get = |path: &str| client.get(format!("http://{}{path}", listeners.public)).send();
    let answers = futures::future::try_join_all((0..50).map(|_| get("/data/miner_block/epoch?epoch=0"))).await.unwrap();
    for answer in answers {
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    }
    assert_eq!(listeners.counters.public.open(), 1, "over one connection");
    let whole = get("/data/miner_block/canonical").await.unwrap().bytes().await.unwrap();
    assert!(whole.ends_with(b"\"errors\":null}"));
    let post = client.post(format!("http://{}/ping", listeners.public)).json(&[1, 2]).send().await.unwrap();
    assert_eq!(post.json::<serde_json::Value>().await.unwrap()["data"], serde_json::json!([1, 2]));
}

#[tokio::test]
async fn both_protocols_are_offered_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_certificate(folder.path());
    let listeners = https(folder.path(), ConnectionLimits::default()).await;
    let mut plain = connect(&listeners, &certificate, b"http/1.1").await.unwrap();
    let (head, _) = plain.get("/health/live").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("strict-transport-security: max-age="), "{head}");
    let mut h2 = connect(&listeners, &certificate, b"h2").await.unwrap();
    assert_eq!(h2.0.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    h2.send(h2_preface(65_535)).await;
    h2.send(h2_get(1, "/health/live")).await;
    let mut bytes = Vec::new();
    // Of a DATA frame on the stream.
    while !String::from_utf8_lossy(&bytes).contains(r#""status":"live""#) {
        timeout(PATIENCE, h2.0.read_buf(&mut bytes)).await.expect("an answer in time").unwrap();
    }
}

#[tokio::test]
async fn a_slow_handshake_times_out() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let limits = ConnectionLimits { header_timeout: Duration::from_millis(500), ..ConnectionLimits::default() };
    let listeners = https(folder.path(), limits).await;
    let mut silent = RawClient::connect(listeners.public).await;
    let mut half = RawClient::connect(listeners.public).await;
    half.send([22, 3, 1, 0, 200, 1]).await;
    for wire in [&mut silent, &mut half] {
        let (bytes, after) = wire.closed().await;
        assert!(bytes.is_empty());
        judge(after < Duration::from_secs(4), format_args!("{after:?}"));
    }
    assert_eq!(listeners.counters.public.closed(CloseReason::HeaderTimeout), 2);
    let mut plain = RawClient::connect(listeners.public).await;
    plain.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    plain.closed().await;
    assert_eq!(listeners.counters.public.closed(CloseReason::TlsFailed), 1);
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let old = write_certificate(folder.path());
    let listeners = https(folder.path(), ConnectionLimits::default()).await;
    let mut before = connect(&listeners, &old, b"http/1.1").await.unwrap();
    assert!(before.get("/health/live").await.0.starts_with("http/1.1 200"));
    // A key without its certificate, then neither: what was there stays.
    let key = std::fs::read(folder.path().join("key.pem")).unwrap();
    std::fs::write(folder.path().join("key.pem"), "nothing").unwrap();
    assert!(connect(&listeners, &old, b"http/1.1").await.is_ok());
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    let new = write_certificate(folder.path());
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let taken_over = async {
        while connect(&listeners, &new, b"http/1.1").await.is_err() {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, taken_over).await.expect("the new certificate in time");
    assert!(connect(&listeners, &old, b"http/1.1").await.is_err());
    assert!(before.get("/health/live").await.0.starts_with("http/1.1 200"), "who is connected stays so");
    // Long enough for the bad file to be looked at: the next good one is taken over after it.
    std::fs::write(folder.path().join("cert.pem"), "nothing").unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::time::Instant::now() < until {
        ticks.tick().await;
        assert!(connect(&listeners, &new, b"http/1.1").await.is_ok());
    }
    let newest = write_certificate(folder.path());
    let taken_over = async {
        while connect(&listeners, &newest, b"http/1.1").await.is_err() {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, taken_over).await.expect("the newest certificate in time");
}

#[tokio::test]
async fn an_unusable_certificate_is_refused_at_the_start() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_certificate(one.path());
    write_certificate(two.path());
    let file = |folder: &Path, name: &str| folder.join(name);
    let refused = async |certificate: std::path::PathBuf, key: std::path::PathBuf| {
        let http = ([127, 0, 0, 1], 0).into();
        let config = Config { http, admin: http, tls_cert: Some(certificate), tls_key: Some(key), ..Config::default() };
        match Gateway::start(&config).await.map(|_| ()) {
            Err(error @ AppError::Tls(_)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let (cert, key) = (file(one.path(), "cert.pem"), file(one.path(), "key.pem"));
    let missing = file(one.path(), "nothing.pem");
    assert!(refused(missing.clone(), key.clone()).await.starts_with("tls_cert: "));
    assert!(refused(cert.clone(), missing).await.starts_with("tls_key: "));
    assert!(refused(key.clone(), key).await.contains("holds no certificate"));
    assert!(refused(cert.clone(), cert.clone()).await.contains("holds no private key"));
    assert!(refused(cert, file(two.path(), "key.pem")).await.contains("can't be used together"));
}

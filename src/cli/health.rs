//! `health`: one plain HTTP GET, so that a container needs no other program for its health check.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::Url;

use crate::config::Config;

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most that is read of the answer's status line.
const MAX_STATUS_LINE: usize = 256;

/// Most that is read of the answer's head, and of the body of one that is not 200.
const MAX_HEAD: usize = 8 << 10;
const MAX_BODY: usize = 4 << 10;

/// How long that body may take: the status counts without it.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the gateway doesn't count as ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum HealthError {
    #[error("the HTTP address {0} has no fixed port: give the URL")]
    NoPort(SocketAddr),
    #[error("expected a URL with no user and password: none are sent")]
    UserInfo,
    #[error("{0}: --synced goes with /health/ready alone; no other path says whether the store is in sync")]
    NotReadiness(Url),
    #[error("{0} can't be reached")]
    Io(Url, #[source] io::Error),
    #[error("{0} gave no answer within {seconds} s", seconds = TIMEOUT.as_secs())]
    Timeout(Url),
    #[error("{0} answers {1}")]
    Status(Url, String),
}

/// The path that is asked for where none is given.
const READY: &str = "/health/ready";

/// Takes `http://` URLs only: there is no TLS here. A base URL stands for its `/health/ready`.
pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(mut url) if url.scheme() == "http" && url.has_host() => {
            if url.path() == "/" {
                url.set_path(READY);
            }
            Ok(url)
        }
        _ => Err("expected a URL such as http://127.0.0.1:8080/health/ready".into()),
    }
}

/// Asks `url`, or the configured address. `synced`: whether the store must be in sync with the network.
pub(super) async fn run(config: &Config, url: Option<Url>, synced: bool) -> Result<(), HealthError> {
    let mut url = match url {
        // Before anything prints it.
        Some(url) if !url.username().is_empty() || url.password().is_some() => return Err(HealthError::UserInfo),
        Some(url) => url,
        // There is no TLS here; the admin listener speaks none either, and tells the same.
        None => default_url(if config.tls_cert.is_some() { config.admin } else { config.http })?,
    };
    if synced {
        // Another path may ignore the parameter, and be 200 whatever the sync does.
        if !url.path().trim_end_matches('/').ends_with(READY) {
            return Err(HealthError::NotReadiness(url));
        }
        let others: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| name != "synced").collect();
        url.query_pairs_mut().clear().extend_pairs(others).append_pair("synced", "true");
    }
    let (status, detail) = match tokio::time::timeout(TIMEOUT, get(&url)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(HealthError::Io(url, error)),
        Err(_) => return Err(HealthError::Timeout(url)),
    };
    match is_good(&status) {
        true => Ok(()),
        false => Err(HealthError::Status(url, format!("`{status}`{}", detail.unwrap_or_default()))),
    }
}

/// A gateway that listens everywhere is asked on the loopback address.
fn default_url(mut http: SocketAddr) -> Result<Url, HealthError> {
    if http.port() == 0 {
        return Err(HealthError::NoPort(http));
    }
    if http.ip().is_unspecified() {
        http.set_ip(match http {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Url::parse(&format!("http://{http}{READY}")).map_err(|_| HealthError::NoPort(http))
}

fn is_good(status: &str) -> bool {
    status.split(' ').nth(1) == Some("200")
}

/// The status line of the answer; if it is not good, also what the gateway says is wrong.
async fn get(url: &Url) -> io::Result<(String, Option<String>)> {
    // `Url` gives IPv6 addresses in brackets, as both the socket and the header want them.
    let host = url.host_str().unwrap_or_default();
    let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
    let mut stream = TcpStream::connect(&authority).await?;
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let request = format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < MAX_STATUS_LINE && stream.read_buf(&mut answer).await? > 0 {}
    let line = String::from_utf8_lossy(&answer[..answer.len().min(MAX_STATUS_LINE)]);
    let status = match line.lines().next() {
        Some(line) if line.starts_with("HTTP/1.") => plain(line),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP")),
    };
    if is_good(&status) {
        return Ok((status, None));
    }
    let rest =
        async { while answer.len() < MAX_HEAD + MAX_BODY && matches!(stream.read_buf(&mut answer).await, Ok(1..)) {} };
    // What has come until then is enough.
    let _ = tokio::time::timeout(BODY_TIMEOUT, rest).await;
    Ok((status, detail(&answer)))
}

/// What is wrong, after a colon, of an answer with a failure of ours in its body.
fn detail(answer: &[u8]) -> Option<String> {
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|end| &answer[end + 4..])?;
    let body = &body[..body.len().min(MAX_BODY)];
    // A proxy may have put it into a chunk.
    let (first, last) = (body.iter().position(|byte| *byte == b'{')?, body.iter().rposition(|byte| *byte == b'}')?);
    let failure: serde_json::Value = serde_json::from_slice(body.get(first..=last)?).ok()?;
    failure["errors"]["detail"].as_str().map(|detail| format!(": {}", plain(detail)))
}

/// A text without control characters.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("127.0.0.1:8080", "http://127.0.0.1:8080/health/ready")]
    #[case("0.0.0.0:81", "http://127.0.0.1:81/health/ready")]
    #[case("[::]:81", "http://[::1]:81/health/ready")]
    #[case("192.0.2.1:80", "http://192.0.2.1/health/ready")]
    fn the_configured_address_is_asked(#[case] http: &str, #[case] url: &str) {
        assert_eq!(default_url(http.parse().unwrap()).unwrap().as_str(), url);
    }

    #[test]
    fn a_base_url_stands_for_readiness() {
        for (text, url) in [
            ("http://h:81", "http://h:81/health/ready"),
            ("http://h:81/?synced=true", "http://h:81/health/ready?synced=true"),
            ("http://h/health/live", "http://h/health/live"),
        ] {
            assert_eq!(parse_url(text).unwrap().as_str(), url);
        }
    }

    #[test]
    fn an_unknown_port_or_scheme_is_an_error() {
        assert!(matches!(default_url(([127, 0, 0, 1], 0).into()), Err(HealthError::NoPort(_))));
        for text in ["https://h/", "h:80/x", "/health", "file:///etc/passwd"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn only_readiness_says_whether_the_store_is_in_sync() {
        for path in ["/health/live", "/status", "/gateway/"] {
            let url = parse_url(&format!("http://127.0.0.1:1{path}")).unwrap();
            let error = run(&Config::default(), Some(url), true).await.unwrap_err();
            assert!(matches!(error, HealthError::NotReadiness(_)), "{path}: {error}");
        }
        // Nobody listens there; that is all that is wrong.
        for path in ["", "/health/ready", "/gateway/health/ready/"] {
            let url = parse_url(&format!("http://127.0.0.1:1{path}")).unwrap();
            let error = run(&Config::default(), Some(url), true).await.unwrap_err();
            assert!(matches!(error, HealthError::Io(..)), "{path}: {error}");
        }
    }

    async fn answer(text: &'static str) -> Result<(), HealthError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/a?b=c", listener.local_addr().unwrap())).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        let config = Config::default();
        tokio::join!(run(&config, Some(url), false), server).0
    }

    #[tokio::test]
    async fn only_200_is_healthy() {
        answer("HTTP/1.1 200 OK\r\n\r\nx").await.unwrap();
        let error = answer("HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap_err().to_string();
        assert!(error.ends_with("answers `HTTP/1.1 503 Service Unavailable`"), "{error}");
        let body =
            r#"{"ok":false,"data":null,"errors":{"error":"Not synced","detail":"stalled: \u001b[2Jno useful peer"}}"#;
        for (before, after) in [("", ""), ("75\r\n", "\r\n0\r\n\r\n")] {
            let text = format!("HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\n{before}{body}{after}");
            let error = answer(text.leak()).await.unwrap_err().to_string();
            assert!(
                error.ends_with("answers `HTTP/1.1 503 Service Unavailable`: stalled: [2Jno useful peer"),
                "{error}"
            );
        }
        let long = format!("HTTP/1.1 503 x\r\n\r\n{{\"errors\":{{\"detail\":\"{}\"}}}}", "y".repeat(MAX_BODY));
        let error = answer(long.leak()).await.unwrap_err().to_string();
        assert!(error.ends_with("answers `HTTP/1.1 503 x`"), "{error}");
        assert!(matches!(answer("SSH-2.0-x\r\n").await, Err(HealthError::Io(..))));
        assert!(matches!(answer("").await, Err(HealthError::Io(..))));
    }
}
